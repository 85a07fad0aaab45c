// How the run stands: bar, figures, notices, sample pictures.

(function (tab) {
    "use strict";

    const TITLES = {
        idle: "Nothing is being trained", preparing: "Getting ready", training: "Training", paused: "Paused",
        testing: "Testing", captioning: "Writing captions", generating: "Making regularisation images", done: "Done", failed: "Failed", stopped: "Stopped",
    };

    let seen = false; // a job that ran while this page was open
    let announced = "";

    /** How much of what is at hand is done, from 0 to 100. */
    function percent() {
        const s = tab.status;
        const total = s.progress.total || s.steps || 0;
        const done = s.progress.total ? s.progress.done : s.step;
        return total ? Math.min(100, 100 * done / total) : 0;
    }

    /** Tell those who hear the page: each state, and every tenth of it. */
    function announce() {
        const s = tab.status;
        if (s.state === "idle") return;
        const tenths = tab.running() ? 10 * Math.floor(percent() / 10) : 0;
        const left = tenths && s.eta_seconds !== null ? `, ${tab.duration(s.eta_seconds)} left` : "";
        const place = [s.job, s.state, tenths].join();
        if (place === announced) return;
        announced = place;
        const said = tab.running() ? `${TITLES[s.state]} ${s.name}: ${tenths} %${left}.` : `${TITLES[s.state]}: ${s.message}`;
        tab.part("announce").textContent = said;
    }

    /** Draw the status; `error` says that it may be old. */
    tab.show = function (error) {
        if (!tab.status) {
            if (error) tab.put("progress", tab.problem(error.told ? error.message : "The WebUI doesn't answer: " + error.message));
            return;
        }
        const running = tab.running();
        const state = tab.status.state;
        seen = seen || running;
        tab.part("columns").classList.toggle("lt-live-first", seen); // where there is one column
        announce();
        tab.noteEnd();
        tab.put("looking", lookingHtml());
        tab.put("progress", progressHtml(running, error));
        tab.put("notices", noticesHtml());
        tab.put("loss", tab.curvesHtml(tab.curves));
        if (tab.put("samples", samplesHtml())) showNewest();
        tab.put("log", tab.logHtml());
        if (tab.put("report", tab.resultHtml()) && tab.hasResult()) tab.mark("result");
        tab.showPages();
        tab.toggle("pause", running && state !== "paused");
        tab.toggle("resume", state === "paused");
        tab.toggle("stop", running);
        tab.toggle("buttons", running);
        for (const button of [tab.part("start"), tab.part("test")]) {
            button.disabled = running || tab.filling();
            button.classList.toggle("lt-busy", running);
        }
        if (running) tab.bringIntoView();
    };

    function progressHtml(running, error) {
        const s = tab.status;
        if (s.state === "idle") {
            return `<div class="lt-welcome"><h3>Nothing is being trained</h3>
                <ol><li>Choose trigger word, preset and name.</li>
                <li>Press <b>Train</b>. It trains on the checkpoint that is loaded; loss, sample images and time left appear here.</li>
                <li>Afterwards the LoRA is in the Lora tab, and the page <b>Result</b> shows it at several strengths.</li></ol></div>`;
        }
        const share = percent();
        const cells = [];
        if (s.steps) cells.push(["Step", `${s.step} / ${s.steps}`]);
        if (s.epochs) cells.push(["Epoch", `${s.epoch} / ${s.epochs}`]);
        if (s.average !== null) cells.push(["Loss", s.average.toFixed(4)]);
        if (running && s.eta_seconds !== null) cells.push(["Time left", tab.duration(s.eta_seconds)]);
        if (s.seconds_per_step) cells.push(["Per step", s.seconds_per_step.toPrecision(2) + " s"]);
        const tiles = cells.map(([name, value]) => `<div><span>${name}</span><b>${tab.escaped(value)}</b></div>`).join("");
        const lost = error ? tab.problem("No answer at the moment (" + error.message + "); trying again.") : "";
        const message = s.state === "failed" ? tab.problem(s.error) : `<p class="lt-message">${tab.escaped(s.message)}</p>`;
        const bar = tab.bar(TITLES[s.state], share, `lt-${s.state}`);
        const figure = running && share ? `${Math.floor(share)} %` : "";
        return `<div class="lt-head" data-state="${s.state}"><span class="lt-dot"></span>
            <h3>${TITLES[s.state]}</h3><b class="lt-name">${tab.escaped(s.name)}</b><span class="lt-percent">${figure}</span></div>
            ${bar}${message}${lost}
            <div class="lt-tiles">${tiles}</div>${running ? planHtml(s.plan) + meterHtml(s.memory) : ""}${tab.hasResult() ? tab.goButton("result", "See the result") : ""}`;
    }

    /** A bar that is filled to a share from 0 to 100. */
    tab.bar = (label, share, classes = "") =>
        `<div class="lt-bar ${classes}" role="progressbar" aria-label="${tab.escaped(label)}" aria-valuenow="${Math.round(share)}"
            aria-valuemin="0" aria-valuemax="100"><div style="width:${share.toFixed(1)}%"></div></div>`;

    /** How what takes the model's turn and isn't a training stands, or how it ended; `then` says what comes after it. */
    tab.errandHtml = function (then) {
        const s = tab.status;
        if (tab.running()) return `${tab.bar(TITLES[s.state], percent())}<p>${tab.escaped(s.message)}</p>`;
        if (s.state === "failed") return tab.problem(s.error);
        return `<div class="lt-note lt-good">${tab.escaped(s.message)} ${then}</div>`;
    };

    /** A check or a copy of photos that is at work. */
    function lookingHtml() {
        const now = tab.status.looking;
        if (!now || !now.total) return "";
        return `${tab.bar(now.what, 100 * now.done / now.total)}<div class="lt-choices">
            <span>${tab.escaped(now.what)}: ${now.done} of ${now.total}</span>
            <button type="button" class="lt-go" data-looking="stop">Stop</button></div>`;
    }

    /** What each phase of the run is expected to need, and what was done so that it fits. */
    function planHtml(plan) {
        if (!plan) return "";
        const size = (gb) => gb >= 0.5 ? gb.toFixed(1) + " GB" : Math.round(1024 * gb) + " MB";
        const phases = plan.phases.map((phase) => {
            const time = phase.minutes >= 0.5 ? ", about " + tab.duration(60 * phase.minutes) : "";
            return `${phase.name} ${size(phase.gb)}${time}`;
        });
        return `<p class="lt-quiet lt-memory-plan">${tab.escaped(plan.text)} Expected: ${tab.escaped(phases.join(" · "))}.</p>`;
    }

    /** The memory in use, and the most that it was. */
    function meterHtml(memory) {
        if (!memory || !memory.limit_gb) return "";
        const share = (value) => Math.min(100, 100 * value / memory.limit_gb).toFixed(1);
        const [now, peak, limit] = [memory.now_gb, memory.peak_gb, memory.limit_gb].map((value) => value.toFixed(1));
        const said = `Memory: ${now} of ${limit} GB, at most ${peak}`;
        return `<div class="lt-meter"><small>${said}</small><div role="meter" aria-label="${said}" aria-valuemin="0"
            aria-valuemax="${limit}" aria-valuenow="${now}"><div class="lt-now" style="width:${share(memory.now_gb)}%"></div>
            <div class="lt-peak" style="left:${share(memory.peak_gb)}%"></div></div></div>`;
    }

    function noticesHtml() {
        if (!tab.status.notices.length) return "";
        const lines = tab.status.notices.map((line) => `<li>${tab.escaped(line)}</li>`).join("");
        return `<details class="lt-note lt-warn"${tab.status.notices.length < 4 ? " open" : ""}>
            <summary>Notes (${tab.status.notices.length})</summary><ul>${lines}</ul></details>`;
    }

    /** What a run has learned, and its loss: of the job at work, or of a run that is looked at. */
    tab.curvesHtml = function (curves) {
        if (!curves || !curves.html) return "";
        const panel = (title, about, inside) => `<div class="lt-panel"><div class="lt-title"><h3>${title}</h3>
            <small>${about}</small></div>${inside}</div>`;
        const learned = curves.learned && panel("Learned and kept", `Measured at every save. The best save is where it shows the
            subject and has kept most of the rest; where “kept” falls, it is training too long or too fast.`, curves.learned);
        const about = "It jumps with the noise that is drawn, and even a good LoRA lowers it only a little. Trust the images.";
        if (!curves.gain) return learned + panel("Loss", about, curves.html);
        return learned + panel("Loss, compared with the base model", `The loss less the base model's at the same images and noise:
            below zero, it has learned.`, `${curves.gain}<details><summary>The loss itself</summary><small>${about}</small>${curves.html}</details>`);
    };

    /** The newest samples stand at the right. */
    function showNewest() {
        const scroll = tab.part("samples").querySelector(".lt-scroll");
        if (scroll) scroll.scrollLeft = scroll.scrollWidth;
    }

    function samplesHtml() {
        const sheet = tab.sheetHtml(tab.status.samples);
        return sheet && `<div class="lt-panel"><div class="lt-title"><h3>Sample images</h3>
            <small>Always the same seeds; “before” is the checkpoint without the LoRA.</small></div>${sheet}</div>`;
    }

    /** Sample pictures: a column for each step, a row for each prompt. */
    tab.sheetHtml = function (samples) {
        if (!samples.length) return "";
        const prompts = [...new Set(samples.map((sample) => sample.prompt))];
        const steps = [...new Set(samples.map((sample) => sample.step))].sort((a, b) => a - b);
        const named = (step) => (step === 0 ? "before" : "step " + step);
        const head = steps.map((step) => `<th scope="col">${named(step)}</th>`).join("");
        const rows = prompts.map((prompt) => {
            const cells = steps.map((step) => {
                const found = samples.filter((sample) => sample.step === step && sample.prompt === prompt);
                return `<td>${found.map((one) => tab.picture(one.url, `${named(step)}: ${prompt}`)).join("")}</td>`;
            });
            return `<tr>${cells.join("")}</tr><tr><td colspan="${steps.length}" class="lt-caption">${tab.escaped(prompt)}</td></tr>`;
        });
        return `<div class="lt-scroll"><table class="lt-sheet"><thead><tr>${head}</tr></thead><tbody>${rows.join("")}</tbody>
            </table></div>`;
    };
})(window.loraTrainer = window.loraTrainer || {});
