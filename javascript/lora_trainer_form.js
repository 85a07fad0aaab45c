// What is typed: the server hears of it when the typing pauses, panel by panel; and what the server answers late never
// overwrites what was typed meanwhile.

(function (tab) {
    "use strict";

    const PAUSE = 900; // ms without a change until the server hears of it
    const PATIENCE = 60000; // ms that the form waits for an answer that fills it
    const FIELDS = "input, textarea, select, button";

    const changed = new Set(); // panels
    let timer = 0;
    let fills = 0; // answers that are awaited
    let restored = false;
    let telling = Promise.resolve();

    tab.filling = () => fills > 0;

    const newest = (name) => (tab.part(name).querySelector("[data-answer]") || {dataset: {answer: ""}}).dataset.answer;

    /** Take no input until the server's answer has filled the form, so that it can't overwrite what is typed meanwhile. */
    tab.awaitFill = function (scopes) {
        const before = newest("answered");
        const end = Date.now() + PATIENCE;
        const focused = document.activeElement;
        const shut = scopes.flatMap((scope) => [...scope.querySelectorAll(FIELDS)]).filter((field) => !field.disabled);
        shut.forEach((field) => (field.disabled = true));
        scopes.forEach((scope) => scope.setAttribute("aria-busy", "true"));
        fills += 1;
        return new Promise((done) => {
            const waiting = setInterval(() => {
                if (newest("answered") === before && Date.now() < end) return;
                clearInterval(waiting);
                fills -= 1;
                shut.forEach((field) => (field.disabled = false));
                scopes.forEach((scope) => scope.removeAttribute("aria-busy"));
                if (shut.includes(focused) && document.activeElement === document.body) focused.focus();
                tab.show(null);
                done();
            }, 50);
        });
    };

    /** A value that was changed: the server hears of its panel when the typing pauses. */
    tab.noteChange = function (event) {
        const pages = tab.part("pages");
        if (!pages || !pages.contains(event.target) || !restored) return;
        if (event.target.closest("input[type=file]")) return;
        if (event.target.closest("#lora_trainer_preset")) {
            if (event.type === "change") setTimeout(() => tab.part("chosen").click(), 60);
            return;
        }
        if (event.target.closest("#lora_trainer_dataset")) {
            if (event.type === "change") tab.part("check").click();
            return;
        }
        const panel = event.target.closest("[id^=lora_trainer_panel_], [id^=lora_trainer_group_]");
        if (!panel) return;
        changed.add(panel.id.replace(/^lora_trainer_(panel|group)_/, ""));
        clearTimeout(timer);
        timer = setTimeout(tellChanges, PAUSE);
    };

    /** One panel after the other: the last answer has to be the one that knows of all changes. */
    function tellChanges() {
        for (const name of changed) telling = telling.then(() => tell(name));
        changed.clear();
    }

    function tell(name) {
        const button = tab.part("changed_" + name);
        if (!button) return null;
        const before = newest("heard");
        const end = Date.now() + PATIENCE;
        button.click();
        return new Promise((done) => {
            const waiting = setInterval(() => {
                if (newest("heard") === before && Date.now() < end) return;
                clearInterval(waiting);
                done();
            }, 50);
        });
    }

    /** The check suggests trigger and name: each is taken where nothing was typed, now that the suggestion is here. Where
     *  the cursor is, somebody is about to type: that one waits until it has left. */
    tab.takeSuggestions = function () {
        const answer = tab.part("check_answer").querySelector("[data-suggested]");
        if (!answer) return;
        const waiting = Object.entries(JSON.parse(answer.dataset.suggested)).filter(([name, text]) => {
            const field = tab.field(name);
            if (field.value.trim()) return false;
            if (field === document.activeElement) return true;
            field.value = text;
            field.dispatchEvent(new Event("input", {bubbles: true}));
            return false;
        });
        if (waiting.length) answer.dataset.suggested = JSON.stringify(Object.fromEntries(waiting));
        else delete answer.dataset.suggested;
    };

    /** The answer to a question of the server's. Another name, or leaving things as they are, is for the page alone. */
    tab.choose = function (button) {
        const choice = button.dataset.choice;
        button.closest(".lt-question").classList.add("lt-hidden");
        if (choice === "name") tab.field("name").select();
        else if (choice !== "keep") tab.part("choice_" + choice.replaceAll("+", "_")).click();
    };

    /** The first look at the tab: the last settings come back, and a folder that was given is checked again. */
    async function restore() {
        tab.part("restore").click(); // which awaits the answer
        await tab.filled;
        restored = true;
        if (tab.typed("dataset")) tab.part("check").click();
    }

    let asked = false;

    /** Somebody looks at the tab, for the first time or again: the checkpoint may be another one by now. */
    tab.comeBack = function () {
        if (asked) {
            tab.part("look").click();
            return;
        }
        asked = true;
        restore();
    };
})(window.loraTrainer = window.loraTrainer || {});
