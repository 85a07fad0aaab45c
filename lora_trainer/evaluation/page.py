"""The report as one page that needs nothing else: pictures are inside it, small; each links to its full size."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from lora_trainer.config import RunConfig
from lora_trainer.evaluation.curve import loss_curve
from lora_trainer.evaluation.html import COPY_SCRIPT, POLICY, bullets, copyable, picture, table
from lora_trainer.evaluation.prompts import lora_tag, strength_text

SCORES = ("accuracy", "flexibility", "artifacts")

LOOK_FOR = (
    (
        "Accuracy",
        "Is it your subject? Are the details there?",
        "If it is weak even at 1.0: more epochs, a slightly higher learning rate, captions that begin with the "
        "trigger word.",
    ),
    (
        "Flexibility",
        "Does it follow the rest of the prompt: other places, poses and styles?",
        "If every image looks like a training image: an earlier epoch, a lower strength, more varied captions.",
    ),
    (
        "Artefacts",
        "Are there distortions, strange colours or patterns?",
        "If so: first a lower strength, then a lower learning rate or noise offset; min-SNR gamma 5; better images.",
    ),
)


def render_page(report: dict[str, Any], folder: Path, log: Sequence[dict[str, Any]], run: dict[str, Any]) -> str:
    """The HTML of a report; ``folder`` is where its pictures' paths begin."""
    body = "\n".join(
        part
        for part in (
            _header(report),
            _summary(report),
            _strength_section(report, folder),
            _integration_section(report, folder),
            _epoch_section(report, folder),
            _look_for_section(),
            _use_section(report),
            _training_section(log, run),
            _settings_section(report, run),
        )
        if part
    )
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report['name'])} – LoRA test</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n{body}\n<script>{COPY_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _header(report: dict[str, Any]) -> str:
    facts = [f"base model <code>{escape(report['base_model'])}</code>"]
    if report["trigger"]:
        facts.append(f"trigger word <code>{escape(report['trigger'])}</code>")
    facts.append(escape(report["created"][:16].replace("T", " ") + " UTC"))
    stopped = "<p><strong>The test was stopped; these are its images so far.</strong></p>" if report["stopped"] else ""
    return f'<h1>{escape(report["name"])}</h1>\n<p class="quiet">{" · ".join(facts)}</p>{stopped}'


def _summary(report: dict[str, Any]) -> str:
    best = report["recommended"]
    stem = Path(best["file"]).stem
    prompt = f"{lora_tag(stem, best['strength'])} {report['trigger']}".strip()
    chip = "chip good" if report["verdict"] == "good" else "chip"
    return f"""<div class="cards">
<section class="card"><h3 class="quiet">Use it like this</h3>
<p class="big">{escape(best["file"])} at {strength_text(best["strength"])}</p>
{copyable(prompt)}
<p class="small quiet">{escape(best["why"])}</p></section>
<section class="card"><h3 class="quiet">Verdict</h3>
<p><span class="{chip}">{escape(report["verdict"].capitalize())}</span></p>
{bullets(report["evidence"])}</section>
<section class="card"><h3 class="quiet">What to do next</h3>{bullets(report["advice"])}{_scores(report)}</section>
</div>"""


def _scores(report: dict[str, Any]) -> str:
    rows = [row for row in report["strengths"] if any(row[score] for score in SCORES)]
    if not rows:
        return ""
    head = "".join(f"<th>{score}</th>" for score in SCORES)
    lines = []
    for row in rows:
        cells = "".join(
            f"<td>{row[s]['value']:.0f} <span class='quiet'>({row[s]['low']:.0f}–{row[s]['high']:.0f})</span></td>"
            if row[s]
            else "<td>–</td>"
            for s in SCORES
        )
        lines.append(f"<tr><th>{strength_text(row['strength'])}</th>{cells}</tr>")
    return f'<div class="scroll"><table class="plain"><tr><th>strength</th>{head}</tr>{"".join(lines)}</table></div>'


def _strength_section(report: dict[str, Any], folder: Path) -> str:
    rows = [row for row in report["images"] if row["kind"] == "strength"]
    if not rows:
        return ""
    chosen = strength_text(report["recommended"]["strength"])
    return f"""<h2>Strength</h2>
<p>The same seeds at rising strength. 0 is the base model alone.</p>
{copyable(report["prompts"]["strength"])}
{_sheet(rows, folder, chosen)}
{_grid_link(report, "strength.png")}"""


def _epoch_section(report: dict[str, Any], folder: Path) -> str:
    rows = [row for row in report["images"] if row["kind"] == "epoch"]
    if not rows:
        return ""
    best = report["recommended"]
    last = [
        {**row, "label": "the last"}
        for row in report["images"]
        if row["kind"] == "strength" and row["file"] == report["lora"] and row["strength"] == best["strength"]
    ]
    return f"""<h2>Saved epochs</h2>
<p>The same prompt with every file that was saved during training, at strength {strength_text(best["strength"])}. If an
earlier one looks as good as the last, prefer it: it has had less time to memorise the training images.</p>
{_sheet([*rows, *last], folder, "")}
{_grid_link(report, "epochs.png")}"""


def _sheet(rows: Sequence[dict[str, Any]], folder: Path, chosen: str) -> str:
    """Pictures as a table: a column for each label, a row for each seed."""
    labels = list(dict.fromkeys(row["label"] for row in rows))
    mark = {label: ' class="chosen"' if label == chosen else "" for label in labels}
    head = "".join(f"<th{mark[label]}>{escape(label)}</th>" for label in labels)
    lines = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        at = {row["label"]: row for row in rows if row["seed"] == seed}
        cells = "".join(
            f"<td{mark[label]}>{picture(at[label], folder) if label in at else ''}</td>" for label in labels
        )
        lines.append(f'<tr><th scope="row">seed {seed}</th>{cells}</tr>')
    first = f'<tr><td class="corner"></td>{head}</tr>'
    return f'<div class="scroll"><table class="sheet">{first}{"".join(lines)}</table></div>'


def _integration_section(report: dict[str, Any], folder: Path) -> str:
    rows = [row for row in report["images"] if row["kind"] == "integration"]
    if not rows:
        return ""
    cards = []
    for prompt in report["prompts"]["integration"]:
        mine = [row for row in rows if row["case"] == prompt]
        pairs = []
        for seed in dict.fromkeys(row["seed"] for row in mine):
            figures = "".join(
                f"<figure>{picture(row, folder)}<figcaption>"
                f"{'at ' + strength_text(row['strength']) if row['strength'] else 'without the LoRA'}, seed {seed}"
                "</figcaption></figure>"
                for row in mine
                if row["seed"] == seed
            )
            pairs.append(f'<div class="pair">{figures}</div>')
        if pairs:
            cards.append(
                f'<section class="card">{copyable(prompt)}<div class="scroll">{"".join(pairs)}</div></section>'
            )
    return f"""<h2>In other contexts</h2>
<p>Does it still follow the prompt? Each pair has the same seed, without and with the LoRA.</p>
<div class="pairs">{"".join(cards)}</div>
{_grid_link(report, "integration.png")}"""


def _look_for_section() -> str:
    cards = "".join(
        f'<section class="card"><h3>{escape(name)}</h3><p>{escape(ask)}</p>'
        f'<p class="small quiet">{escape(cure)}</p></section>'
        for name, ask, cure in LOOK_FOR
    )
    return f'<h2>What to look for</h2>\n<div class="cards">{cards}</div>'


def _use_section(report: dict[str, Any]) -> str:
    file = f"<code>{escape(report['lora'])}</code>"
    return f"""<h2>Use it in the WebUI</h2>
<ol>
<li>{file} belongs in <code>stable-diffusion-webui/models/Lora/</code>, together with its <code>.json</code>
and <code>.png</code>.</li>
<li>In txt2img open the <em>Lora</em> tab and press <em>Refresh</em>; click the card to insert tag and trigger word.
Or copy a prompt from this page.</li>
<li>The number in <code>&lt;lora:…:0.8&gt;</code> is the strength: lower it if images look forced, raise it if the
subject is weak.</li>
</ol>"""


def _training_section(log: Sequence[dict[str, Any]], run: dict[str, Any]) -> str:
    curve = loss_curve(log)
    if not curve:
        return ""
    seconds = [row["seconds"] for row in log if isinstance(row.get("seconds"), (int, float))]
    pace = f" Median time per step: {sorted(seconds)[len(seconds) // 2]:.2f} s." if seconds else ""
    return f"""<h2>Training</h2>
<p>{len(log)} steps.{pace} A noisy curve is normal: the loss depends mostly on how much noise each step drew.</p>
{curve}"""


def _settings_section(report: dict[str, Any], run: dict[str, Any]) -> str:
    test = {**report["settings"], "seeds": ", ".join(map(str, report["seeds"]))}
    parts = [_details("Settings of the test", test)]
    config = run.get("config")
    if isinstance(config, dict):
        defaults = RunConfig().to_dict()
        changed = {name: value for name, value in config.items() if value != defaults.get(name)}
        parts.append(_details("Training settings that differ from the defaults", changed))
        parts.append(_details("All training settings", config))
    rest = {k: v for k, v in run.items() if k != "config" and isinstance(v, (str, int, float)) and v != ""}
    if rest:
        parts.append(_details("The run", rest))
    return "<h2>Settings</h2>\n" + "\n".join(parts)


def _details(summary: str, values: dict[str, Any]) -> str:
    return f"<details><summary>{escape(summary)}</summary>{table(values)}</details>"


def _grid_link(report: dict[str, Any], name: str) -> str:
    return f'<p class="small"><a href="{name}">All of it as one image</a></p>' if name in report["grids"] else ""
