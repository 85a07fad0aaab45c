// Listens to clicks, keys and the clock. The status is asked once a second while the tab is looked at and a job runs.

(function (tab) {
    "use strict";

    const TICK = 1000; // ms between two questions while a job runs
    const IDLE_TICK = 4000;

    const BEGINS = /^lora_trainer_(start|test|choice_(resume|overwrite|resume_overwrite))$/; // buttons that start a job

    let away = true; // whether the tab isn't looked at

    function onClick(event) {
        const inside = event.target.closest && event.target.closest("#lora_trainer");
        if (!inside) return;
        const button = event.target.closest("button");
        const large = event.target.closest("#lora_trainer_large");
        if (large && (!button || button.classList.contains("lt-close")) && !event.target.closest("figcaption")) {
            tab.closeLarge();
        }
        if (!button) return;
        if (button.classList.contains("lt-fills")) tab.filled = tab.awaitFill(tab.part("form"));
        else if (button.classList.contains("lt-fills-panel")) tab.filled = tab.awaitFill(button.closest(".lt-panel"));
        else if (button.dataset.choice) tab.choose(button);
        else if (button.dataset.about) tab.openLarge(JSON.parse(button.dataset.about));
        else if (button.classList.contains("lt-send")) tab.send(button);
        else if (["lora_trainer_stop", "lora_trainer_pause", "lora_trainer_resume"].includes(button.id)) {
            tab.command(button.id.slice("lora_trainer_".length), button);
        } else if (BEGINS.test(button.id)) {
            [300, 900, 1800].forEach((wait) => setTimeout(tab.refresh, wait));
            setTimeout(bringIntoView, 2500);
        }
    }

    /** In a narrow window the progress lies far below the button. */
    function bringIntoView() {
        const live = tab.part("live");
        if (tab.running() && live.offsetTop > tab.part("form").offsetTop + 50) live.scrollIntoView({behavior: "smooth"});
    }

    /** Ctrl+Enter, Alt+Enter and Esc mean Generate, Skip and Interrupt to the WebUI, which has no such buttons here. */
    function onKey(event) {
        if (!tab.looked()) return;
        const enter = event.key === "Enter" && (event.ctrlKey || event.metaKey || event.altKey);
        if (event.key === "Escape") tab.closeLarge();
        if (enter || event.key === "Escape") event.stopPropagation();
    }

    function tick() {
        if (!tab.looked()) {
            away = true;
            return;
        }
        if (away) {
            away = false;
            tab.comeBack();
        }
        tab.takeSuggestions();
        if (Date.now() - tab.lastAsked >= (tab.running() || !tab.status ? TICK : IDLE_TICK)) tab.refresh();
        else if (tab.part("progress") && !tab.part("progress").querySelector(".lt-filled")) tab.show(null);
    }

    document.addEventListener("click", onClick);
    document.addEventListener("input", (event) => tab.noteChange(event));
    document.addEventListener("change", (event) => tab.noteChange(event));
    document.addEventListener("focusout", (event) => {
        if (event.target.closest && event.target.closest("#lora_trainer_advanced")) tab.noteChange(event);
    });
    window.addEventListener("keydown", onKey, true);
    setInterval(tick, 250);
})(window.loraTrainer = window.loraTrainer || {});
