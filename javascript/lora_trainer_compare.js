// Two tested LoRAs side by side: the same prompt, the same seed; blind if wanted, and the votes are kept.

(function (tab) {
    "use strict";

    let choices = []; // what a test has pictures of
    let found = null; // the pairs of two of them
    let at = 0; // the pair that is shown
    let swapped = false; // which of the two stands at the left
    let voted = false;
    let problem = "";

    const picked = (name) => (tab.part("compare").querySelector(`[name=lt_${name}]`) || {value: ""}).value;
    const isBlind = () => Boolean(tab.part("compare").querySelector("[name=lt_blind]:checked"));

    tab.askChoices = async function () {
        choices = (await tab.ask("/lora-trainer/compare")).choices;
        showCompare();
    };

    function showCompare() {
        if (choices.length < 2) return tab.put("compare", "");
        const chosen = {one: picked("one") || choices[0].side, two: picked("two") || choices[1].side, blind: isBlind()};
        const list = (name, label) => `<label>${label} <select name="lt_${name}">${choices.map((one) =>
            `<option value="${tab.escaped(one.side)}"${one.side === chosen[name] ? " selected" : ""}>${tab.escaped(one.label)}</option>`)
            .join("")}</select></label>`;
        tab.put("compare", `<div class="lt-panel"><div class="lt-title"><h3>Compare two</h3>
            <small>The same prompts and seeds, each at its best strength.</small></div>
            <div class="lt-choices">${list("one", "This")} ${list("two", "with")}
            <label><input type="checkbox" name="lt_blind"${chosen.blind ? " checked" : ""}> blind: hide which is which until the vote</label>
            <button type="button" class="lt-go" data-compare="begin">Compare</button></div>
            ${problem ? tab.problem(problem) : ""}${found ? pairHtml(chosen.blind) : ""}</div>`);
    }

    function pairHtml(blind) {
        const pair = found.pairs[at];
        const order = swapped ? ["two", "one"] : ["one", "two"];
        const hidden = blind && !voted;
        const sides = order.map((which, n) => {
            const name = hidden ? `Image ${"AB"[n]}` : `${found[which]} at ${pair.strengths[which === "one" ? 0 : 1]}`;
            const vote = voted ? "" : `<button type="button" class="lt-go" data-compare="${which}">This one is better</button>`;
            return `<figure>${tab.picture(pair[which], name)}<figcaption>${tab.escaped(name)}</figcaption>${vote}</figure>`;
        });
        const v = found.votes;
        const standing = hidden ? "" : `<p>Votes: ${v.one} for ${tab.escaped(found.one)}, ${v.two} for ${tab.escaped(found.two)}, ${v.neither} for neither.</p>`;
        const last = at + 1 >= found.pairs.length;
        const buttons = voted ? (last ? "<span>That was the last pair.</span>" : `<button type="button" class="lt-go" data-compare="next">Next pair</button>`)
            : `<button type="button" class="lt-go" data-compare="neither">Neither</button>`;
        return `<p>Pair ${at + 1} of ${found.pairs.length}: <code>${tab.escaped(pair.prompt)}</code>, seed ${pair.seed}</p>
            <div class="lt-pair">${sides.join("")}</div><div class="lt-choices">${buttons}</div><div role="status">${standing}</div>`;
    }

    function turn(to) {
        at = to;
        voted = false;
        swapped = isBlind() && Math.random() < 0.5;
    }

    /** A button of the comparison. */
    tab.compare = async function (button) {
        const what = button.dataset.compare;
        const [one, two, blind] = [picked("one"), picked("two"), isBlind()];
        problem = "";
        try {
            if (what === "begin") {
                found = null;
                found = await tab.ask(`/lora-trainer/compare?one=${encodeURIComponent(one)}&two=${encodeURIComponent(two)}`);
                found.sides = {one, two};
                turn(0);
            } else if (what === "next") {
                turn(at + 1);
            } else {
                const about = {...found.sides, winner: what, blind, prompt: found.pairs[at].prompt};
                found.votes = (await tab.ask("/lora-trainer/compare", "POST", about)).votes;
                voted = true;
            }
        } catch (error) {
            problem = error.message;
        }
        showCompare();
    };
})(window.loraTrainer = window.loraTrainer || {});
