// Regularisation images that the loaded checkpoint makes: class word, number, progress, stop, and the option that uses them.

(function (tab) {
    "use strict";

    const place = () => tab.part("regularisation");
    const input = (name) => place().querySelector(`[name=lt_${name}]`);
    const errand = tab.errand({
        state: "generating", place, go: "[data-regularise=make]", stop: "[data-regularise=stop]",
        then: (own) => own ? "The next training uses them (Advanced → reg_data_dir)." : "To train with them, give their folder as reg_data_dir (Advanced).",
        ended: (own) => own && tab.status.progress.done && use(own.folder),
    });

    const FORM = `<div class="lt-describe"><p>Images of the same class, made by the loaded checkpoint, are trained beside yours: they keep
        it from taking every woman, dog or car for your subject. Each epoch takes twice as long. Most first LoRAs do without.</p>
        <div class="lt-many"><label>Class word <input type="text" name="lt_class" placeholder="woman"></label>
        <label>Number of images <input type="text" inputmode="numeric" name="lt_images" placeholder="as many as an epoch uses"></label></div>
        <div class="lt-choices"><button type="button" class="lt-go" data-regularise="make">Make them and train with them</button>
        <button type="button" class="lt-go lt-hidden" data-regularise="stop">Stop</button></div>
        <div class="lt-answer" role="status"></div></div>`;

    /** A button of this part. */
    tab.regularise = async function (button) {
        if (button.dataset.regularise === "stop") return void (await tab.ask("/lora-trainer/stop", "POST", {}));
        button.disabled = true;
        try {
            const kind = tab.typed("subject");
            await errand.begin("/lora-trainer/regularise", {
                dataset: tab.typed("dataset"), class: input("class").value, images: input("images").value,
                subject: kind === "anything" ? "" : kind,
            });
        } catch (error) {
            errand.say(tab.problem(error.message));
        } finally {
            button.disabled = false;
        }
    };

    /** The run uses the folder: its option is filled in, as if it were typed. */
    function use(path) {
        const field = tab.field("reg_data_dir_option");
        field.value = path;
        field.dispatchEvent(new Event("input", {bubbles: true}));
        field.dispatchEvent(new Event("change", {bubbles: true}));
    }

    tab.showRegularisation = function () {
        if (!place() || !tab.status) return;
        if (!place().querySelector(".lt-answer")) tab.put("regularisation", FORM);
        errand.show();
    };
})(window.loraTrainer = window.loraTrainer || {});
