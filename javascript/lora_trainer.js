// The Train LoRA tab: what its scripts share. Each file of lora_trainer_*.js has one task; they meet in one object.
//
//   lora_trainer.js            where things are, and small pieces of HTML
//   lora_trainer_ask.js        requests to the routes, the status as it was last heard, and errands that it follows
//   lora_trainer_form.js       what is typed: it is made known, and no late answer overwrites it
//   lora_trainer_large.js      a picture, large; "Send to txt2img"
//   lora_trainer_pages.js      the four pages, and what each lacks
//   lora_trainer_progress.js   how the run stands, and its sample pictures
//   lora_trainer_result.js     the finished LoRA
//   lora_trainer_runs.js       all runs, and the offer to continue one
//   lora_trainer_look.js       one run, looked at; the log
//   lora_trainer_queue.js      the queue
//   lora_trainer_compare.js    two tested LoRAs side by side
//   lora_trainer_photos.js     from loose photos to a training folder
//   lora_trainer_captions.js   the caption editor
//   lora_trainer_remedies.js   remedies of what the check found
//   lora_trainer_image.js      one image of the dataset, as training sees it
//   lora_trainer_crop.js       its crop and rotation
//   lora_trainer_describe.js   captions that a captioner writes
//   lora_trainer_regularisation.js   images of the class, which the checkpoint makes
//   lora_trainer_practice.js   the steps of the practice project
//   lora_trainer_start.js      listens to clicks, keys and the clock
//
// Progress goes one way: the job's events make the status, the status makes the page.

(function (tab) {
    "use strict";

    tab.ERRANDS = ["captioning", "generating"]; // what isn't a training, but takes the model's turn
    tab.RUNNING = ["preparing", "training", "paused", "testing", ...tab.ERRANDS];
    tab.status = null; // as the route gave it last
    tab.curves = {html: "", gain: "", learned: ""}; // of that job: its loss and what it has learned, as the server draws them
    tab.report = null; // the test's report of that run, as the server draws it

    const drawn = {}; // what each part shows, as text, so that it is only rebuilt when that changes

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);

    /** An element of the tab by its name. */
    tab.part = (name) => page().querySelector("#lora_trainer_" + name);

    /** What the server says about the page: its key, and whether it is inside a WebUI. */
    tab.facts = () => (tab.part("page") || {dataset: {}}).dataset;

    /** Whether somebody looks at the tab. */
    tab.looked = () => !document.hidden && Boolean(tab.part("pages")) && tab.part("pages").offsetParent !== null;

    /** The input of a part, and what is typed in it. */
    tab.field = (name) => tab.part(name).querySelector("textarea, input");
    tab.typed = (name) => tab.field(name).value.trim();

    /** Whether a job runs, as far as is known. */
    tab.running = () => Boolean(tab.status) && tab.RUNNING.includes(tab.status.state);

    /** Whether what runs is no training. */
    tab.onErrand = () => Boolean(tab.status) && tab.ERRANDS.includes(tab.status.state);

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

    tab.problem = (text) => `<div class="lt-note lt-problem" role="alert">${tab.escaped(text)}</div>`;

    /** Put HTML into a part, unless it is there already; tells whether it wasn't. What has the focus keeps it. */
    tab.put = function (name, html) {
        const where = tab.part(name);
        if (!where || (drawn[name] === html && where.querySelector(".lt-filled"))) return false;
        drawn[name] = html;
        const buttons = () => [...where.querySelectorAll("button, a, summary, [tabindex]")];
        const focused = buttons().indexOf(document.activeElement);
        const open = [...where.querySelectorAll("details")].map((fold) => fold.open);
        const scrolled = [...where.querySelectorAll(".lt-log")].map((log) => log.scrollTop);
        where.innerHTML = `<div class="lt-filled">${html}</div>`;
        if (open.length) where.querySelectorAll("details").forEach((fold, n) => (fold.open = open[n] ?? fold.open));
        where.querySelectorAll(".lt-log").forEach((log, n) => (log.scrollTop = scrolled[n] || 0));
        dress(where);
        if (focused >= 0 && buttons()[focused]) buttons()[focused].focus({preventScroll: true});
        return true;
    };

    /** Addresses as this page reaches them, and what a prompt's button does here. */
    function dress(where) {
        for (const image of where.querySelectorAll("img[data-src]")) image.src = tab.address(image.dataset.src);
        for (const link of where.querySelectorAll("a[data-href]")) link.href = tab.address(link.dataset.href);
        const label = tab.facts().webui === "1" ? "Send to txt2img" : "Copy prompt";
        for (const button of where.querySelectorAll(".lt-send")) button.textContent = label;
    }
    tab.dress = dress;

    tab.toggle = function (name, visible) {
        const where = tab.part(name);
        if (where) where.classList.toggle("lt-hidden", !visible);
    };
})(window.loraTrainer = window.loraTrainer || {});
