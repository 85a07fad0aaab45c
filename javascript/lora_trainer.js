// The live part of the Train LoRA tab: asks the status once a second while it is looked at, and draws what it hears.
// The buttons Pause, Resume and Stop speak to the routes directly, so they work however busy gradio's queue is.

(function () {
    "use strict";

    const RUNNING = ["preparing", "training", "paused", "testing"];
    const TICK = 1000; // ms between two questions while a job runs
    const IDLE_TICK = 4000;
    const PATIENCE = 30000; // ms for an answer
    const PLOT = {height: 220, left: 46, right: 12, top: 12, bottom: 26}; // px

    let status = null;
    let report = null; // of the run that the status names
    let reportUrl = "";
    let guarded = false; // whether addresses of pictures need our key, too
    let asking = false; // one question at a time: a server that hangs must not gather them
    let restored = false;
    let away = true; // whether the tab isn't looked at
    let lastAsked = 0;
    let drawn = {}; // what each part shows, as text, so that it is only rebuilt when that changes

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const part = (name) => page().querySelector("#lora_trainer_" + name);
    const facts = () => (part("page") || {dataset: {}}).dataset;
    const looked = () => !document.hidden && Boolean(part("form")) && part("form").offsetParent !== null;

    /** Text for use in HTML. */
    function escaped(text) {
        const map = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;"};
        return String(text ?? "").replace(/[&<>"']/g, (char) => map[char]);
    }

    /** Seconds as people say them. */
    function duration(seconds) {
        if (seconds < 90) return Math.round(seconds) + " s";
        const minutes = Math.round(seconds / 60);
        if (minutes < 90) return minutes + " min";
        return Math.floor(minutes / 60) + " h " + String(minutes % 60).padStart(2, "0") + " min";
    }

    const strengthText = (value) => (value === 0 ? "0" : Number.isInteger(value * 10) ? value.toFixed(1) : String(value));
    const loraTag = (name, strength) => `<lora:${name}:${strengthText(strength)}>`;

    // ------------------------------------------------------------------ routes

    /** An address of the routes as this page reaches it, also behind a sub-path. */
    function address(url) {
        const local = "." + url;
        if (!guarded) return local;
        return local + (local.includes("?") ? "&" : "?") + "key=" + encodeURIComponent(facts().key);
    }

    /** Ask a route; JSON, or an error with a sentence. The key goes along from the first request on: a browser that is
     *  refused without one opens its login dialog, and all that the page asks for waits behind that. */
    async function ask(url, method = "GET", body = null) {
        const headers = {"Content-Type": "application/json", "x-lora-trainer-key": facts().key || ""};
        const patience = new AbortController();
        const timer = setTimeout(() => patience.abort(), PATIENCE);
        try {
            const answer = await fetch("." + url, {method, headers, body: body && JSON.stringify(body), signal: patience.signal});
            const found = await answer.json().catch(() => null);
            if (!answer.ok && found && found.error) throw Object.assign(new Error(found.error), {told: true});
            if (!answer.ok || !found) throw new Error(`${answer.status} ${answer.statusText}`);
            guarded = answer.headers.get("x-lora-trainer-guarded") === "1";
            return found;
        } finally {
            clearTimeout(timer);
        }
    }

    async function refresh() {
        if (asking) return;
        asking = true;
        lastAsked = Date.now();
        try {
            const found = await ask("/lora-trainer/status");
            if (found.report && (found.report !== reportUrl || !report) && found.state !== "testing") {
                reportUrl = found.report;
                report = await ask("/lora-trainer/report/" + encodeURIComponent(found.name)).catch(() => null);
            } else if (!found.report) {
                report = null;
                reportUrl = "";
            }
            status = found;
            show(null);
        } catch (error) {
            show(error);
        } finally {
            asking = false;
        }
    }

    async function command(name, button) {
        button.disabled = true;
        try {
            await ask("/lora-trainer/" + name, "POST", {});
        } finally {
            button.disabled = false;
            refresh();
        }
    }

    // ------------------------------------------------------------------ what is shown

    /** Put HTML into a part, unless it is there already. */
    function put(name, html) {
        const where = part(name);
        if (!where || (drawn[name] === html && where.querySelector(".lt-filled"))) return;
        drawn[name] = html;
        where.innerHTML = `<div class="lt-filled">${html}</div>`;
    }

    function show(error) {
        if (!status) {
            if (error) put("progress", problem(error.told ? error.message : "The WebUI doesn't answer: " + error.message));
            return;
        }
        const running = RUNNING.includes(status.state);
        put("progress", progressHtml(running, error));
        put("notices", noticesHtml());
        put("loss", status.losses.length > 1 ? lossHtml() : "");
        put("samples", samplesHtml());
        put("report", running ? "" : resultHtml());
        toggle("pause", running && status.state !== "paused");
        toggle("resume", status.state === "paused");
        toggle("stop", running);
        toggle("buttons", running);
        for (const button of [part("start"), part("test")]) {
            button.disabled = running;
            button.classList.toggle("lt-busy", running);
        }
    }

    function toggle(name, visible) {
        const where = part(name);
        if (where) where.classList.toggle("lt-hidden", !visible);
    }

    const problem = (text) => `<div class="lt-note lt-problem" role="alert">${escaped(text)}</div>`;

    function progressHtml(running, error) {
        const s = status;
        if (s.state === "idle") {
            return `<div class="lt-welcome"><h3>Nothing is being trained</h3>
                <ol><li>Choose the folder with your pictures and press <b>Check</b>.</li>
                <li>Look over trigger word, preset and name.</li>
                <li>Press <b>Train</b>. It uses the checkpoint that is loaded; curve, pictures and time left appear here.</li>
                <li>Afterwards the LoRA is in the Lora tab, and here are pictures at several strengths.</li></ol></div>`;
        }
        const titles = {
            preparing: "Getting ready", training: "Training", paused: "Paused", testing: "Testing", done: "Done",
            failed: "Failed", stopped: "Stopped",
        };
        const total = s.progress.total || s.steps || 0;
        const done = s.progress.total ? s.progress.done : s.step;
        const share = total ? Math.min(100, 100 * done / total) : 0;
        const cells = [];
        if (s.steps) cells.push(["Step", `${s.step} / ${s.steps}`]);
        if (s.epochs) cells.push(["Epoch", `${s.epoch} / ${s.epochs}`]);
        if (s.average !== null) cells.push(["Loss", s.average.toFixed(4)]);
        if (running && s.eta_seconds !== null) cells.push(["Time left", duration(s.eta_seconds)]);
        if (s.seconds_per_step) cells.push(["A step", s.seconds_per_step.toPrecision(2) + " s"]);
        const tiles = cells.map(([name, value]) => `<div><span>${name}</span><b>${escaped(value)}</b></div>`).join("");
        const lost = error ? problem("No answer at the moment (" + error.message + "); trying again.") : "";
        const message = s.state === "failed" ? problem(s.error) : `<p class="lt-message">${escaped(s.message)}</p>`;
        const percent = running && total ? `${Math.floor(share)} %` : "";
        return `<div class="lt-head" data-state="${s.state}"><span class="lt-dot"></span>
            <h3>${titles[s.state]}</h3><b class="lt-name">${escaped(s.name)}</b><span class="lt-percent">${percent}</span></div>
            <div class="lt-bar lt-${s.state}" role="progressbar" aria-valuenow="${Math.round(share)}" aria-valuemin="0"
            aria-valuemax="100"><div style="width:${share.toFixed(1)}%"></div></div>${message}${lost}
            <div class="lt-tiles">${tiles}</div>`;
    }

    function noticesHtml() {
        if (!status.notices.length) return "";
        const lines = status.notices.map((line) => `<li>${escaped(line)}</li>`).join("");
        return `<details class="lt-note lt-warn"${status.notices.length < 4 ? " open" : ""}>
            <summary>To know (${status.notices.length})</summary><ul>${lines}</ul></details>`;
    }

    // ------------------------------------------------------------------ the curve

    /** A mean that forgets: each value counts less the older it is (Adam's bias-corrected average). */
    function smoothed(values) {
        const keep = 1 - 1 / Math.max(4, values.length / 12);
        let mean = 0;
        return values.map((value, index) => {
            mean = keep * mean + (1 - keep) * value;
            return mean / (1 - Math.pow(keep, index + 1));
        });
    }

    /** Round numbers that divide a range in about `count` parts. */
    function ticks(low, high, count) {
        const rough = (high - low) / count || 1;
        const power = Math.pow(10, Math.floor(Math.log10(rough)));
        const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
        const found = [];
        for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(at);
        return found;
    }

    function lossHtml() {
        const width = Math.max(240, part("live").clientWidth - 34); // of the panel inside its padding
        const steps = status.losses.map((point) => point[0]);
        const raw = status.losses.map((point) => point[1]);
        const mean = smoothed(raw);
        const sorted = [...raw].sort((a, b) => a - b);
        const last = Math.max(status.steps || 0, steps[steps.length - 1]);
        let low = Math.min(sorted[0], ...mean);
        let high = Math.max(sorted[Math.floor(0.98 * (sorted.length - 1))], ...mean);
        const margin = (high - low || Math.abs(high) || 1) * 0.06;
        low = Math.max(0, low - margin);
        high += margin;
        const x = (step) => PLOT.left + (width - PLOT.left - PLOT.right) * step / last;
        const y = (value) => {
            const share = (Math.min(high, Math.max(low, value)) - low) / (high - low);
            return PLOT.height - PLOT.bottom - (PLOT.height - PLOT.top - PLOT.bottom) * share;
        };
        const line = (values) => values.map((value, n) => `${x(steps[n]).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
        const digits = high - low < 0.02 ? 4 : high - low < 0.2 ? 3 : 2;
        const rows = ticks(low, high, 4).map((value) => `<line x1="${PLOT.left}" x2="${width - PLOT.right}"
            y1="${y(value).toFixed(1)}" y2="${y(value).toFixed(1)}"/><text x="${PLOT.left - 6}" y="${(y(value) + 3.5).toFixed(1)}"
            text-anchor="end">${value.toFixed(digits)}</text>`).join("");
        const columns = ticks(0, last, width < 450 ? 3 : 6).filter((step) => Number.isInteger(step)).map((step) =>
            `<text x="${x(step).toFixed(1)}" y="${PLOT.height - 8}" text-anchor="middle">${step}</text>`).join("");
        const tip = "Mostly the noise that was drawn: it jumps, and even a good LoRA lowers it only a little. Trust the pictures.";
        return `<div class="lt-panel"><div class="lt-title"><h3>Loss</h3><small title="${tip}">${tip}</small></div>
            <svg class="lt-curve" width="${width}" height="${PLOT.height}" viewBox="0 0 ${width} ${PLOT.height}" role="img" aria-label="Loss by step">
            <g class="lt-grid">${rows}${columns}</g><polyline class="lt-raw" points="${line(raw)}"/>
            <polyline class="lt-mean" points="${line(mean)}"/>
            <circle class="lt-now" cx="${x(steps[steps.length - 1]).toFixed(1)}" cy="${y(mean[mean.length - 1]).toFixed(1)}" r="4"/>
            </svg><div class="lt-legend"><span class="lt-key-mean">smoothed, now ${mean[mean.length - 1].toFixed(4)}</span>
            <span class="lt-key-raw">each step</span></div></div>`;
    }

    // ------------------------------------------------------------------ pictures

    /** One picture that opens large; what it is about goes with it as data. */
    function picture(url, title, about = {}) {
        const data = escaped(JSON.stringify({url, title, ...about}));
        return `<button type="button" class="lt-picture" data-about="${data}" title="${escaped(title)}">
            <img src="${escaped(address(url))}" alt="${escaped(title)}" loading="lazy"></button>`;
    }

    function samplesHtml() {
        if (!status.samples.length) return "";
        const prompts = [...new Set(status.samples.map((sample) => sample.prompt))];
        const steps = [...new Set(status.samples.map((sample) => sample.step))].sort((a, b) => a - b);
        const named = (step) => (step === 0 ? "before" : "step " + step);
        const head = steps.map((step) => `<th scope="col">${named(step)}</th>`).join("");
        const rows = prompts.map((prompt) => {
            const cells = steps.map((step) => {
                const found = status.samples.filter((sample) => sample.step === step && sample.prompt === prompt);
                return `<td>${found.map((one) => picture(one.url, `${named(step)}: ${prompt}`)).join("")}</td>`;
            });
            return `<tr>${cells.join("")}</tr><tr><td colspan="${steps.length}" class="lt-caption">${escaped(prompt)}</td></tr>`;
        });
        return `<div class="lt-panel"><div class="lt-title"><h3>Samples</h3>
            <small>Always the same seeds; “before” is the checkpoint without the LoRA.</small></div>
            <div class="lt-scroll"><table class="lt-sheet"><thead><tr>${head}</tr></thead><tbody>${rows.join("")}</tbody>
            </table></div></div>`;
    }

    // ------------------------------------------------------------------ the result

    function resultHtml() {
        if (!status.outputs.length && !report) return "";
        const file = status.outputs[status.outputs.length - 1];
        const name = report ? report.name : status.name;
        const strength = report ? report.recommended.strength : 0.8;
        const trigger = report ? report.trigger : "";
        const prompt = `${loraTag(name, strength)} ${trigger}`.trim();
        const where = file ? `<p class="lt-path"><code>${escaped(file)}</code></p>` : "";
        const others = status.outputs.slice(0, -1).map((path) => `<li><code>${escaped(path)}</code></li>`).join("");
        const more = others ? `<details><summary>Saved on the way (${status.outputs.length - 1})</summary><ul>${others}</ul></details>` : "";
        const best = report ? bestShot(strength) : null;
        const card = `<div class="lt-panel lt-result"><div class="lt-title"><h3>Your LoRA: ${escaped(name)}</h3></div>${where}
            <div class="lt-use"><code>${escaped(prompt)}</code>${sendButton(best ? best.infotext : prompt, prompt)}</div>
            ${more}${report ? verdictHtml() : ""}</div>`;
        return card + (report ? gridsHtml() : "");
    }

    /** The picture of the sweep nearest to a strength, or null. */
    function bestShot(strength) {
        const sweep = report.images.filter((image) => image.kind === "strength");
        return sweep.reduce((best, image) =>
            (!best || Math.abs(image.strength - strength) < Math.abs(best.strength - strength) ? image : best), null);
    }

    function sendButton(infotext, prompt) {
        const label = facts().webui === "1" ? "Send to txt2img" : "Copy prompt";
        return `<button type="button" class="lt-send" data-infotext="${escaped(infotext)}" data-prompt="${escaped(prompt)}">${label}</button>`;
    }

    function verdictHtml() {
        const list = (lines) => `<ul>${lines.map((line) => `<li>${escaped(line)}</li>`).join("")}</ul>`;
        const good = report.verdict === "good" ? " lt-verdict-good" : "";
        return `<dl class="lt-plan"><dt>Trigger</dt><dd>${escaped(report.trigger || "none")}</dd>
            <dt>Strength</dt><dd><b>${strengthText(report.recommended.strength)}</b> ${escaped(report.recommended.why)}</dd>
            <dt>Verdict</dt><dd><span class="lt-verdict${good}">${escaped(report.verdict)}</span></dd></dl>
            <div class="lt-two"><div><b>What was seen</b>${list(report.evidence)}</div>
            <div><b>What to do</b>${list(report.advice)}</div></div>
            <p><a href="${escaped(address(reportUrl))}" target="_blank" rel="noopener">Open the whole report</a></p>`;
    }

    const imageUrl = (image) => `/lora-trainer/report/${encodeURIComponent(report.name)}/` +
        image.path.split("/").map(encodeURIComponent).join("/");

    function shotPicture(image) {
        const title = `strength ${strengthText(image.strength)}, seed ${image.seed}`;
        return picture(imageUrl(image), title, {infotext: image.infotext, prompt: image.prompt});
    }

    /** Seeds downwards, `columns` across. */
    function sheet(images, columnOf, columnTitle, chosen) {
        const columns = [...new Map(images.map((image) => [columnOf(image), image])).keys()];
        const seeds = [...new Set(images.map((image) => image.seed))];
        const head = columns.map((column) =>
            `<th scope="col"${column === chosen ? ' class="lt-chosen"' : ""}>${escaped(columnTitle(column))}</th>`).join("");
        const rows = seeds.map((seed) => "<tr>" + columns.map((column) => {
            const found = images.find((image) => image.seed === seed && columnOf(image) === column);
            return `<td${column === chosen ? ' class="lt-chosen"' : ""}>${found ? shotPicture(found) : ""}</td>`;
        }).join("") + "</tr>");
        return `<div class="lt-scroll"><table class="lt-sheet"><thead><tr>${head}</tr></thead><tbody>${rows.join("")}</tbody></table></div>`;
    }

    function gridsHtml() {
        const of = (kind) => report.images.filter((image) => image.kind === kind);
        const strengths = of("strength");
        const epochs = of("epoch");
        const cases = [...new Set(of("integration").map((image) => image.case))];
        const panel = (title, help, body) => `<div class="lt-panel"><div class="lt-title"><h3>${title}</h3>
            <small>${help}</small></div>${body}</div>`;
        let html = "";
        if (strengths.length) {
            html += panel("Strength", "One seed a row; 0 is the checkpoint alone. Click a picture for its settings.",
                sheet(strengths, (image) => image.strength, strengthText, report.recommended.strength));
        }
        if (cases.length) {
            const pairs = cases.map((text) => {
                const images = of("integration").filter((image) => image.case === text);
                const title = (strength) => (strength === 0 ? "without" : "with, " + strengthText(strength));
                return `<div class="lt-case"><div class="lt-caption">${escaped(text)}</div>
                    ${sheet(images, (image) => image.strength, title, null)}</div>`;
            });
            html += panel("In other surroundings", "The same seeds without and with the LoRA.", `<div class="lt-cases">${pairs.join("")}</div>`);
        }
        if (epochs.length) {
            html += panel("Saved on the way", "Each saved file at the same strength: an earlier one may be the better.",
                sheet(epochs, (image) => image.label, (label) => label, null));
        }
        return html;
    }

    // ------------------------------------------------------------------ a picture, large

    function openLarge(about) {
        closeLarge();
        const box = document.createElement("div");
        box.id = "lora_trainer_large";
        const text = about.infotext ? `<pre>${escaped(about.infotext)}</pre>${sendButton(about.infotext, about.prompt)}` : "";
        box.innerHTML = `<figure><img src="${escaped(address(about.url))}" alt="${escaped(about.title)}">
            <figcaption><b>${escaped(about.title)}</b>${text}</figcaption></figure>
            <button type="button" class="lt-close" aria-label="Close">×</button>`;
        part("form").closest("#lora_trainer").appendChild(box);
        box.querySelector(".lt-close").focus();
    }

    function closeLarge() {
        const box = part("large");
        if (box) box.remove();
        return Boolean(box);
    }

    // ------------------------------------------------------------------ sending

    async function send(button) {
        if (facts().webui === "1") {
            closeLarge();
            const area = part("infotext").querySelector("textarea, input");
            area.value = button.dataset.infotext;
            area.dispatchEvent(new Event("input", {bubbles: true}));
            setTimeout(() => part("send").click(), 100);
            return;
        }
        const label = button.textContent;
        try {
            await navigator.clipboard.writeText(button.dataset.prompt);
            button.textContent = "Copied";
        } catch (error) {
            window.prompt("Copy this prompt:", button.dataset.prompt);
        }
        setTimeout(() => (button.textContent = label), 1500);
    }

    // ------------------------------------------------------------------ listening

    /** Values that were typed reach gradio at once; the server hears of them when the typing pauses. */
    let pending = 0;
    function noteChange(event) {
        const form = part("form");
        if (!form || !form.contains(event.target) || !restored) return;
        if (event.target.closest("#lora_trainer_photos input[type=file]")) return;
        if (event.target.closest("#lora_trainer_preset")) {
            if (event.type === "change") setTimeout(() => part("chosen").click(), 60);
            return;
        }
        if (event.target.closest("#lora_trainer_dataset")) {
            if (event.type === "change") part("check").click();
            return;
        }
        clearTimeout(pending);
        pending = setTimeout(() => part("changed").click(), 900);
    }

    function onClick(event) {
        const inside = event.target.closest && event.target.closest("#lora_trainer");
        if (!inside) return;
        const button = event.target.closest("button");
        const large = event.target.closest("#lora_trainer_large");
        if (large && (!button || button.classList.contains("lt-close")) && !event.target.closest("figcaption")) {
            closeLarge();
        }
        if (!button) return;
        if (button.dataset.about) openLarge(JSON.parse(button.dataset.about));
        else if (button.classList.contains("lt-send")) send(button);
        else if (["lora_trainer_stop", "lora_trainer_pause", "lora_trainer_resume"].includes(button.id)) {
            command(button.id.slice("lora_trainer_".length), button);
        } else if (button.id === "lora_trainer_start" || button.id === "lora_trainer_test") {
            [300, 900, 1800].forEach((wait) => setTimeout(refresh, wait));
            setTimeout(bringIntoView, 2500);
        }
    }

    /** In a narrow window the progress lies far below the button. */
    function bringIntoView() {
        const running = status && RUNNING.includes(status.state);
        if (running && part("live").offsetTop > part("form").offsetTop + 50) part("live").scrollIntoView({behavior: "smooth"});
    }

    /** Ctrl+Enter, Alt+Enter and Esc mean Generate, Skip and Interrupt to the WebUI, which has no such buttons here. */
    function onKey(event) {
        if (!looked()) return;
        const enter = event.key === "Enter" && (event.ctrlKey || event.metaKey || event.altKey);
        if (event.key === "Escape") closeLarge();
        if (enter || event.key === "Escape") event.stopPropagation();
    }

    /** The first look at the tab: the last settings come back, and a folder that was given is checked again. */
    function restore() {
        restored = true;
        part("restore").click();
        let patience = 100;
        const waiting = setInterval(() => {
            patience -= 1;
            const planned = part("plan").querySelector(".lt-plan, .lt-problem");
            if (!planned && patience > 0) return;
            clearInterval(waiting);
            const folder = part("dataset").querySelector("textarea, input");
            if (folder && folder.value.trim()) part("check").click();
        }, 150);
    }

    /** Coming back to the tab: the checkpoint may be another one by now. */
    function comeBack() {
        if (!away) return;
        away = false;
        if (!restored) restore();
        else part("changed").click();
    }

    function tick() {
        if (!looked()) {
            away = true;
            return;
        }
        comeBack();
        const running = status && RUNNING.includes(status.state);
        if (Date.now() - lastAsked >= (running || !status ? TICK : IDLE_TICK)) refresh();
        else if (part("progress") && !part("progress").querySelector(".lt-filled")) show(null);
    }

    document.addEventListener("click", onClick);
    document.addEventListener("input", noteChange);
    document.addEventListener("change", noteChange);
    document.addEventListener("focusout", (event) => {
        if (event.target.closest && event.target.closest("#lora_trainer_advanced")) noteChange(event);
    });
    window.addEventListener("keydown", onKey, true);
    setInterval(tick, 250);
})();
