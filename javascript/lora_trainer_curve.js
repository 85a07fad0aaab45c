// The loss, step by step and smoothed.

(function (tab) {
    "use strict";

    const PLOT = {height: 220, left: 46, right: 12, top: 12, bottom: 26}; // px

    /** A mean that forgets: each value counts less the older it is (Adam's bias-corrected average). */
    function smoothed(values) {
        const keep = 1 - 1 / Math.max(4, values.length / 12);
        let mean = 0;
        return values.map((value, index) => {
            mean = keep * mean + (1 - keep) * value;
            return mean / (1 - Math.pow(keep, index + 1));
        });
    }

    /** Round numbers that divide a range in about `count` parts. */
    function ticks(low, high, count) {
        const rough = (high - low) / count || 1;
        const power = Math.pow(10, Math.floor(Math.log10(rough)));
        const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
        const found = [];
        for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(at);
        return found;
    }

    tab.lossHtml = function () {
        const width = Math.max(240, tab.part("live").clientWidth - 34); // of the panel inside its padding
        const steps = tab.status.losses.map((point) => point[0]);
        const raw = tab.status.losses.map((point) => point[1]);
        const mean = smoothed(raw);
        const sorted = [...raw].sort((a, b) => a - b);
        const last = Math.max(tab.status.steps || 0, steps[steps.length - 1]);
        let low = Math.min(sorted[0], ...mean);
        let high = Math.max(sorted[Math.floor(0.98 * (sorted.length - 1))], ...mean);
        const margin = (high - low || Math.abs(high) || 1) * 0.06;
        low = Math.max(0, low - margin);
        high += margin;
        const x = (step) => PLOT.left + (width - PLOT.left - PLOT.right) * step / last;
        const y = (value) => {
            const share = (Math.min(high, Math.max(low, value)) - low) / (high - low);
            return PLOT.height - PLOT.bottom - (PLOT.height - PLOT.top - PLOT.bottom) * share;
        };
        const line = (values) => values.map((value, n) => `${x(steps[n]).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
        const digits = high - low < 0.02 ? 4 : high - low < 0.2 ? 3 : 2;
        const rows = ticks(low, high, 4).map((value) => `<line x1="${PLOT.left}" x2="${width - PLOT.right}"
            y1="${y(value).toFixed(1)}" y2="${y(value).toFixed(1)}"/><text x="${PLOT.left - 6}" y="${(y(value) + 3.5).toFixed(1)}"
            text-anchor="end">${value.toFixed(digits)}</text>`).join("");
        const columns = ticks(0, last, width < 450 ? 3 : 6).filter((step) => Number.isInteger(step)).map((step) =>
            `<text x="${x(step).toFixed(1)}" y="${PLOT.height - 8}" text-anchor="middle">${step}</text>`).join("");
        const tip = "It jumps with the noise that is drawn, and even a good LoRA lowers it only a little. Trust the images.";
        return `<div class="lt-panel"><div class="lt-title"><h3>Loss</h3><small title="${tip}">${tip}</small></div>
            <svg class="lt-curve" width="${width}" height="${PLOT.height}" viewBox="0 0 ${width} ${PLOT.height}" role="img" aria-label="Loss by step">
            <g class="lt-grid">${rows}${columns}</g><polyline class="lt-raw" points="${line(raw)}"/>
            <polyline class="lt-mean" points="${line(mean)}"/>
            <circle class="lt-now" cx="${x(steps[steps.length - 1]).toFixed(1)}" cy="${y(mean[mean.length - 1]).toFixed(1)}" r="4"/>
            </svg><div class="lt-legend"><span class="lt-key-mean">smoothed, now ${mean[mean.length - 1].toFixed(4)}</span>
            <span class="lt-key-raw">each step</span></div></div>`;
    };
})(window.loraTrainer = window.loraTrainer || {});
