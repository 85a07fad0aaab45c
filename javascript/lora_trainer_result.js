// The finished LoRA: where it is, and the report of its test, which the server draws.

(function (tab) {
    "use strict";

    const STRENGTH = "0.8"; // to begin with, where nothing was tested

    tab.hasResult = () => Boolean(tab.status) && Boolean(tab.report || (!tab.running() && tab.status.outputs.length));

    tab.resultHtml = function () {
        const s = tab.status;
        if (!tab.hasResult()) return "";
        if (tab.running()) {
            return `<div class="lt-panel lt-result"><div class="lt-title"><h3>${tab.escaped(s.name)}: the test so far</h3></div>
                <div class="lt-report lt-growing">${tab.report}</div></div>`;
        }
        const file = s.outputs[s.outputs.length - 1];
        const where = file ? `<p class="lt-path"><code>${tab.escaped(file)}</code></p>` : "";
        const others = s.outputs.slice(0, -1).map((path) => `<li><code>${tab.escaped(path)}</code></li>`).join("");
        const more = others ? `<details><summary>Also saved (${s.outputs.length - 1})</summary><ul>${others}</ul></details>` : "";
        const report = tab.report ? `<div class="lt-report">${tab.report}
            <p><a data-href="${tab.escaped(s.report)}" target="_blank" rel="noopener">Open the full report</a></p></div>` : "";
        return `<div class="lt-panel lt-result"><div class="lt-title"><h3>Your LoRA: ${tab.escaped(s.name)}</h3></div>${where}
            ${tab.report ? "" : untested(s.name)}${more}${report}</div>`;
    };

    /** A saved file becomes the LoRA; what is told stands in the button's place. */
    tab.use = async function (button) {
        button.disabled = true;
        const about = {action: "use", name: tab.status.name, file: button.dataset.file};
        const told = await tab.ask("/lora-trainer/runs", "POST", about).then((found) => found.message, (error) => error.message);
        button.insertAdjacentHTML("afterend", `<p class="lt-note" role="status">${tab.escaped(told)}</p>`);
        button.remove();
    };

    function untested(name) {
        const prompt = tab.escaped(`<lora:${name}:${STRENGTH}>`);
        return `<div class="prompt"><code>${prompt}</code>
            <button type="button" class="lt-send" data-infotext="${prompt}" data-prompt="${prompt}"></button></div>`;
    }
})(window.loraTrainer = window.loraTrainer || {});
