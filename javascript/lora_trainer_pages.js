// The four pages: which one is shown, which has news, and what each says it lacks.

(function (tab) {
    "use strict";

    const PAGES = ["images", "train", "result", "runs"];
    const NEWS = ", news"; // what those hear who don't see the mark

    const news = new Set(); // pages that have something new to show

    const heads = () => [...tab.part("pages").querySelectorAll(":scope > .tab-nav > button")];
    const head = (name) => heads()[PAGES.indexOf(name)];

    /** The page that is shown. */
    tab.page = () => PAGES.find((name) => tab.part("page_" + name) && tab.part("page_" + name).style.display !== "none");

    /** Show a page. Its head gets the focus: what was pressed to come here is gone with its page. */
    tab.go = function (name, focus = true) {
        head(name).click();
        if (!focus) return;
        setTimeout(() => {
            head(name).focus({preventScroll: true});
            if (tab.part("pages").getBoundingClientRect().top < 0) tab.part("pages").scrollIntoView();
        }, 30);
    };

    /** Something new on a page that isn't looked at. */
    tab.mark = function (name) {
        if (tab.page() !== name || !tab.looked()) news.add(name);
        dressHeads();
    };

    /** A head is about to be pressed. Gradio 3 then makes the buttons anew, and the focus is lost. */
    tab.headPressed = function (event) {
        if (!event.target.closest || !event.target.closest("#lora_trainer_pages > .tab-nav > button")) return;
        setTimeout(() => {
            dressHeads();
            if (document.activeElement === document.body) head(tab.page()).focus({preventScroll: true});
            if (tab.status) tab.show(null);
        }, 0);
    };

    /** The heads as a list of tabs: gradio 3 says nothing of it, and no gradio lets one walk by arrow keys. */
    function dressHeads() {
        const shown = tab.page();
        if (tab.looked()) news.delete(shown);
        heads().forEach((button, n) => {
            const name = PAGES[n];
            const panel = tab.part("page_" + name);
            const label = button.textContent.trim() + (news.has(name) ? NEWS : "");
            set(button, {
                id: panel.id + "-button", role: "tab", "aria-selected": String(name === shown), "aria-controls": panel.id,
                tabindex: name === shown ? "0" : "-1", "aria-label": label, "data-news": news.has(name) ? "1" : null,
            });
            set(button.parentElement, {role: "tablist"});
            set(panel, {role: "tabpanel", "aria-labelledby": button.id});
        });
    }

    function set(element, attributes) {
        for (const [name, value] of Object.entries(attributes)) {
            if (value === null) element.removeAttribute(name);
            else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
        }
    }

    /** Left, right, Home and End walk along the heads. */
    tab.walkHeads = function (event) {
        const now = heads().indexOf(event.target);
        const to = {ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: heads().length - 1}[event.key];
        if (now < 0 || to === undefined) return;
        event.preventDefault();
        tab.go(PAGES[(to + heads().length) % heads().length]);
    };

    const go = (page, text) => `<button type="button" class="lt-go" data-page="${page}">${text}</button>`;
    const way = (text, ...buttons) =>
        `<div class="lt-note lt-way"><span>${text}</span><span class="lt-choices">${buttons.join("")}</span></div>`;
    tab.goButton = go;

    /** What is to be done before the next page, and the way there. */
    function nextHtml() {
        const answer = tab.part("check_answer");
        if (answer.querySelector(".lt-unready")) return way("They can be trained as they are, but the result will be poor.", go("train", "Next: Train"));
        if (answer.querySelector(".lt-check")) return way("The images can be trained.", go("train", "Next: Train"));
        if (answer.querySelector(".lt-problem")) return "";
        if (!tab.typed("dataset")) return way("First drop your photos and press <b>Make the training folder</b>, or give one that you have and press <b>Check</b>.");
        return way("Press <b>Check</b> to see what is in the folder.");
    }

    function lacksImages() {
        if (tab.running()) return "";
        if (!tab.typed("dataset")) return way("Choose images on the page <b>Images</b> first.", go("images", "Go to Images"));
        if (!tab.part("check_answer").querySelector(".lt-problem")) return "";
        return way("These images can't be trained as they are.", go("images", "See why"));
    }

    function lacksResult() {
        if (tab.hasResult()) return "";
        if (tab.running() && !tab.onErrand()) {
            return way(`The result of <b>${tab.escaped(tab.status.name)}</b> will be here.`, go("train", "See how it goes"));
        }
        return way("No result yet: train a LoRA on the page <b>Train</b> first.", go("train", "Go to Train"));
    }

    /** Heads, and what is missing. */
    tab.showPages = function () {
        dressHeads();
        tab.put("next_images", nextHtml());
        tab.put("lacks_train", lacksImages());
        tab.put("lacks_result", lacksResult());
        tab.toggle("enqueue", tab.canQueue());
        tab.askRuns();
    };
})(window.loraTrainer = window.loraTrainer || {});
