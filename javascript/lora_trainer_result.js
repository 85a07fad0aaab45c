// The finished LoRA: where it is, how to use it, and what the test shows.

(function (tab) {
    "use strict";

    tab.resultHtml = function () {
        if (!tab.status.outputs.length && !tab.report) return "";
        const file = tab.status.outputs[tab.status.outputs.length - 1];
        const name = tab.report ? tab.report.name : tab.status.name;
        const strength = tab.report ? tab.report.recommended.strength : 0.8;
        const trigger = tab.report ? tab.report.trigger : "";
        const prompt = `${tab.loraTag(name, strength)} ${trigger}`.trim();
        const where = file ? `<p class="lt-path"><code>${tab.escaped(file)}</code></p>` : "";
        const others = tab.status.outputs.slice(0, -1).map((path) => `<li><code>${tab.escaped(path)}</code></li>`).join("");
        const more = others ? `<details><summary>Also saved (${tab.status.outputs.length - 1})</summary><ul>${others}</ul></details>` : "";
        const best = tab.report ? bestShot(strength) : null;
        const card = `<div class="lt-panel lt-result"><div class="lt-title"><h3>Your LoRA: ${tab.escaped(name)}</h3></div>${where}
            <div class="lt-use"><code>${tab.escaped(prompt)}</code>${tab.sendButton(best ? best.infotext : prompt, prompt)}</div>
            ${more}${tab.report ? verdictHtml() : ""}</div>`;
        return card + (tab.report ? gridsHtml() : "");
    };

    /** The picture of the sweep nearest to a strength, or null. */
    function bestShot(strength) {
        const sweep = tab.report.images.filter((image) => image.kind === "strength");
        return sweep.reduce((best, image) =>
            (!best || Math.abs(image.strength - strength) < Math.abs(best.strength - strength) ? image : best), null);
    }

    function verdictHtml() {
        const list = (lines) => `<ul>${lines.map((line) => `<li>${tab.escaped(line)}</li>`).join("")}</ul>`;
        const good = tab.report.verdict === "good" ? " lt-verdict-good" : "";
        return `<dl class="lt-plan"><dt>Trigger word</dt><dd>${tab.escaped(tab.report.trigger || "none")}</dd>
            <dt>Strength</dt><dd><b>${tab.strengthText(tab.report.recommended.strength)}</b> ${tab.escaped(tab.report.recommended.why)}</dd>
            <dt>Verdict</dt><dd><span class="lt-verdict${good}">${tab.escaped(tab.report.verdict)}</span></dd></dl>
            <div class="lt-two"><div><b>Evidence</b>${list(tab.report.evidence)}</div>
            <div><b>What to do next</b>${list(tab.report.advice)}</div></div>
            <p><a href="${tab.escaped(tab.address(tab.status.report))}" target="_blank" rel="noopener">Open the full report</a></p>`;
    }

    const imageUrl = (image) => `/lora-trainer/report/${encodeURIComponent(tab.report.name)}/` +
        image.path.split("/").map(encodeURIComponent).join("/");

    function shotPicture(image) {
        const title = `strength ${tab.strengthText(image.strength)}, seed ${image.seed}`;
        return tab.picture(imageUrl(image), title, {infotext: image.infotext, prompt: image.prompt});
    }

    /** Seeds downwards, `columns` across. */
    function sheet(images, columnOf, columnTitle, chosen) {
        const columns = [...new Map(images.map((image) => [columnOf(image), image])).keys()];
        const seeds = [...new Set(images.map((image) => image.seed))];
        const head = columns.map((column) =>
            `<th scope="col"${column === chosen ? ' class="lt-chosen"' : ""}>${tab.escaped(columnTitle(column))}</th>`).join("");
        const rows = seeds.map((seed) => "<tr>" + columns.map((column) => {
            const found = images.find((image) => image.seed === seed && columnOf(image) === column);
            return `<td${column === chosen ? ' class="lt-chosen"' : ""}>${found ? shotPicture(found) : ""}</td>`;
        }).join("") + "</tr>");
        return `<div class="lt-scroll"><table class="lt-sheet"><thead><tr>${head}</tr></thead><tbody>${rows.join("")}</tbody></table></div>`;
    }

    function gridsHtml() {
        const of = (kind) => tab.report.images.filter((image) => image.kind === kind);
        const strengths = of("strength");
        const epochs = of("epoch");
        const cases = [...new Set(of("integration").map((image) => image.case))];
        const panel = (title, help, body) => `<div class="lt-panel"><div class="lt-title"><h3>${title}</h3>
            <small>${help}</small></div>${body}</div>`;
        let html = "";
        if (strengths.length) {
            html += panel("Strength", "One row per seed; 0 is the checkpoint alone. Click an image for its settings.",
                sheet(strengths, (image) => image.strength, tab.strengthText, tab.report.recommended.strength));
        }
        if (cases.length) {
            const pairs = cases.map((text) => {
                const images = of("integration").filter((image) => image.case === text);
                const title = (strength) => (strength === 0 ? "without" : "with, " + tab.strengthText(strength));
                return `<div class="lt-case"><div class="lt-caption">${tab.escaped(text)}</div>
                    ${sheet(images, (image) => image.strength, title, null)}</div>`;
            });
            html += panel("In other contexts", "The same seeds without and with the LoRA.", `<div class="lt-cases">${pairs.join("")}</div>`);
        }
        if (epochs.length) {
            html += panel("Saved epochs", "Every saved file at the same strength. If an earlier one looks as good, prefer it.",
                sheet(epochs, (image) => image.label, (label) => label, null));
        }
        return html;
    }
})(window.loraTrainer = window.loraTrainer || {});
