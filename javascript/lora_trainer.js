// The Train LoRA tab: what its scripts share. Each file of lora_trainer_*.js has one task; they meet in one object.
//
//   lora_trainer.js            where things are, and small pieces of HTML
//   lora_trainer_ask.js        requests to the routes, and the status as it was last heard
//   lora_trainer_curve.js      the loss
//   lora_trainer_form.js       what is typed: it is made known, and no late answer overwrites it
//   lora_trainer_large.js      a picture, large; "Send to txt2img"
//   lora_trainer_progress.js   how the run stands, and its sample pictures
//   lora_trainer_result.js     the finished LoRA
//   lora_trainer_start.js      listens to clicks, keys and the clock
//
// Progress goes one way: the job's events make the status, the status makes the page.

(function (tab) {
    "use strict";

    tab.RUNNING = ["preparing", "training", "paused", "testing"];
    tab.status = null; // as the route gave it last
    tab.report = null; // of the run that the status names

    const drawn = {}; // what each part shows, as text, so that it is only rebuilt when that changes

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);

    /** An element of the tab by its name. */
    tab.part = (name) => page().querySelector("#lora_trainer_" + name);

    /** What the server says about the page: its key, and whether it is inside a WebUI. */
    tab.facts = () => (tab.part("page") || {dataset: {}}).dataset;

    /** Whether somebody looks at the tab. */
    tab.looked = () => !document.hidden && Boolean(tab.part("form")) && tab.part("form").offsetParent !== null;

    /** Whether a job runs, as far as is known. */
    tab.running = () => Boolean(tab.status) && tab.RUNNING.includes(tab.status.state);

    /** Text for use in HTML. */
    tab.escaped = function (text) {
        const map = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;"};
        return String(text ?? "").replace(/[&<>"']/g, (char) => map[char]);
    };

    /** Seconds as people say them. */
    tab.duration = function (seconds) {
        if (seconds < 90) return Math.round(seconds) + " s";
        const minutes = Math.round(seconds / 60);
        if (minutes < 90) return minutes + " min";
        return Math.floor(minutes / 60) + " h " + String(minutes % 60).padStart(2, "0") + " min";
    };

    tab.strengthText = (value) => (value === 0 ? "0" : Number.isInteger(value * 10) ? value.toFixed(1) : String(value));

    tab.loraTag = (name, strength) => `<lora:${name}:${tab.strengthText(strength)}>`;

    tab.problem = (text) => `<div class="lt-note lt-problem" role="alert">${tab.escaped(text)}</div>`;

    /** Put HTML into a part, unless it is there already. */
    tab.put = function (name, html) {
        const where = tab.part(name);
        if (!where || (drawn[name] === html && where.querySelector(".lt-filled"))) return;
        drawn[name] = html;
        where.innerHTML = `<div class="lt-filled">${html}</div>`;
    };

    tab.toggle = function (name, visible) {
        const where = tab.part(name);
        if (where) where.classList.toggle("lt-hidden", !visible);
    };
})(window.loraTrainer = window.loraTrainer || {});
