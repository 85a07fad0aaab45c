"""The report as one page that needs nothing else: pictures are inside it, small; each links to its full size."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from lora_trainer.config import RunConfig
from lora_trainer.errors import counted
from lora_trainer.evaluation.curve import gain_curve, loss_curve
from lora_trainer.evaluation.html import COPY_SCRIPT, POLICY, copyable, picture, table
from lora_trainer.evaluation.learned import learned_chart
from lora_trainer.evaluation.sections import Look, sections
from lora_trainer.training.folder import read_learned

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
    look = Look(lambda row: picture(row, folder), lambda text, _: copyable(text))
    body = "\n".join(
        part
        for part in (
            _header(report),
            *sections(report, look),
            _look_for_section(),
            _use_section(report),
            _training_section(log, folder),
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


def _training_section(log: Sequence[dict[str, Any]], folder: Path) -> str:
    learned, curve = learned_chart(list(read_learned(folder / "learned.jsonl"))), loss_curve(log)
    gain = gain_curve(log)
    compared = f"<p>Below zero, it has learned:</p>\n{gain}" if gain else ""
    if not curve:
        return ""
    seconds = [row["seconds"] for row in log if isinstance(row.get("seconds"), (int, float))]
    pace = f" Median time per step: {sorted(seconds)[len(seconds) // 2]:.2f} s." if seconds else ""
    return f"""<h2>Training</h2>
{learned}
{compared}
<p>{counted(len(log), "step")}.{pace} A noisy curve is normal: the
loss depends mostly on how much noise each step drew.</p>
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
