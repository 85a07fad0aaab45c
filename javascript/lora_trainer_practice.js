// The practice project: its steps, ticked off as they are done, whichever way somebody goes.

(function (tab) {
    "use strict";

    const passed = new Set(); // steps that don't show any more that they were done

    const practised = () => /(^|[\\/])practice[\\/]?$/.test(tab.typed("dataset"));

    /** Of each step whether it is done now. */
    const DONE = {
        installed: practised,
        checked: () => practised() && Boolean(tab.part("check_answer").querySelector(".lt-check")),
        read: () => practised() && Boolean(tab.part("captions").querySelector(".lt-card")),
        model: () => Boolean(tab.part("preset").querySelector("input[value=practice]:checked, input[value=Practice]:checked")),
        trained: () => passed.has("begun") && tab.status.state === "done" && tab.status.outputs.length > 0,
        tested: () => passed.has("begun") && Boolean(tab.report) && !tab.running(),
    };

    tab.showPractice = function () {
        const list = tab.part("practice_steps");
        if (!list || !tab.status) return;
        if (practised() && tab.running() && !tab.onErrand()) passed.add("begun");
        for (const item of list.querySelectorAll("[data-step]")) {
            const step = item.dataset.step;
            if (DONE[step]()) passed.add(step);
            if (passed.has(step) && item.dataset.done !== "1") {
                item.dataset.done = "1";
                item.querySelector("i").textContent = "Done: ";
            }
        }
    };
})(window.loraTrainer = window.loraTrainer || {});
