// A job that ends while nobody looks: the WebUI's own sound, and a notification where the browser was allowed to show them
// (Settings → "Request browser notifications").

(function (tab) {
    "use strict";

    const AWAY_TICK = 10000; // ms between two questions while another tab or window is in front
    const WORDS = {done: "is done", failed: "has failed", stopped: "was stopped"};
    let ran = ""; // the job that was last seen at work

    /** While the tab isn't looked at: hear now and then whether its job is still at work. */
    tab.lookAfter = async function () {
        if (!tab.running() || Date.now() - tab.lastAsked < AWAY_TICK) return;
        tab.lastAsked = Date.now();
        try {
            tab.status = await tab.ask("/lora-trainer/status");
            tab.noteEnd();
        } catch (error) {
            console.debug("Train LoRA:", error.message); // it is asked again
        }
    };

    /** Tell the end of a job, once. */
    tab.noteEnd = function () {
        const {job, name, state, message, error} = tab.status;
        if (tab.running()) ran = job;
        else if (ran && ran === job) {
            ran = "";
            sound();
            if (!document.hasFocus()) notify(`${name} ${WORDS[state] || state}`, error || message);
        }
    };

    function sound() {
        const audio = document.querySelector("#audio_notification audio"); // there if the WebUI has a notification.mp3
        if (!audio) return;
        audio.volume = (window.opts && window.opts.notification_volume / 100) || 1;
        audio.play().catch(() => {}); // a browser may refuse a page that nobody has clicked yet
    }

    function notify(title, body) {
        if (!window.Notification || Notification.permission !== "granted") return;
        const shown = new Notification(title, {body});
        shown.onclick = () => {
            window.focus();
            shown.close();
        };
    }
})(window.loraTrainer = window.loraTrainer || {});
