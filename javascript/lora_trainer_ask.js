// Requests to the routes. Our own page carries its key from the first one on, so a WebUI with a password never asks the
// browser for one; and no more than one question about the status is under way, however slow the answer is.

(function (tab) {
    "use strict";

    const PATIENCE = 30000; // ms for an answer
    const FRESH = 4000; // ms for which the report of a test at work is as good as a new one

    let underWay = null; // the question about the status: a server that hangs must not gather them
    let guarded = false; // whether addresses of pictures need our key, too
    let curveWidth = 760;
    let curveOf = ""; // the job, step and width of the curve that is at hand
    let reportOf = ""; // the job and report, or the job and number of its test images, of the report that is at hand
    let reportAt = 0;
    tab.lastAsked = 0;

    /** An address of the routes as this page reaches it, also behind a sub-path. */
    tab.address = function (url) {
        const local = "." + url;
        if (!guarded) return local;
        return local + (local.includes("?") ? "&" : "?") + "key=" + encodeURIComponent(tab.facts().key);
    };

    /** Ask a route; JSON, or an error with a sentence. The key goes along from the first request on: a browser that is
     *  refused without one opens its login dialog, and all that the page asks for waits behind that. */
    tab.ask = async function (url, method = "GET", body = null) {
        const headers = {"Content-Type": "application/json", "x-lora-trainer-key": tab.facts().key || ""};
        const patience = new AbortController();
        const timer = setTimeout(() => patience.abort(), PATIENCE);
        try {
            const answer = await fetch("." + url, {method, headers, body: body && JSON.stringify(body), signal: patience.signal});
            const found = await answer.json().catch(() => null);
            if (!answer.ok && found && found.error) throw Object.assign(new Error(found.error), {told: true, choices: found.choices || []});
            if (!answer.ok || !found) throw new Error(`${answer.status} ${answer.statusText}`);
            guarded = answer.headers.get("x-lora-trainer-guarded") === "1";
            return found;
        } finally {
            clearTimeout(timer);
        }
    };

    /** Hear how the job stands, and show it. While a question is under way there is no second one. */
    tab.refresh = function () {
        underWay = underWay || question().finally(() => (underWay = null));
        return underWay;
    };

    async function question() {
        tab.lastAsked = Date.now();
        try {
            const found = await tab.ask("/lora-trainer/status");
            await askCurve(found);
            await askReport(found);
            await tab.askLog(found);
            const first = tab.status === null;
            tab.status = found;
            if (first && tab.running() && !tab.onErrand()) tab.go("train", false);
            tab.show(null);
        } catch (error) {
            tab.show(error);
        }
    }

    /** The curve, where there are new steps. */
    async function askCurve(found) {
        curveWidth = tab.part("live").clientWidth || curveWidth; // none while another page is shown
        const width = curveWidth - 34; // of the panel inside its padding
        const wanted = found.step > 1 ? [found.job, found.step, found.learned.length, width].join() : "";
        if (wanted === curveOf) return;
        tab.curves = wanted ? await tab.ask("/lora-trainer/curve?width=" + width) : {html: "", gain: "", learned: ""};
        curveOf = wanted;
    }

    /** The report, where there is a new one; that of a test at work grows. */
    async function askReport(found) {
        const ended = found.report && found.state !== "testing" ? [found.job, found.report].join() : "";
        const grows = found.tests.length && tab.RUNNING.includes(found.state);
        const wanted = grows ? [found.job, found.tests.length].join() : ended;
        if (wanted === reportOf || (grows && Date.now() - reportAt < FRESH)) return;
        reportAt = Date.now();
        const url = "/lora-trainer/shown/" + encodeURIComponent(found.name);
        tab.report = wanted ? (await tab.ask(url).catch(() => ({html: ""}))).html : null;
        reportOf = wanted;
    }

    /** Pause, resume or stop. These don't pass through gradio, so they work however busy its queue is. */
    tab.command = async function (name, button) {
        button.disabled = true;
        try {
            await tab.ask("/lora-trainer/" + name, "POST", {});
        } finally {
            button.disabled = false;
            await tab.refresh(); // the one under way may be older than the command
            tab.refresh();
        }
    };

    /** An errand that a part of the page begins and follows to its end. `place` has .lt-answer for what is told; `go` and
     *  `stop` select its buttons, of which one is there. `then` and `ended` are given what the server said when it was begun
     *  on this page; null if it wasn't. */
    tab.errand = function ({state, place, go, stop, then, ended}) {
        let job = null; // that is followed; the status may still be that of the one before
        let begun = null;
        let drawn = "";
        const answer = () => place().querySelector(".lt-answer");
        const say = (html) => (answer().innerHTML = drawn = html);

        async function begin(url, values) {
            say("");
            begun = await tab.ask(url, "POST", values);
            job = begun.job;
            await tab.refresh();
            tab.refresh();
        }

        function show() {
            const running = tab.status.state === state;
            place().querySelector(go).classList.toggle("lt-hidden", running);
            place().querySelector(stop).classList.toggle("lt-hidden", !running);
            if (running) job = tab.status.job;
            if (!job || tab.status.job !== job) return;
            const own = begun && begun.job === job ? begun : null;
            const html = tab.errandHtml(then(own));
            if (html !== drawn || !answer().firstChild) say(html);
            if (running || tab.running()) return;
            job = null;
            ended(own);
        }

        return {begin, say, show};
    };
})(window.loraTrainer = window.loraTrainer || {});
