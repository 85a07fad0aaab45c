// The page Runs: every run, what became of it, and what can be done with it now.

(function (tab) {
    "use strict";

    const FRESH = 4000; // ms for which a list is as good as a new one
    const LABELS = {continue: "Continue", continue_test: "Continue the test", test: "Test", forget: "Don't offer again", delete: "Delete …"};

    let runs = null; // as they were last heard
    let asked = 0;
    let of = ""; // the job and state for which they were
    let question = ""; // the run that is asked about
    let told = ""; // what the last action said

    /** Hear of the runs, where the page is looked at and something may have changed. */
    tab.askRuns = async function (now = false) {
        const s = tab.status || {};
        const place = [s.job, s.state].join();
        if (!now && (tab.page() !== "runs" || (place === of && Date.now() - asked < FRESH * (tab.running() ? 1 : 8)))) return;
        asked = Date.now();
        of = place;
        try {
            runs = (await tab.ask("/lora-trainer/runs")).runs;
            tab.askChoices();
        } catch (error) {
            told = error.message;
        }
        showRuns();
    };

    function showRuns() {
        const note = told ? `<div class="lt-note" role="status">${tab.escaped(told)}</div>` : "";
        if (!runs) return tab.put("runs", note);
        const rows = runs.map(rowHtml).join("");
        const list = rows ? `<ul class="lt-runs">${rows}</ul>` : "<p>No run yet. Each training will be listed here.</p>";
        tab.put("runs", `<div class="lt-panel"><div class="lt-title"><h3>Runs</h3></div>${note}${list}</div>`);
    }

    function rowHtml(run) {
        const picture = run.preview ? tab.picture(run.preview, run.name) : `<span class="lt-blank"></span>`;
        const verdict = run.verdict ? `<span class="lt-chip">${tab.escaped(run.verdict)}</span>` : "";
        const more = [...run.warnings, run.why].filter(Boolean).map((line) => `<small>${tab.escaped(line)}</small>`).join("");
        return `<li>${picture}<div class="lt-run"><div><b>${tab.escaped(run.name)}</b> ${verdict}</div>
            <div>${tab.escaped(run.line)}</div>${more}<div class="lt-choices">${actionsHtml(run)}</div></div></li>`;
    }

    function actionsHtml(run) {
        const button = (act, text) =>
            `<button type="button" class="lt-go" data-run="${tab.escaped(run.name)}" data-act="${act}">${text}</button>`;
        if (question === run.name) {
            return `<span>Delete what this run left in its folder?</span> ${button("keep", "Delete, keep the LoRA")}
                ${button("all", "Delete with the LoRA")} ${button("cancel", "Cancel")}`;
        }
        const report = run.report ? `<a class="lt-go" data-href="${tab.escaped(run.report)}" target="_blank" rel="noopener">Report</a>` : "";
        const possible = run.actions.filter((act) => LABELS[act] && !(tab.running() && ["continue", "continue_test", "test"].includes(act)));
        return possible.map((act) => button(act, LABELS[act])).join(" ") + " " + report;
    }

    /** A button of the list. */
    tab.actOnRun = async function (button) {
        const name = button.dataset.run;
        const act = button.dataset.act;
        if (act === "delete" || act === "cancel") {
            question = act === "delete" ? name : "";
            return showRuns();
        }
        question = "";
        button.disabled = true;
        const action = {keep: "delete", all: "delete"}[act] || act;
        const about = {action, name, ...(action === "delete" ? {keep_lora: act === "keep"} : {})};
        try {
            const found = await tab.ask("/lora-trainer/runs", "POST", about);
            told = found.message || "";
            if (found.job) tab.go("train");
        } catch (error) {
            told = error.message;
        }
        await tab.refresh();
        await tab.askRuns(true);
    };
})(window.loraTrainer = window.loraTrainer || {});
