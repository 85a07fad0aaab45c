// The caption editor: every image with its text, changes of many at once, and the way back. Images come in portions, when
// they are scrolled to.

(function (tab) {
    "use strict";

    const PORTION = 40; // cards that are added at once
    const PAUSE = 500; // ms without a key until the tokens are counted
    const MOST_TAGS = 60;
    const EDITS = {prefix: "Put before", append: "Put at the end", first: "Bring to the front", remove: "Remove this tag"};

    let of = ""; // the folder whose captions are shown
    let rows = []; // as the server gave them
    let tags = [];
    let undo = "";
    let rules = {}; // by kind of subject what belongs to it
    let chosen = ""; // the tag that is filtered by
    let shown = 0; // cards that are there
    let busy = false; // a change is under way: the next one is of what it leaves
    let recheck = 0;
    let near = null; // watches which pictures are near to what is seen

    const place = () => tab.part("captions").querySelector(".lt-captions");
    const limit = () => Number((tab.part("max_token_length_option") && tab.typed("max_token_length_option")) || 75) || 75;
    const filtered = () => (chosen ? rows.filter((row) => row.text.split(/[,\n]/).some((tag) => tag.trim().toLowerCase() === chosen)) : rows);
    const say = (text, wrong = false) => {
        const where = place().querySelector(".lt-said");
        where.textContent = text;
        where.classList.toggle("lt-problem", wrong);
    };

    /** The button that opens the editor, once a folder was found fit; nothing where there is none. */
    tab.showCaptions = function () {
        const answer = tab.part("check_answer");
        const ready = answer && answer.querySelector(".lt-check");
        if (!ready) {
            of = "";
            tab.put("captions", "");
        } else if (of !== tab.typed("dataset")) {
            of = "";
            tab.put("captions", `<div class="lt-panel" data-of="${tab.escaped(tab.typed("dataset"))}"><div class="lt-title"><h3>Captions</h3>
                <small>What is to stay changeable belongs into them; what isn't said becomes part of the trigger word.</small></div>
                <div class="lt-choices"><button type="button" class="lt-go" data-caption="open">Edit captions</button>
                <button type="button" class="lt-go" data-describe="open" aria-expanded="false">Have captions written</button></div>
                <div class="lt-describe"></div><div class="lt-captions"></div></div>`);
        }
    };

    /** The captions were changed by somebody else: read them anew, if they are shown. */
    tab.reloadCaptions = () => (of && place() ? open().catch((error) => say(error.message, true)) : null);

    async function open() {
        const folder = tab.typed("dataset");
        const found = await tab.ask(`/lora-trainer/captions?dataset=${encodeURIComponent(folder)}&limit=${limit()}`);
        of = folder;
        rows = found.rows;
        chosen = "";
        rules = found.rules;
        take(found);
        place().innerHTML = `<div class="lt-many"><label>Words <input type="text" name="lt_words"></label>
            <label>replaced by <input type="text" name="lt_instead"></label></div>
            <div class="lt-choices">${["replace", ...Object.keys(EDITS)].map((edit) =>
                `<button type="button" class="lt-go" data-caption="${edit}">${EDITS[edit] || "Replace"}</button>`).join(" ")}
            <button type="button" class="lt-go lt-undo" data-caption="undo"></button></div>
            <div class="lt-rule"></div><div class="lt-said" role="status"></div><div class="lt-tags"></div><div class="lt-shelf" tabindex="0" role="group" aria-label="Images and captions">
            <ul class="lt-cards"></ul><button type="button" class="lt-go lt-more" data-caption="more">Show more</button></div>`;
        const sight = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(), {root: place().querySelector(".lt-shelf"), rootMargin: "400px"});
        sight.observe(place().querySelector(".lt-more"));
        near = new IntersectionObserver((seen) => seen.forEach(load), {root: place().querySelector(".lt-shelf"), rootMargin: "400px"});
        draw();
    }

    /** A picture is asked for when it comes near, and given up when it is scrolled past before it came: else those that are
     *  looked at would wait for all those above them. */
    function load({target, isIntersecting}) {
        if (isIntersecting) target.src = tab.address(target.dataset.near);
        else if (!target.complete) target.removeAttribute("src");
    }

    const watch = () => place().querySelectorAll("img[data-near]:not([src])").forEach((image) => near.observe(image));

    function take(found) {
        tags = found.tags;
        undo = found.undo;
    }

    /** Everything but the row of inputs; the cards from the first. */
    function draw() {
        near.disconnect();
        drawTags();
        place().querySelector(".lt-cards").innerHTML = "";
        shown = 0;
        more();
    }

    /** What belongs to the subject, and the button that leaves it out. */
    function drawRule() {
        const kind = tab.typed("subject");
        const where = place().querySelector(".lt-rule");
        if (where.dataset.kind === kind) return;
        where.dataset.kind = kind;
        where.innerHTML = rules[kind] ? `<p>${tab.escaped(rules[kind])}</p><div class="lt-choices"><button type="button"
            class="lt-go" data-caption="leave_out">Leave out what belongs to the ${tab.escaped(kind)}</button></div>` : "";
    }

    function drawTags() {
        drawRule();
        const button = place().querySelector(".lt-undo");
        button.textContent = undo ? `Undo: ${undo}` : "Undo";
        button.disabled = busy || !undo;
        const focused = document.activeElement && document.activeElement.dataset.tag;
        const chip = ([tag, number]) => `<button type="button" class="lt-tag" data-caption="tag" data-tag="${tab.escaped(tag)}"
            aria-pressed="${tag === chosen}">${tab.escaped(tag)} <small>${number}</small></button>`;
        const rest = tags.length - MOST_TAGS;
        place().querySelector(".lt-tags").innerHTML = `<p>${chosen ? `${filtered().length} of ${rows.length} captions have “${tab.escaped(chosen)}”;
            changes are made in these.` : `Changes are made in all ${rows.length} captions; press a tag to make them only where it is.`}</p>
            ${tags.slice(0, MOST_TAGS).map(chip).join(" ")}${rest > 0 ? ` <small>and ${rest} more</small>` : ""}`;
        if (focused) [...place().querySelectorAll(".lt-tag")].find((one) => one.dataset.tag === focused)?.focus();
    }

    function more() {
        const all = filtered();
        const cards = all.slice(shown, shown + PORTION).map(cardHtml).join("");
        place().querySelector(".lt-cards").insertAdjacentHTML("beforeend", cards);
        watch();
        shown = Math.min(shown + PORTION, all.length);
        place().querySelector(".lt-more").classList.toggle("lt-hidden", shown >= all.length);
    }

    function cardHtml(row) {
        const url = `/lora-trainer/thumbnail?dataset=${encodeURIComponent(of)}&id=${encodeURIComponent(row.id)}&v=${row.version || 0}`;
        const name = tab.escaped(row.id);
        return `<li class="lt-card" data-id="${name}"><button type="button" class="lt-picture" data-image="${name}" data-of="${tab.escaped(of)}"
            title="As training sees it" aria-label="${name}, as training sees it"><img data-near="${tab.escaped(url)}" alt="" width="96" height="96"></button>
            <div><label><span>${name}</span><textarea rows="2" placeholder="${tab.escaped(row.instead)}">${tab.escaped(row.text)}</textarea></label>
            <small class="lt-count">${countHtml(row)}</small></div></li>`;
    }

    const countHtml = (row) => `${row.tokens} of ${limit()} tokens` +
        (row.cut ? `; <span class="lt-cut">not seen: ${tab.escaped(row.cut)}</span>` : "");

    /** An image was cropped: it looks otherwise, and may have another name. */
    tab.refreshCard = function (before, id) {
        const row = rows.find((one) => one.id === before);
        const card = [...tab.part("captions").querySelectorAll(".lt-card")].find((one) => one.dataset.id === before);
        if (!row || !card) return;
        Object.assign(row, {id, version: (row.version || 0) + 1});
        card.outerHTML = cardHtml(row);
        watch();
    };

    /** What the server says changed is what is shown. */
    function update(found) {
        take(found);
        const byId = new Map(found.changed.map((row) => [row.id, row]));
        rows = rows.map((row) => byId.get(row.id) || row);
        for (const card of place().querySelectorAll(".lt-card")) {
            const row = byId.get(card.dataset.id);
            if (!row) continue;
            card.querySelector("textarea").value = row.text;
            card.querySelector(".lt-count").innerHTML = countHtml(row);
        }
        if (chosen && !filtered().length) {
            chosen = "";
            draw();
        } else drawTags();
        clearTimeout(recheck);
        recheck = setTimeout(() => tab.part("check").click(), 1500);
    }

    const post = (values) => tab.ask("/lora-trainer/captions", "POST", {dataset: of, limit: limit(), ...values});

    /** One change at a time: buttons wait for the one before. */
    function work(on) {
        busy = on;
        const buttons = tab.part("captions").querySelectorAll(".lt-choices button"); // none if another folder was chosen
        for (const button of buttons) button.disabled = on || (button.classList.contains("lt-undo") && !undo);
    }

    async function change(edit) {
        say("A moment …"); // thousands of captions take seconds
        const [words, instead] = ["words", "instead"].map((name) => place().querySelector(`[name=lt_${name}]`).value);
        const ids = chosen ? filtered().map((row) => row.id) : null;
        const values = edit === "leave_out" ? {words: tab.typed("subject"), ids} : {words, instead, ids};
        const found = await post(edit === "undo" ? {action: edit} : {action: edit, ...values});
        update(found);
        const number = found.changed.length;
        say(`${number} ${number === 1 ? "caption" : "captions"} changed.`);
    }

    async function save(card) {
        const row = rows.find((one) => one.id === card.dataset.id);
        const text = card.querySelector("textarea").value;
        if (!row || text === row.text) return;
        const found = await post({action: "set", id: row.id, text, before: row.text});
        update(found);
        say("Saved.");
    }

    /** A button of the editor. */
    tab.caption = async function (button) {
        const what = button.dataset.caption;
        try {
            if (what === "open") await open();
            else if (what === "more") more();
            else if (what === "tag") {
                chosen = chosen === button.dataset.tag ? "" : button.dataset.tag;
                draw();
                place().querySelector(".lt-tag[aria-pressed=true]")?.focus();
            } else if (!busy) {
                work(true);
                await change(what).finally(() => work(false));
                button.focus();
            }
        } catch (error) {
            if (place().querySelector(".lt-said")) say(error.message, true);
            else place().innerHTML = tab.problem(error.message);
        }
    };

    let timer = 0;

    document.addEventListener("input", (event) => {
        const card = event.target.closest && event.target.closest("#lora_trainer_captions .lt-card");
        if (!card) return;
        clearTimeout(timer);
        timer = setTimeout(async () => {
            const found = await post({action: "count", text: event.target.value}).catch(() => null);
            if (found) card.querySelector(".lt-count").innerHTML = countHtml(found);
        }, PAUSE);
    });
    document.addEventListener("change", (event) => {
        const card = event.target.closest && event.target.closest("#lora_trainer_captions .lt-card");
        if (card) save(card).catch((error) => say(error.message, true));
    });
})(window.loraTrainer = window.loraTrainer || {});
