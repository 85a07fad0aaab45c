// The page Runs: every run, what became of it, and what can be done with it now; and the offer to continue one that stopped
// by itself, on every page.

(function (tab) {
    "use strict";

    const FRESH = 4000; // ms for which a list is as good as a new one
    const LABELS = {
        continue: "Continue", continue_test: "Continue the test", test: "Test", settings: "Use these settings",
        forget: "Don't offer again", delete: "Delete …",
    };
    const BEGINS = ["continue", "continue_test", "test"]; // a job, and there is one at a time

    let runs = null; // as they were last heard
    let asked = 0;
    let of = ""; // the job and state for which they were
    let question = ""; // the run that is asked about
    let told = ""; // what the last action said

    /** Hear of the runs, where something may have changed: on their own page now and then, elsewhere when a job ends. */
    tab.askRuns = async function (now = false) {
        const s = tab.status;
        if (!s) return;
        const place = [s.job, s.state].join();
        const fresh = place === of && (tab.page() !== "runs" || Date.now() - asked < FRESH * (tab.running() ? 1 : 8));
        if (!now && fresh) return;
        asked = Date.now();
        of = place;
        try {
            runs = (await tab.ask("/lora-trainer/runs")).runs;
            if (tab.page() === "runs") tab.askChoices();
            if (tab.lookedAt()) await tab.look(tab.lookedAt());
        } catch (error) {
            told = error.message;
        }
        tab.showRuns();
        tab.askQueue();
    };

    tab.showRuns = function () {
        const note = told ? `<div class="lt-note" role="status">${tab.escaped(told)}</div>` : "";
        tab.put("offer", offerHtml());
        if (!runs) return tab.put("runs", note);
        const rows = runs.map(rowHtml).join("");
        const list = rows ? `<ul class="lt-runs">${rows}</ul>` : "<p>No run yet. Each training will be listed here.</p>";
        return tab.put("runs", `<div class="lt-panel"><div class="lt-title"><h3>Runs</h3></div>${note}${list}</div>`);
    };

    /** The newest run that nobody ended. */
    function offerHtml() {
        const offered = tab.running() ? [] : (runs || []).filter((run) => run.offered);
        if (!offered.length) return "";
        const [run] = offered;
        const more = offered.length > 1 ? ` ${offered.length - 1} more on the page Runs.` : "";
        const waiting = tab.status.queue;
        const queue = waiting ? ` In the queue: ${waiting}.` : "";
        const start = waiting ? `<button type="button" class="lt-go" data-queue="start" data-id="0">Start the queue</button>` : "";
        return `<div class="lt-note lt-warn lt-way" role="status"><span><b>${tab.escaped(run.line)}</b>, although nobody stopped it.
            It can go on from its last saved state.${more}${queue}</span><span class="lt-choices">${button(run, "continue", "Continue")}
            ${button(run, "look", "Look")} ${button(run, "forget", LABELS.forget)} ${start}</span></div>`;
    }

    function button(run, act, text) {
        const open = act === "look" ? ` aria-expanded="${tab.lookedAt() === run.name}"` : "";
        return `<button type="button" class="lt-go" data-run="${tab.escaped(run.name)}" data-act="${act}"${open}>${text}</button>`;
    }

    function rowHtml(run) {
        const picture = run.preview ? tab.picture(run.preview, run.name) : `<span class="lt-blank"></span>`;
        const verdict = run.verdict ? `<span class="lt-chip">${tab.escaped(run.verdict)}</span>` : "";
        const more = run.warnings.map((line) => `<small>${tab.escaped(line)}</small>`).join("");
        const open = tab.lookedAt() === run.name ? `<div class="lt-look">${tab.lookHtml()}</div>` : ""; // below both
        return `<li>${picture}<div class="lt-run"><div><b>${tab.escaped(run.name)}</b> ${verdict}</div>
            <div>${tab.escaped(run.line)}</div>${more}<div class="lt-choices">${actionsHtml(run)}</div></div>${open}</li>`;
    }

    function actionsHtml(run) {
        if (question === run.name) {
            return `<span>Delete what this run left in its folder?</span> ${button(run, "keep", "Delete, keep the LoRA")}
                ${button(run, "all", "Delete with the LoRA")} ${button(run, "cancel", "Cancel")}`;
        }
        const report = run.report ? `<a class="lt-go" data-href="${tab.escaped(run.report)}" target="_blank" rel="noopener">Report</a>` : "";
        const possible = run.actions.filter((act) => LABELS[act] && !(tab.running() && BEGINS.includes(act)));
        const look = button(run, "look", tab.lookedAt() === run.name ? "Close" : "Look");
        return [look, ...possible.map((act) => button(run, act, LABELS[act])), report].join(" ");
    }

    /** A button of the list, of the offer or of a run that is looked at. */
    tab.actOnRun = async function (pressed) {
        const {run: name, act, file} = pressed.dataset;
        told = "";
        if (act === "delete" || act === "cancel") {
            question = act === "delete" ? name : "";
            return tab.showRuns();
        }
        question = "";
        if (act === "look") return look(name, pressed);
        if (act === "settings") return tab.useSettings("run " + name);
        pressed.disabled = true;
        const action = {keep: "delete", all: "delete"}[act] || act;
        const about = {action, name, ...(file ? {file} : {}), ...(action === "delete" ? {keep_lora: act === "keep"} : {})};
        try {
            const found = await tab.ask("/lora-trainer/runs", "POST", about);
            told = found.message || "";
            if (found.job) tab.go("train");
        } catch (error) {
            told = error.message;
            if (tab.page() !== "runs") tab.go("runs"); // where it is told
        }
        await tab.refresh();
        return tab.askRuns(true);
    };

    async function look(name, pressed) {
        if (pressed.closest("#lora_trainer_offer")) tab.go("runs");
        await tab.look(tab.lookedAt() === name ? "" : name);
        tab.showRuns();
        const row = [...tab.part("runs").querySelectorAll("[data-act=look]")].find((one) => one.dataset.run === name);
        if (row) row.scrollIntoView({block: "nearest"});
    }

    /** Fill the form with the settings of a run or of an entry of the queue: the server does it. */
    tab.useSettings = function (source) {
        const box = tab.field("settings_source");
        box.value = source;
        box.dispatchEvent(new Event("input", {bubbles: true}));
        tab.go("train");
        setTimeout(async () => {
            tab.part("settings_use").click(); // which awaits the answer
            await tab.filled;
            if (tab.typed("dataset")) tab.part("check").click();
        }, 100);
    };
})(window.loraTrainer = window.loraTrainer || {});
