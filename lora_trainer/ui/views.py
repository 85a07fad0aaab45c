"""Pieces of the page as HTML, every text escaped."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ImageOps

from lora_trainer.errors import DatasetError
from lora_trainer.families import traits
from lora_trainer.ui.forms import CHOICES

if TYPE_CHECKING:
    from lora_trainer.advice import Advice
    from lora_trainer.hosts.base import Glance
    from lora_trainer.training.memory_plan.figures import Expected
    from lora_trainer.ui.estimate import Pace

THUMBNAIL_SIDE = 96


_asked = itertools.count(1)  # a question that is asked again is another one: it shows again


def heading(number: int, title: str, help: str = "") -> str:
    """The head of a step."""
    rest = f"<small>{escape(help)}</small>" if help else ""
    return f'<div class="lt-step"><b>{number}</b><h3>{escape(title)}</h3>{rest}</div>'


def problem(sentence: str) -> str:
    """Something that keeps the user from going on."""
    return f'<div class="lt-note lt-problem" role="alert">{escape(sentence)}</div>'


def photos_button(folder: str, label: str) -> str:
    """A way from loose photos in a folder to copies of them: the page's script fills in where they are."""
    return f'<button type="button" class="lt-go" data-photos="{escape(folder)}">{escape(label)}</button>'


def question(sentence: str, *choices: str, kind: str = "lt-warn") -> str:
    """Something the user decides here and now; the page's script presses the button of the choice."""
    buttons = "".join(
        f'<button type="button" class="lt-choice" data-choice="{escape(choice)}">{CHOICES[choice]}</button>'
        for choice in choices
    )
    return (
        f'<div class="lt-note {kind} lt-question" role="group" data-asked="{next(_asked)}">'
        f'<div role="alert">{escape(sentence)}</div><div class="lt-choices">{buttons}</div></div>'
    )


def note(*sentences: str, kind: str = "lt-good") -> str:
    """Something the user should know."""
    lines = "".join(f"<div>{escape(sentence)}</div>" for sentence in sentences if sentence)
    return f'<div class="lt-note {kind}">{lines}</div>' if lines else ""


def plan_view(
    glance: Glance | None,
    steps: int | None,
    epochs: int | None,
    pace: Pace | None,
    memory: tuple[float, float] | None,
    needed: Expected | None = None,
    notes: Sequence[str] = (),
    doubts: Sequence[str] = (),
) -> str:
    """What pressing Train will do, as far as it is known."""
    rows = []
    if glance is not None:
        rows.append(("Model", f"{glance.checkpoint} · {traits(glance.family).label} · {glance.resolution} px"))
    else:
        rows.append(("Model", "the checkpoint chosen at the top of the page; it isn't loaded yet"))
    if steps:
        passes = "epoch" if epochs == 1 else "epochs"
        rows.append(("Steps", f"{steps:,} in {epochs} {passes}".replace(",", " ")))
        rows.append(("Time", time_text(steps, pace)))
    else:
        rows.append(("Steps", "known once the images are checked"))
    rows.append(("Memory", memory_text(memory, needed)))
    body = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    refusal = problem(glance.refusal) if glance is not None and glance.refusal else ""
    return f'<dl class="lt-plan">{body}</dl>{note(*notes, kind="lt-quiet")}{note(*doubts, kind="lt-warn")}{refusal}'


def advice_view(found: Sequence[Advice]) -> str:
    """What the checkpoint calls for; what can be set for it is set by a button."""
    facts = note(*(one.text for one in found if not one.options), kind="lt-quiet")
    offered = "".join(f"<div>{escape(one.text)}</div>" for one in found if one.options)
    if not offered:
        return facts
    button = f'<button type="button" class="lt-choice" data-choice="advice">{CHOICES["advice"]}</button>'
    return (  # no alert: it stands there after every change
        f'{facts}<div class="lt-note lt-quiet lt-question" role="group">{offered}<div class="lt-choices">{button}</div>'
        "</div>"
    )


def memory_text(memory: tuple[float, float] | None, needed: Expected | None) -> str:
    """What there is, and what the run needs."""
    need = "how much training needs is told when it begins"
    if needed is not None:
        need = f"training needs about {needed.most:.1f} GB"
        if needed.least < needed.training - 0.05:
            need += f", or down to {max(needed.least, needed.images):.1f} GB where that isn't free, more slowly"
    if memory is None:
        return f"no CUDA GPU here, so training uses system memory; {need}"
    free, whole = memory
    return f"{free:.1f} of {whole:.1f} GB of the GPU are free now; {need}"


def time_text(steps: int, pace: Pace | None) -> str:
    """How long so many steps take."""
    if pace is None:
        return "known after the first steps"
    return f"about {duration(steps * pace.seconds)} at {pace.seconds:.2g} s per step, as in the run {pace.name}"


def card_text(label: str, help: str, steps: int | None, pace: Pace | None, needed: Expected | None = None) -> str:
    """A preset's card: name, what it is for, what it takes; one a line."""
    memory = f"{needed.most:.1f} GB" if needed else ""
    if not steps:
        return f"{label}\n{help}" + (f"\n{memory}" if memory else "")
    counted = f"{steps:,} steps".replace(",", " ")
    time = f"about {duration(steps * pace.seconds)}" if pace else "time not known yet"
    return f"{label}\n{help}\n{' · '.join(filter(None, (counted, time, memory)))}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def thumbnail(path: Path) -> str:
    """A small picture inside the page itself; nothing of the folder has to be served. Empty if it can't be read."""
    small = small_jpeg(path, THUMBNAIL_SIDE)
    if not small:
        return ""
    coded = base64.b64encode(small).decode()
    return f'<img src="data:image/jpeg;base64,{coded}" alt="{escape(path.name)}" title="{escape(path.name)}">'


def small_jpeg(path: Path, side: int, whole: bool = False, rotation: int = 0) -> bytes:
    """A small picture as a JPEG file: its middle as a square, or the whole within one; rotated clockwise by so many
    degrees. Empty if it can't be read."""
    from lora_trainer.dataset.decode import read_small
    from lora_trainer.dataset.images import rotated

    try:
        _, upright, _ = read_small(path, (3 * side) ** 2)
    except DatasetError:
        return b""
    upright = rotated(upright, rotation)
    small = (ImageOps.contain if whole else ImageOps.fit)(upright, (side, side))
    memory = io.BytesIO()
    small.save(memory, format="JPEG", quality=80)
    return memory.getvalue()


def page_facts(facts: dict[str, Any]) -> str:
    """What the page's script needs to know."""
    attributes = " ".join(f'data-{name}="{escape(str(value))}"' for name, value in facts.items())
    return f'<div id="lora_trainer_page" {attributes}></div>'
