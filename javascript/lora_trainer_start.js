// Listens to clicks, keys and the clock. The status is asked once a second while the tab is looked at and a job runs.

(function (tab) {
    "use strict";

    const TICK = 1000; // ms between two questions while a job runs
    const IDLE_TICK = 4000;

    const BEGINS = /^lora_trainer_(start|test|choice_(resume|overwrite|resume_overwrite))$/; // buttons that start a job
    const LOOKS = /^lora_trainer_(check|copy)$/; // buttons after which images are looked at
    const PATIENCE = 20000; // ms from a press of Train to the run

    let pressed = 0; // when Train was
    let away = true; // whether the tab isn't looked at

    function onClick(event) {
        const inside = event.target.closest && event.target.closest("#lora_trainer");
        if (!inside) return;
        const button = event.target.closest("button");
        if (event.target.closest("#lora_trainer_large") === event.target) tab.closeLarge(); // beside the picture
        if (!button) return;
        if (button.classList.contains("lt-fills")) tab.filled = tab.awaitFill([tab.part("sources"), tab.part("form")]);
        else if (button.classList.contains("lt-fills-panel")) tab.filled = tab.awaitFill([button.closest(".lt-panel")]);
        else if (button.dataset.choice) tab.choose(button);
        else if (button.dataset.page) tab.go(button.dataset.page);
        else if (button.dataset.about) tab.openLarge(button);
        else if (button.classList.contains("lt-close")) tab.closeLarge();
        else if (button.classList.contains("lt-send")) tab.send(button);
        else if (button.classList.contains("lt-use")) tab.use(button);
        else if (button.dataset.act) tab.actOnRun(button);
        else if (button.dataset.queue) tab.actOnQueue(button);
        else if (button.dataset.compare) tab.compare(button);
        else if (button.dataset.caption) tab.caption(button);
        else if (button.dataset.image) tab.openImage(button);
        else if (button.dataset.describe) tab.describe(button);
        else if (button.dataset.photos) tab.openPhotos(button);
        else if (button.dataset.fix) tab.remedy(button);
        else if (button.dataset.regularise) tab.regularise(button);
        else if (button.dataset.looking) tab.ask("/lora-trainer/check/stop", "POST", {}).then(tab.refresh);
        else if (["lora_trainer_stop", "lora_trainer_pause", "lora_trainer_resume"].includes(button.id)) {
            tab.command(button.id.slice("lora_trainer_".length), button);
        } else if (LOOKS.test(button.id)) {
            [600, 1500].forEach((wait) => setTimeout(tab.refresh, wait)); // a quick one shows nothing
        } else if (BEGINS.test(button.id)) {
            pressed = Date.now();
            [300, 900, 1800].forEach((wait) => setTimeout(tab.refresh, wait));
        }
    }

    /** After Train the progress is looked at: it may be far from the button. */
    tab.bringIntoView = function () {
        if (Date.now() - pressed > PATIENCE) return;
        pressed = 0;
        const panel = tab.part("panel_progress");
        const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
        panel.setAttribute("tabindex", "-1");
        panel.focus({preventScroll: true});
        const scroll = () => panel.scrollIntoView({behavior: still ? "auto" : "smooth", block: "start"});
        setTimeout(scroll, 100); // when the columns have changed places, and the browser has stopped to hold the old view
    };

    /** Ctrl+Enter, Alt+Enter and Esc mean Generate, Skip and Interrupt to the WebUI, which has no such buttons here. */
    function onKey(event) {
        if (!tab.looked()) return;
        const head = event.target.closest && event.target.closest("#lora_trainer .label-wrap");
        if (head && head.tagName !== "BUTTON" && (event.key === "Enter" || event.key === " ")) {
            event.preventDefault();
            head.click();
        }
        tab.walkHeads(event);
        const enter = event.key === "Enter" && (event.ctrlKey || event.metaKey || event.altKey);
        if (event.key === "Escape") tab.closeLarge();
        if (enter || event.key === "Escape") event.stopPropagation();
    }

    /** Heads of folds: gradio 3 makes them of what no key reaches, and no gradio says whether they are open. */
    function dressFolds() {
        for (const head of tab.part("pages").querySelectorAll(".label-wrap")) {
            if (head.tagName !== "BUTTON" && !head.hasAttribute("role")) {
                head.setAttribute("role", "button");
                head.setAttribute("tabindex", "0");
            }
            const open = String(head.classList.contains("open"));
            if (head.getAttribute("aria-expanded") !== open) head.setAttribute("aria-expanded", open);
        }
    }

    function tick() {
        if (!tab.looked()) {
            away = true;
            tab.lookAfter();
            return;
        }
        if (away) {
            away = false;
            tab.comeBack();
        }
        dressFolds();
        tab.showPages();
        tab.takeSuggestions();
        tab.showPhotos();
        tab.showCaptions();
        tab.showDescribing();
        tab.showRegularisation();
        tab.showPractice();
        if (Date.now() - tab.lastAsked >= (tab.running() || !tab.status || tab.status.looking ? TICK : IDLE_TICK)) tab.refresh();
        else if (tab.part("progress") && !tab.part("progress").querySelector(".lt-filled")) tab.show(null);
    }

    document.addEventListener("click", onClick);
    document.addEventListener("click", (event) => tab.headPressed(event), true);
    document.addEventListener("input", (event) => tab.noteChange(event));
    document.addEventListener("change", (event) => tab.noteChange(event));
    document.addEventListener("focusout", (event) => {
        if (event.target.closest && event.target.closest("#lora_trainer_advanced")) tab.noteChange(event);
    });
    window.addEventListener("keydown", onKey, true);
    setInterval(tick, 250);
})(window.loraTrainer = window.loraTrainer || {});
