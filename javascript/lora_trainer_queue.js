// The queue on the page Runs: what waits, in its order, and what became of the rest.

(function (tab) {
    "use strict";

    const STATES = {waiting: "waits", running: "is being trained", done: "done", failed: "failed", stopped: "was stopped"};

    let queue = null; // as it was last heard
    let told = "";
    let edits = false; // an entry's settings were put into the form

    /** Hear of the queue. */
    tab.askQueue = async function () {
        try {
            queue = await tab.ask("/lora-trainer/queue");
        } catch (error) {
            told = error.message;
        }
        show();
    };

    function show() {
        tab.put("queue", html());
    }

    function html() {
        const note = told ? `<div class="lt-note" role="status">${tab.escaped(told)}</div>` : "";
        if (!queue || (!queue.entries.length && !note)) return "";
        const open = queue.entries.filter((entry) => ["waiting", "running"].includes(entry.state));
        const ended = queue.entries.filter((entry) => !open.includes(entry));
        const waiting = open.filter((entry) => entry.state === "waiting");
        const list = open.length ? `<ol class="lt-queue">${open.map((entry) => rowHtml(entry, waiting)).join("")}</ol>`
            : "<p>Nothing waits. <b>Add to queue</b> on the page Train puts a training here.</p>";
        const old = ended.length ? `<details><summary>Ended (${ended.length})</summary>
            <ul class="lt-queue">${ended.map((entry) => rowHtml(entry, [])).join("")}</ul></details>` : "";
        return `<div class="lt-panel"><div class="lt-title"><h3>Queue</h3><small>${howHtml(waiting)}</small></div>${note}${list}${old}</div>`;
    }

    function howHtml(waiting) {
        if (!waiting.length) return "";
        if (queue.running !== null || (tab.running() && !queue.held)) {
            return `The next one begins when the training at work has ended. ${button(0, "hold", "Hold the queue")}`;
        }
        return `${queue.held ? "The queue is held." : "One after the other, on the checkpoint that is loaded."} ${button(0, "start", "Start the queue")}`;
    }

    const button = (id, act, text, label = "") => `<button type="button" class="lt-choice" data-queue="${act}" data-id="${id}"
        ${label ? `aria-label="${tab.escaped(label)}"` : ""}>${text}</button>`;

    function rowHtml(entry, waiting) {
        const place = waiting.indexOf(entry) + 1;
        const why = entry.why ? `<div><small>${tab.escaped(entry.why)}</small></div>` : "";
        const folder = entry.dataset.split(/[\\/]/).filter(Boolean).pop();
        const about = [folder, entry.checkpoint].filter(Boolean).map(tab.escaped).join(" · ");
        const up = place > 1 ? button(entry.id, "up", "↑", `${entry.name}: earlier`) : "";
        const down = place && place < waiting.length ? button(entry.id, "down", "↓", `${entry.name}: later`) : "";
        const rest = entry.state === "running" ? ""
            : button(entry.id, "edit", "Edit", `Edit ${entry.name}`) + button(entry.id, "remove", "Remove", `Remove ${entry.name}`);
        return `<li><div class="lt-run"><div><b>${tab.escaped(entry.name)}</b> ${STATES[entry.state]}
            <small title="${tab.escaped(entry.dataset)}">${about}</small></div>${why}<div class="lt-choices">${up}${down}${rest}</div></div></li>`;
    }

    /** A button of the queue. */
    tab.actOnQueue = async function (pressed) {
        const act = pressed.dataset.queue;
        const id = Number(pressed.dataset.id);
        told = "";
        edits = edits || act === "edit";
        if (act === "edit") return tab.useSettings("queue " + id);
        const waiting = queue.entries.filter((entry) => entry.state === "waiting").map((entry) => entry.id);
        const to = waiting.indexOf(id) + (act === "up" ? 0 : 2);
        const about = {up: {action: "move", id, to}, down: {action: "move", id, to}, remove: {action: "remove", id}}[act] || {action: act};
        pressed.disabled = true;
        try {
            queue = await tab.ask("/lora-trainer/queue", "POST", about);
        } catch (error) {
            told = error.message;
        }
        show();
        await tab.refresh();
        return tab.askRuns(true);
    };

    /** Whether a further training may be put behind what is at work or waits. */
    tab.canQueue = () => edits || tab.running() || Boolean(tab.status && tab.status.queue);
})(window.loraTrainer = window.loraTrainer || {});
