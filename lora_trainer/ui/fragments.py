"""What the evaluation draws, as the tab shows it: the report's sections and the loss curve."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lora_trainer.errors import FileError
from lora_trainer.evaluation.curve import loss_curve
from lora_trainer.evaluation.prompts import strength_text
from lora_trainer.evaluation.sections import Look, Row, sections
from lora_trainer.files import read_object
from lora_trainer.ui.status import ROUTE, Record

NARROWEST, WIDEST = 240, 2000  # pixels of a curve


def report_fragment(path: Path, name: str) -> str:
    """The sections of ``report.json`` as HTML; ``data-src`` and ``data-href`` hold addresses for the page's script.

    Raises:
        FileError: if it isn't a report.
    """
    report = read_object(path)
    try:
        return "".join(sections(report, _look(name)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"The report of {name} can't be read: test the LoRA again.") from error


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

    return Look(picture, prompt, level=3, link=lambda file: f'data-href="{address(file)}" target="_blank"')


def curve_fragment(record: Record, width: Any) -> str:
    """The curve of the job at hand, as wide as the page asks for."""
    text = str(width)
    pixels = int(text) if text.isdigit() and len(text) < 6 else WIDEST
    rows = [{"step": step, "loss": loss} for step, loss in record.losses]
    return loss_curve(rows, min(max(pixels, NARROWEST), WIDEST), record.steps)
