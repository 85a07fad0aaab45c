// Pictures: small ones that open large in a dialog, and "Send to txt2img".

(function (tab) {
    "use strict";

    let opener = null; // what had the focus when the dialog was opened

    /** One picture that opens large; what it is about goes with it as data. */
    tab.picture = function (url, title) {
        const about = tab.escaped(JSON.stringify({title}));
        return `<button type="button" class="lt-picture" data-about="${about}">
            <img data-src="${tab.escaped(url)}" alt="${tab.escaped(title)}" loading="lazy"></button>`;
    };

    tab.openLarge = function (button) {
        const about = JSON.parse(button.dataset.about);
        const box = document.createElement("dialog"); // the browser keeps the focus inside, and gives it back
        const prompt = about.prompt || "";
        const send = `<button type="button" class="lt-send" data-infotext="${tab.escaped(about.infotext)}"
            data-prompt="${tab.escaped(prompt)}"></button>`;
        box.id = "lora_trainer_large";
        box.setAttribute("aria-label", about.title);
        box.innerHTML = `<figure><img data-src="${tab.escaped(button.querySelector("img").dataset.src)}" alt="${tab.escaped(about.title)}">
            <figcaption><b>${tab.escaped(about.title)}</b>
            ${about.infotext ? `<pre tabindex="0">${tab.escaped(about.infotext)}</pre>${send}` : ""}</figcaption></figure>
            <button type="button" class="lt-close" aria-label="Close">×</button>`;
        tab.closeLarge();
        opener = button;
        button.closest("#lora_trainer").appendChild(box);
        tab.dress(box);
        box.addEventListener("cancel", (event) => {
            event.preventDefault();
            tab.closeLarge();
        });
        box.showModal();
        box.querySelector(".lt-close").focus();
    };

    /** Close the dialog; the focus goes back to the picture, which may have been drawn anew meanwhile. */
    tab.closeLarge = function () {
        const box = tab.part("large");
        if (!box) return;
        box.close();
        box.remove();
        const source = opener.querySelector("img").dataset.src;
        const again = [...tab.part("pages").querySelectorAll(".lt-picture img")].find((image) => image.dataset.src === source);
        (opener.isConnected || !again ? opener : again.parentElement).focus();
    };

    tab.send = async function (button) {
        if (tab.facts().webui === "1") {
            tab.closeLarge();
            const area = tab.field("infotext");
            area.value = button.dataset.infotext;
            area.dispatchEvent(new Event("input", {bubbles: true}));
            setTimeout(() => tab.part("send").click(), 100);
            return;
        }
        const label = button.textContent;
        try {
            await navigator.clipboard.writeText(button.dataset.prompt);
            button.textContent = "Copied";
        } catch (error) {
            window.prompt("Copy this prompt:", button.dataset.prompt);
        }
        setTimeout(() => (button.textContent = label), 1500);
    };
})(window.loraTrainer = window.loraTrainer || {});
