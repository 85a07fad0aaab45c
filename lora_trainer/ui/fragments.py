"""What the evaluation draws, as the tab shows it: the report's sections and the loss curve."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lora_trainer.errors import FileError, counted
from lora_trainer.evaluation.curve import gain_curve, loss_curve
from lora_trainer.evaluation.learned import learned_chart
from lora_trainer.evaluation.prompts import strength_text
from lora_trainer.evaluation.sections import Look, Row, sections
from lora_trainer.files import read_object
from lora_trainer.runs.details import Details
from lora_trainer.training.folder import UNFINISHED_TEST
from lora_trainer.ui.status import ROUTE, Record

NARROWEST, WIDEST = 240, 2000  # pixels of a curve


def report_fragment(path: Path, name: str, grows: bool = False) -> str:
    """The sections of ``report.json`` as HTML; ``data-src`` and ``data-href`` hold addresses for the page's script.

    Args:
        grows: the test is still at work.

    Raises:
        FileError: if it isn't a report.
    """
    report = read_object(path)
    try:
        return ("" if grows else _half(path, report, name)) + "".join(sections(report, _look(name)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"The report of {name} can't be read: test the LoRA again.") from error


def _half(path: Path, report: dict[str, Any], name: str) -> str:
    """What is said of a test that didn't come to its end."""
    if not report.get("stopped") or not (path.parent / UNFINISHED_TEST).is_file():
        return ""
    button = f'<button type="button" class="lt-go" data-run="{escape(name)}" data-act="continue_test">'
    said = f"The test was stopped after {counted(len(report['images']), 'image')}."
    return f'<div class="lt-note lt-warn lt-half"><div>{said}</div>{button}Continue the test</button></div>'


def _look(name: str) -> Look:
    def address(file: str) -> str:
        return escape(f"{ROUTE}/report/{quote(name)}/{quote(file)}")

    def picture(row: Row) -> str:
        title = f"strength {strength_text(row['strength'])}, seed {row['seed']}"
        about = {"title": title, "infotext": row["infotext"], "prompt": row["prompt"]}
        return (
            f'<button type="button" class="lt-picture" data-about="{escape(json.dumps(about))}">'
            f'<img data-src="{address(row["path"])}" alt="{escape(title)}" loading="lazy"></button>'
        )

    def prompt(text: str, infotext: str) -> str:
        data = f'data-prompt="{escape(text)}" data-infotext="{escape(infotext or text)}"'
        button = f'<button type="button" class="lt-send" {data}></button>'
        return f'<div class="prompt"><code>{escape(text)}</code>{button}</div>'

    def use(file: str) -> str:
        label = f"Use {Path(file).stem} as {name}"
        return f'<button type="button" class="lt-go lt-use" data-file="{escape(file)}">{escape(label)}</button>'

    return Look(picture, prompt, level=3, link=lambda file: f'data-href="{address(file)}" target="_blank"', use=use)


def curves_fragment(record: Record | Details, width: Any) -> dict[str, str]:
    """The job at hand or a run of before, as wide as the page asks for: its loss, its loss less the base model's, and
    what it has learned and kept at its saves."""
    text, until = str(width), record.steps if isinstance(record, Record) else record.entry.steps
    pixels = int(text) if text.isdigit() and len(text) < 6 else WIDEST
    wide = min(max(pixels, NARROWEST), WIDEST)
    rows = [{"step": step, "loss": loss, "baseline": base} for step, loss, base in record.losses]
    return {
        "html": loss_curve(rows, wide, until),
        "gain": gain_curve(rows, wide, until),
        "learned": learned_chart(list(record.learned), wide, until),
    }
