// The remedies of what the check found: a click applies one, another takes it back.

(function (tab) {
    "use strict";

    /** A button of a finding, or "Undo". The check then says how things stand. */
    tab.remedy = async function (button) {
        const what = button.dataset.fix;
        button.disabled = true;
        const about = {dataset: tab.typed("dataset"), trigger: tab.typed("trigger"), config: tab.imageOptions()};
        try {
            await tab.ask("/lora-trainer/remedies", "POST", what === "undo" ? {dataset: about.dataset, action: "undo"} : {...about, action: "apply", kinds: [what]});
            tab.reloadCaptions();
            tab.part("check").click();
        } catch (error) {
            button.disabled = false;
            button.insertAdjacentHTML("afterend", tab.problem(error.message));
        }
    };
})(window.loraTrainer = window.loraTrainer || {});
