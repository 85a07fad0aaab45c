// Pictures: small ones that open large, and "Send to txt2img".

(function (tab) {
    "use strict";

    /** One picture that opens large; what it is about goes with it as data. */
    tab.picture = function (url, title, about = {}) {
        const data = tab.escaped(JSON.stringify({url, title, ...about}));
        return `<button type="button" class="lt-picture" data-about="${data}" title="${tab.escaped(title)}">
            <img src="${tab.escaped(tab.address(url))}" alt="${tab.escaped(title)}" loading="lazy"></button>`;
    };

    tab.sendButton = function (infotext, prompt) {
        const label = tab.facts().webui === "1" ? "Send to txt2img" : "Copy prompt";
        return `<button type="button" class="lt-send" data-infotext="${tab.escaped(infotext)}" data-prompt="${tab.escaped(prompt)}">${label}</button>`;
    };

    tab.openLarge = function (about) {
        tab.closeLarge();
        const box = document.createElement("div");
        box.id = "lora_trainer_large";
        const text = about.infotext ? `<pre>${tab.escaped(about.infotext)}</pre>${tab.sendButton(about.infotext, about.prompt)}` : "";
        box.innerHTML = `<figure><img src="${tab.escaped(tab.address(about.url))}" alt="${tab.escaped(about.title)}">
            <figcaption><b>${tab.escaped(about.title)}</b>${text}</figcaption></figure>
            <button type="button" class="lt-close" aria-label="Close">×</button>`;
        tab.part("form").closest("#lora_trainer").appendChild(box);
        box.querySelector(".lt-close").focus();
    };

    tab.closeLarge = function () {
        const box = tab.part("large");
        if (box) box.remove();
        return Boolean(box);
    };

    tab.send = async function (button) {
        if (tab.facts().webui === "1") {
            tab.closeLarge();
            const area = tab.part("infotext").querySelector("textarea, input");
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
