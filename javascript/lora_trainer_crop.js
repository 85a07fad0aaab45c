// Crop and rotation of one image: a rectangle over the whole picture that always has the shape of a bucket. Pointer, touch and keys.

(function (tab) {
    "use strict";

    const STEP = 0.01; // of the picture, by an arrow key; with Shift FAR
    const FAR = 0.05;
    const SMALLEST = 0.05; // of a side
    const CORNERS = {nw: [0, 0], ne: [1, 0], sw: [0, 1], se: [1, 1]};

    let facts = null; // size of the whole picture, its shapes, crop and suggestion
    let at = null; // the rectangle: x, y, w, h as shares of the sides
    let dragged = null; // what the pointer holds

    const between = (low, value, high) => Math.max(low, Math.min(high, value));
    const sides = (box) => ({x: box[0], y: box[1], w: box[2] - box[0], h: box[3] - box[1]});

    /** The shape that a width and a height in shares come nearest to, or the one that was chosen. */
    function shapeOf(dialog, w, h) {
        const chosen = dialog.querySelector("[name=lt_shape]").value;
        if (chosen !== "") return facts.shapes[Number(chosen)];
        const off = (shape) => Math.abs(Math.log((w * facts.size[0] * shape[1]) / (h * facts.size[1] * shape[0])));
        return facts.shapes.reduce((best, shape) => (off(shape) < off(best) ? shape : best));
    }

    /** The rectangle with the shape of a bucket, no larger than asked for where there is no room.
     *  `fixed` is the corner that stays, as shares of the rectangle: [0.5, 0.5] is its middle. */
    function snap(dialog, x, y, w, h, fixed = [0.5, 0.5]) {
        const shape = shapeOf(dialog, w, h);
        const ratio = (shape[0] / shape[1]) * (facts.size[1] / facts.size[0]); // w / h in shares
        const keep = [x + fixed[0] * w, y + fixed[1] * h];
        let wide = Math.max(SMALLEST, Math.sqrt(w * h * ratio));
        const room = (place, share) => Math.min(share > 0 ? place / share : Infinity, share < 1 ? (1 - place) / (1 - share) : Infinity);
        wide = Math.min(wide, 1, ratio);
        if (fixed[0] !== 0.5) wide = Math.min(wide, room(keep[0], fixed[0]), room(keep[1], fixed[1]) * ratio);
        const high = wide / ratio;
        at = {x: between(0, keep[0] - fixed[0] * wide, 1 - wide), y: between(0, keep[1] - fixed[1] * high, 1 - high), w: wide, h: high};
        draw(dialog, shape);
    }

    function draw(dialog, shape) {
        const rectangle = dialog.querySelector(".lt-crop");
        Object.assign(rectangle.style, {left: at.x * 100 + "%", top: at.y * 100 + "%", width: at.w * 100 + "%", height: at.h * 100 + "%"});
        const pixels = [Math.round(at.w * facts.size[0]), Math.round(at.h * facts.size[1])];
        const small = pixels[0] * pixels[1] < 0.8 * shape[0] * shape[1];
        dialog.querySelector(".lt-size").textContent = `${pixels[0]} × ${pixels[1]} of ${facts.size[0]} × ${facts.size[1]} px` +
            (small ? `; that is smaller than the training resolution (${shape[0]} × ${shape[1]} px).` : `, for a bucket of the shape ${shape[0]} × ${shape[1]}.`);
    }

    function html() {
        const names = facts.shapes.map(([w, h], n) => `<option value="${n}">${w} × ${h}${w === h ? ", square" : ""}</option>`);
        const corners = Object.keys(CORNERS).map((name) => `<i data-corner="${name}"></i>`).join("");
        return `<div class="lt-title"><h3>Crop and rotate</h3><small>Drag the frame or its corners. Keys: arrows move it, + and − change its size.</small></div>
            <div class="lt-stage"><img alt="" data-src="" draggable="false"><div class="lt-crop" tabindex="0" role="group" aria-label="Frame of the crop: arrow keys move it, plus and minus change its size">${corners}</div></div>
            <p class="lt-size" role="status"></p>
            <div class="lt-choices"><label>Shape <select name="lt_shape"><option value="">the nearest one</option>${names.join("")}</select></label>
            ${facts.suggested ? `<button type="button" class="lt-go" data-crop="suggest">Suggest</button>` : ""}
            <button type="button" class="lt-go" data-crop="set">Crop</button>
            ${facts.crop ? `<button type="button" class="lt-go" data-crop="undo">Undo the crop</button>` : ""}
            <button type="button" class="lt-go" data-crop="left">↺ Rotate left</button>
            <button type="button" class="lt-go" data-crop="right">↻ Rotate right</button></div><div class="lt-said" role="status"></div>`;
    }

    const ask = (dialog, values, route = "crop") => tab.ask("/lora-trainer/" + route, "POST",
        {dataset: dialog.dataset.of, id: dialog.dataset.image, config: tab.imageOptions(), ...values});

    const DEGREES = {left: 270, right: 90}; // clockwise
    const SAID = {set: "Cropped. The photo itself stays as it is.", undo: "It is whole again.",
        left: "Rotated to the left.", right: "Rotated to the right."};
    const FOCUSED = {set: "undo", undo: "set", left: "left", right: "right"}; // afterwards

    /** Crop, undo that, or rotate. */
    function change(dialog, what) {
        if (DEGREES[what]) return ask(dialog, {degrees: DEGREES[what]}, "rotate");
        if (what === "undo") return ask(dialog, {action: what});
        return ask(dialog, {action: what, box: [at.x, at.y, Math.min(1, at.x + at.w), Math.min(1, at.y + at.h)]});
    }

    function show(dialog) {
        const where = dialog.querySelector(".lt-cropping");
        where.innerHTML = html();
        const url = `/lora-trainer/picture?dataset=${encodeURIComponent(dialog.dataset.of)}&id=${encodeURIComponent(dialog.dataset.image)}&rotation=${facts.rotation}`; // else the one before would be shown
        where.querySelector("img").dataset.src = url;
        tab.dress(where);
        const {x, y, w, h} = sides(facts.crop || [0.05, 0.05, 0.95, 0.95]);
        snap(dialog, x, y, w, h);
    }

    /** The part of the dialog that crops; a line where it is nobody's copy. */
    tab.showCrop = async function (dialog) {
        const where = dialog.querySelector(".lt-cropping");
        try {
            facts = await ask(dialog, {});
            if (dialog.isConnected) show(dialog);
        } catch (error) {
            where.innerHTML = `<div class="lt-note lt-quiet">${tab.escaped(error.message)}</div>`;
        }
    };

    async function press(dialog, button) {
        const what = button.dataset.crop;
        if (what === "suggest") {
            const {x, y, w, h} = sides(facts.suggested);
            snap(dialog, x, y, w, h);
            return;
        }
        const said = () => dialog.querySelector(".lt-cropping .lt-said");
        button.disabled = true;
        try {
            const before = dialog.dataset.image;
            facts = await change(dialog, what);
            dialog.dataset.image = facts.id;
            show(dialog);
            said().textContent = SAID[what];
            dialog.querySelector(`[data-crop=${FOCUSED[what]}]`).focus();
            tab.imageChanged(dialog, before);
        } catch (error) {
            button.disabled = false;
            said().textContent = error.message;
        }
    }

    function onKey(event) {
        const far = event.shiftKey ? FAR : STEP;
        const moves = {ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far]};
        const grow = {"+": 1 + FAR, "=": 1 + FAR, "-": 1 - FAR}[event.key];
        if (!moves[event.key] && !grow) return;
        event.preventDefault();
        const dialog = event.target.closest("dialog");
        const [x, y] = moves[event.key] || [0, 0];
        const by = grow || 1;
        snap(dialog, at.x + x - (at.w * (by - 1)) / 2, at.y + y - (at.h * (by - 1)) / 2, at.w * by, at.h * by);
    }

    function onDown(event) {
        const frame = event.target.closest && event.target.closest("#lora_trainer_image .lt-crop");
        if (!frame) return;
        event.preventDefault();
        frame.focus();
        frame.setPointerCapture(event.pointerId);
        dragged = {corner: event.target.dataset.corner, from: [event.clientX, event.clientY], was: at, stage: frame.parentElement};
    }

    function onMove(event) {
        if (!dragged) return;
        const {corner, from, was, stage} = dragged;
        const [dx, dy] = [(event.clientX - from[0]) / stage.clientWidth, (event.clientY - from[1]) / stage.clientHeight];
        const dialog = stage.closest("dialog");
        if (!corner) {
            snap(dialog, was.x + dx, was.y + dy, was.w, was.h);
            return;
        }
        const [right, lower] = CORNERS[corner];
        const w = Math.max(SMALLEST, was.w + (right ? dx : -dx));
        const h = Math.max(SMALLEST, was.h + (lower ? dy : -dy));
        snap(dialog, right ? was.x : was.x + was.w - w, lower ? was.y : was.y + was.h - h, w, h, [1 - right, 1 - lower]);
    }

    document.addEventListener("pointerdown", onDown);
    document.addEventListener("pointermove", onMove);
    document.addEventListener("pointerup", () => (dragged = null));
    document.addEventListener("pointercancel", () => (dragged = null));
    document.addEventListener("keydown", (event) => {
        if (event.target.closest && event.target.closest("#lora_trainer_image .lt-crop")) onKey(event);
    });
    document.addEventListener("click", (event) => {
        const button = event.target.closest && event.target.closest("#lora_trainer_image [data-crop]");
        if (button) press(button.closest("dialog"), button);
    });
    document.addEventListener("change", (event) => {
        if (event.target.name === "lt_shape") snap(event.target.closest("dialog"), at.x, at.y, at.w, at.h);
    });
})(window.loraTrainer = window.loraTrainer || {});
