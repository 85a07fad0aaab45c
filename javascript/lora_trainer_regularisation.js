// Regularisation images that the loaded checkpoint makes: class word, number, progress, stop, and the option that uses them.

(function (tab) {
    "use strict";

    let folder = ""; // that is being filled
    let job = null; // by which; the status may still be that of the one before
    let drawn = "";

    const place = () => tab.part("regularisation");
    const input = (name) => place().querySelector(`[name=lt_${name}]`);
    const say = (html) => (place().querySelector(".lt-answer").innerHTML = html);

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
        say((drawn = ""));
        try {
            const kind = tab.typed("subject");
            const found = await tab.ask("/lora-trainer/regularise", "POST", {
                dataset: tab.typed("dataset"), class: input("class").value, images: input("images").value,
                subject: kind === "anything" ? "" : kind,
            });
            [folder, job] = [found.folder, found.job];
            await tab.refresh();
            tab.refresh();
        } catch (error) {
            say(tab.problem(error.message));
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
        const running = tab.status.state === "generating";
        for (const [what, visible] of [["make", !running], ["stop", running]]) {
            place().querySelector(`[data-regularise=${what}]`).classList.toggle("lt-hidden", !visible);
        }
        if (!running && (!folder || tab.status.job !== job)) return;
        const html = tab.errandHtml("The next training uses them (Advanced → reg_data_dir).");
        if (html !== drawn) say((drawn = html));
        if (running || tab.running()) return;
        if (folder && tab.status.progress.done) use(folder);
        folder = "";
    };
})(window.loraTrainer = window.loraTrainer || {});
