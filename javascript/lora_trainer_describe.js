// Captions that a captioner writes: which one, what becomes of captions that are there, progress and stop.

(function (tab) {
    "use strict";

    let offered = null; // captioners and rules, as the server gave them

    const place = () => tab.part("captions") && tab.part("captions").querySelector(".lt-describe");
    const input = (name) => place().querySelector(`[name=lt_${name}]`);
    const chosen = () => offered.captioners.find((one) => one.name === input("captioner").value);
    const errand = tab.errand({
        state: "captioning", place, go: "[data-describe=write]", stop: "[data-describe=stop]",
        then: () => "They can be taken back under “Edit captions”.",
        ended: () => {
            tab.reloadCaptions();
            tab.part("check").click();
        },
    });

    async function open(button) {
        const folded = Boolean(place().firstChild);
        button.setAttribute("aria-expanded", String(!folded));
        place().innerHTML = "";
        if (folded) return;
        offered = await tab.ask("/lora-trainer/captioners");
        const options = offered.captioners.map((one) => `<option value="${one.name}">${tab.escaped(one.label)}${one.own ? " of the WebUI" : ""}</option>`);
        place().innerHTML = `<div class="lt-many"><label>Captioner <select name="lt_captioner">${options.join("")}</select></label>
            <label>Captions that are there <select name="lt_existing"><option value="skip">stay as they are</option>
            <option value="append">are added to</option><option value="replace">are replaced</option></select></label></div>
            <p class="lt-about"></p>
            <div class="lt-many lt-model"><label>Folder with its model <input type="text" name="lt_model"></label></div>
            <div class="lt-many lt-tagging"><label>Least probability of a tag <input type="text" inputmode="decimal" name="lt_threshold"></label>
            <label>Tags to leave out <input type="text" name="lt_deny" placeholder="blurry, watermark"></label></div>
            <label class="lt-tick"><input type="checkbox" name="lt_belongs" checked> <span></span></label><p class="lt-rule"></p>
            <div class="lt-choices"><button type="button" class="lt-go" data-describe="write">Write captions</button>
            <button type="button" class="lt-go lt-hidden" data-describe="stop">Stop</button></div>
            <div class="lt-answer" role="status"></div>`;
        place().addEventListener("change", dress);
        dress();
        input("captioner").focus();
    }

    /** What goes with the captioner and the kind of subject that are chosen. */
    function dress() {
        const one = chosen();
        const files = one.files.map((names) => names.join(" or ")).join(", ");
        const folder = one.own ? "Leave the folder empty for the WebUI's own." : `It needs a folder with ${files}: that of ${one.source} from huggingface.co, for example. Nothing is downloaded.`;
        place().querySelector(".lt-about").textContent = [`It writes ${one.gives}.`, one.problem, one.folder ? folder : ""].join(" ").trim();
        place().querySelector(".lt-model").classList.toggle("lt-hidden", !one.folder);
        place().querySelector(".lt-tagging").classList.toggle("lt-hidden", one.gives !== "tags");
        input("threshold").placeholder = String(one.threshold);
        const kind = tab.typed("subject");
        const rule = offered.rules[kind];
        place().querySelector(".lt-tick").classList.toggle("lt-hidden", !rule);
        place().querySelector(".lt-tick span").textContent = `Leave out what belongs to the ${kind}`;
        place().querySelector(".lt-rule").textContent = rule || "The trigger word comes first in each caption.";
    }

    async function write(overwrite) {
        const kind = tab.typed("subject");
        const belongs = offered.rules[kind] && input("belongs").checked;
        const values = {
            dataset: tab.typed("dataset"), captioner: input("captioner").value, model: input("model").value,
            existing: input("existing").value, threshold: input("threshold").value.replace(",", "."),
            deny: input("deny").value, subject: belongs ? kind : "", overwrite,
        };
        await errand.begin("/lora-trainer/caption", values);
    }

    function asks(error) {
        const overwrite = (error.choices || []).includes("overwrite");
        errand.say(overwrite ? `<div class="lt-note lt-warn lt-question"><span>${tab.escaped(error.message)}</span><span class="lt-choices">
            <button type="button" class="lt-go" data-describe="overwrite">Replace them, too</button>
            <button type="button" class="lt-go" data-describe="keep">Keep them</button></span></div>` : tab.problem(error.message));
        if (overwrite) place().querySelector("[data-describe=keep]").focus();
    }

    /** A button of this part. */
    tab.describe = async function (button) {
        const what = button.dataset.describe;
        button.disabled = true;
        try {
            if (what === "open") await open(button);
            else if (what === "stop") await tab.ask("/lora-trainer/stop", "POST", {});
            else if (what === "keep") errand.say("");
            else await write(what === "overwrite");
        } catch (error) {
            if (place().querySelector(".lt-answer")) asks(error);
            else place().innerHTML = tab.problem(error.message);
        } finally {
            button.disabled = false;
        }
    };

    /** How it stands; at its end the captions are read anew. */
    tab.showDescribing = function () {
        if (!place() || !place().querySelector(".lt-answer") || !tab.status) return;
        if (input("captioner").dataset.kind !== tab.typed("subject")) {
            input("captioner").dataset.kind = tab.typed("subject");
            dress();
        }
        errand.show();
    };
})(window.loraTrainer = window.loraTrainer || {});
