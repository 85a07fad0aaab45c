// One run, looked at: its curves, sample pictures, saved files, notes and log, as it left them; and the log of the job at work.

(function (tab) {
    "use strict";

    const MARGIN = 68; // px beside a curve in the list

    let name = ""; // the run that is looked at
    let found = null; // what there is of it
    let curves = null;
    let log = {of: "", rows: [], whole: "", error: ""}; // of the job at work: the job and step for which it was heard

    tab.lookedAt = () => name;

    /** Hear all of a run; "" closes it. */
    tab.look = async function (wanted) {
        if (name !== wanted) found = curves = null;
        name = wanted;
        if (!name) return;
        const address = encodeURIComponent(name);
        const width = Math.max(240, tab.part("pages").clientWidth - MARGIN);
        try {
            [found, curves] = await Promise.all([
                tab.ask("/lora-trainer/runs/" + address), tab.ask(`/lora-trainer/curve?run=${address}&width=${width}`),
            ]);
        } catch (error) {
            found = {error: error.message};
        }
    };

    tab.lookHtml = function () {
        if (!found) return "";
        if (found.error) return tab.problem(found.error);
        const facts = [["Checkpoint", found.checkpoint], ["Images", found.dataset], ["Trigger word", found.trigger]];
        const rows = facts.filter(([, value]) => value).map(([key, value]) => `<dt>${key}</dt><dd>${tab.escaped(value)}</dd>`).join("");
        const notes = [...found.notices, found.problem].filter(Boolean).map((line) => `<li>${tab.escaped(line)}</li>`).join("");
        const samples = found.samples.map((one) => ({...one, prompt: found.prompts[one.prompt] || `Prompt ${one.prompt + 1}`}));
        return `<dl class="lt-plan">${rows}</dl>${savesHtml()}${tab.curvesHtml(curves)}${tab.sheetHtml(samples)}
            ${notes ? `<details><summary>Notes</summary><ul>${notes}</ul></details>` : ""}
            <details><summary>Log</summary>${logTable(found.log, found.whole_log)}</details>`;
    };

    /** Its files; any but the LoRA itself can become it. */
    function savesHtml() {
        if (!found.saves.length) return "";
        const rows = found.saves.map((file) => {
            const use = found.state !== "running" && file !== found.lora
                ? `<button type="button" class="lt-choice" data-run="${tab.escaped(found.name)}" data-act="use"
                    data-file="${tab.escaped(file)}">Use as ${tab.escaped(found.name)}</button>` : "";
            return `<li><code>${tab.escaped(file)}</code> ${use}</li>`;
        });
        return `<details><summary>Saved files (${rows.length})</summary><ul class="lt-saves">${rows.join("")}</ul></details>`;
    }

    function logTable(rows, whole) {
        if (!rows.length) return "<p>No step is logged.</p>";
        const figure = (value, digits) => (typeof value === "number" ? value.toPrecision(digits) : "–");
        const body = [...rows].reverse().map((row) => {
            const rate = row.lr && typeof row.lr === "object" ? Object.values(row.lr)[0] : null;
            const cells = [row.step, row.epoch ?? "–", figure(row.loss, 4), figure(row.baseline, 4), figure(rate, 3),
                figure(row.grad_norm, 3), figure(row.seconds, 2)];
            return `<tr>${cells.map((cell) => `<td>${tab.escaped(cell)}</td>`).join("")}</tr>`;
        });
        const heads = ["Step", "Epoch", "Loss", "Base model's", "Learning rate", "Gradient", "Seconds"];
        const link = whole ? `<p><a data-href="${tab.escaped(whole)}" target="_blank" rel="noopener">The whole log</a></p>` : "";
        return `<div class="lt-scroll lt-log" tabindex="0" role="region" aria-label="Log, the newest step first"><table><thead><tr>
            ${heads.map((head) => `<th scope="col">${head}</th>`).join("")}</tr></thead><tbody>${body.join("")}</tbody></table></div>${link}`;
    }

    const opened = () => tab.part("log") && tab.part("log").querySelector("details[open]");

    /** The log of the job at work, while somebody has opened it. */
    tab.askLog = async function (status) {
        const of = [status.job, status.step].join();
        if (!opened() || of === log.of) return;
        try {
            const run = await tab.ask("/lora-trainer/runs/" + encodeURIComponent(status.name));
            log = {of, rows: run.log, whole: run.whole_log, error: ""};
        } catch (error) {
            log = {of, rows: [], whole: "", error: error.message};
        }
    };

    tab.logHtml = function () {
        const s = tab.status;
        if (!s.step) return "";
        const ours = log.of.startsWith(s.job + ",");
        const inside = !ours ? "<p>…</p>" : log.error ? tab.problem(log.error) : logTable(log.rows, log.whole);
        return `<details class="lt-panel"><summary>Log</summary>${inside}</details>`;
    };

    document.addEventListener("toggle", (event) => {
        if (event.target.closest && event.target.closest("#lora_trainer_log") && event.target.open) tab.refresh();
    }, true);
})(window.loraTrainer = window.loraTrainer || {});
