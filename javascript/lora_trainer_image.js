// One image of the dataset in a dialog: as training sees it, and its crop.

(function (tab) {
    "use strict";

    const OPTIONS = ["train_batch_size", "max_train_epochs", "max_train_steps", "gradient_accumulation_steps", "seed"];

    let opener = null; // what had the focus when the dialog was opened
    let changed = false; // whether the check has something new to look at

    /** The options under Advanced that decide how an image is used; an empty field asks for nothing special. */
    function options() {
        const fields = [...tab.part("group_dataset").querySelectorAll("[id$=_option]"),
            ...tab.part("group_caption").querySelectorAll("[id$=_option]"), ...OPTIONS.map((name) => tab.part(name + "_option"))];
        const found = {};
        for (const field of fields) {
            const input = field.querySelector("input, textarea");
            const value = input.type === "checkbox" ? input.checked : input.value;
            if (value !== "") found[field.id.replace(/^lora_trainer_(.*)_option$/, "$1")] = value;
        }
        return found;
    }
    tab.imageOptions = options;

    function useHtml(use) {
        const words = use.caption
            ? `“${tab.escaped(use.cut ? use.caption.slice(0, -use.cut.length) : use.caption)}${use.cut ? `<span class="lt-cut">${tab.escaped(use.cut)}</span>` : ""}”`
            : "no caption";
        const mask = use.mask ? `<img src="${use.mask}" alt="Mask: what is black doesn't count">` : "";
        return `<li><img src="${use.picture}" alt="">${mask}<small>Epoch ${use.epoch}, step ${use.step + 1}${use.flip ? ", mirrored" : ""}</small>
            <div>${words}</div>${use.cut ? "<small>What is red isn’t seen.</small>" : ""}</li>`;
    }

    const seenHtml = (seen) => `<p>${seen.lines.map(tab.escaped).join(" ")}</p><ul class="lt-uses">${seen.uses.map(useHtml).join("")}</ul>`;

    /** Ask how the image is trained, and show it. */
    async function show(box) {
        const where = box.querySelector(".lt-seen");
        try {
            const seen = await tab.ask("/lora-trainer/preview", "POST", {dataset: box.dataset.of, id: box.dataset.image, config: options()});
            where.innerHTML = seenHtml(seen);
        } catch (error) {
            where.innerHTML = tab.problem(error.message);
        }
    }

    tab.openImage = function (button) {
        const box = document.createElement("dialog"); // the browser keeps the focus inside, and gives it back
        box.id = "lora_trainer_image";
        Object.assign(box.dataset, {of: button.dataset.of, image: button.dataset.image});
        box.setAttribute("aria-label", button.dataset.image);
        box.innerHTML = `<div class="lt-title"><h3>${tab.escaped(button.dataset.image)}</h3><small>as training sees it</small></div>
            <div class="lt-seen" role="status">A moment …</div><div class="lt-cropping"></div><button type="button" class="lt-close" aria-label="Close">×</button>`;
        tab.closeImage();
        opener = button;
        button.closest("#lora_trainer").appendChild(box);
        box.addEventListener("cancel", (event) => {
            event.preventDefault();
            tab.closeImage();
        });
        box.addEventListener("click", (event) => {
            if (event.target === box || event.target.closest(".lt-close")) tab.closeImage();
        });
        box.showModal();
        box.querySelector(".lt-close").focus();
        show(box);
        tab.showCrop(box);
    };

    /** Its crop is another one now, and perhaps its name. */
    tab.imageChanged = function (box, before) {
        changed = true;
        tab.refreshCard(before, box.dataset.image);
        show(box);
    };

    /** Close the dialog; the focus goes back to where it was. */
    tab.closeImage = function () {
        const box = tab.part("image");
        if (!box) return;
        box.close();
        box.remove();
        const same = [...tab.part("pages").querySelectorAll("[data-image]")].filter((one) => one.dataset.image === box.dataset.image);
        const again = same.find((one) => one.className === opener.className); // drawn anew: the image got another name
        (opener.isConnected || !again ? opener : again).focus();
        if (changed) tab.part("check").click();
        changed = false;
    };
})(window.loraTrainer = window.loraTrainer || {});
