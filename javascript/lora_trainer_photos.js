// Loose photos: the fold that makes a training folder of them is open until there is one, and keys reach what photos
// are dropped on.

(function (tab) {
    "use strict";

    let settled = ""; // the training folder that the fold was closed for

    const fold = () => tab.part("photos");
    const head = () => fold().querySelector(".label-wrap");
    const isOpen = () => head().classList.contains("open");

    /** Gradio 3 makes what photos are dropped on of what no key reaches; and no gradio spares the keys a stop at each of a
     *  hundred photos, whose names are links. */
    function dressDrop() {
        const drop = tab.part("files_in").querySelector("div.center:not([role]):has(> input[type=file])");
        if (drop) {
            drop.setAttribute("role", "button");
            drop.setAttribute("tabindex", "0");
        }
        const list = tab.part("files_in").querySelector(".file-preview-holder");
        if (!list) return;
        list.setAttribute("tabindex", "0");
        list.querySelectorAll("a:not([tabindex])").forEach((link) => link.setAttribute("tabindex", "-1"));
    }

    /** Once a training folder was found fit, the photos have done their part; who opens the fold again keeps it open. */
    function close() {
        const folder = tab.typed("dataset");
        const answer = tab.part("check_answer");
        if (tab.filling() || !folder || folder === settled || !answer.querySelector(".lt-check")) return;
        settled = folder;
        if (!isOpen()) return;
        const focused = fold().contains(document.activeElement);
        head().click();
        if (!focused) return;
        const told = answer.querySelector(".lt-note"); // what had the focus is hidden now
        told.setAttribute("tabindex", "-1");
        told.focus();
    }

    tab.showPhotos = function () {
        if (!fold()) return;
        dressDrop();
        close();
    };

    /** The check found loose photos: here is the way to copies of them. */
    tab.openPhotos = function (button) {
        if (!isOpen()) head().click();
        const field = tab.field("photos_folder");
        field.value = button.dataset.photos;
        field.dispatchEvent(new Event("input", {bubbles: true}));
        field.dispatchEvent(new Event("change", {bubbles: true}));
        setTimeout(() => tab.field("photos_word").focus(), 50); // when the fold is open
    };

    document.addEventListener("keydown", (event) => {
        const drop = event.target.closest && event.target.closest("#lora_trainer_files_in div[role=button]");
        if (!drop || (event.key !== "Enter" && event.key !== " ")) return;
        event.preventDefault();
        drop.querySelector("input").click(); // a click on the area itself opens nothing if a script makes it
    });
})(window.loraTrainer = window.loraTrainer || {});
