"""What a check found, as a piece of the page: one sentence, counts, and a list with what matters most at its top."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.errors import counted, shown
from lora_trainer.ui.views import thumbnail

if TYPE_CHECKING:
    from lora_trainer.dataset.checks.check import Checked
    from lora_trainer.dataset.findings import Finding
    from lora_trainer.dataset.items import Dataset
    from lora_trainer.dataset.remedies import Remedies
    from lora_trainer.dataset.summary import DatasetSummary

THUMBNAILS = 12
MOST_SIZES = 8
MOST_FILES = 200  # of a finding that are listed
FEW_LINES = 3  # of a list that is shown at once


def check_view(
    checked: Checked, facts: DatasetSummary, suggested: Mapping[str, str], remedies: Remedies, undoable: str
) -> str:
    """What the check found, plainly.

    Args:
        suggested: texts by input; the page's script takes each where nothing was typed.
        undoable: the last remedy that was applied; "" for none.
    """
    rows = _Rows(checked.dataset, remedies)
    kind = "lt-good" if checked.readiness == "Ready." else "lt-warn" if checked.ready else "lt-unready"
    dataset = checked.dataset
    weighty = [one for one in checked.findings if one.severity != "info"]
    notes = [one for one in checked.findings if one.severity == "info"]
    return (
        f'<div class="lt-check" data-images="{facts.images}" data-suggested="{escape(json.dumps(suggested))}">'
        f'<div class="lt-note lt-readiness {kind}" role="status">{escape(checked.readiness)}</div>'
        f"{undo_view(undoable)}{rows.html(weighty)}{_tiles(facts)}{rows.thumbnails(dataset)}{_folders(facts)}"
        f"{_folded(f'Good to know ({len(notes)})', rows.html(notes)) if notes else ''}"
        f"{_lines('Skipped', facts.skipped)}</div>"
    )


def undo_view(undoable: str) -> str:
    """What was done last, with a button that takes it back."""
    if not undoable:
        return ""
    button = '<button type="button" class="lt-go" data-fix="undo">Undo</button>'
    return f'<div class="lt-note lt-quiet lt-undoable"><span>Done: {escape(shown(undoable))}.</span> {button}</div>'


class _Rows:
    """Findings as a list: each with its remedy, and with its images, which open when they are pressed."""

    def __init__(self, dataset: Dataset, remedies: Remedies) -> None:
        from lora_trainer.dataset.preview import image_id

        self._of, self._label = escape(shown(dataset.path)), remedies.label
        self._ids = {item.path: escape(image_id(item)) for item in dataset.pictures if not item.is_reg}

    def html(self, findings: Iterable[Finding]) -> str:
        """The list; empty where there are none."""
        rows = "".join(map(self._row, findings))
        return f'<ul class="lt-findings">{rows}</ul>' if rows else ""

    def _row(self, one: Finding) -> str:
        remedy = f"<small>{escape(_sentence(one.remedy))}</small>" if one.remedy else ""
        if does := self._label(one):
            button = f'<button type="button" class="lt-go" data-fix="{escape(one.kind)}">{escape(does)}</button>'
            remedy += button
        return (
            f'<li class="lt-finding" data-kind="{escape(one.kind)}"><span class="lt-chip lt-{one.severity}">'
            f"{one.severity}</span><div><div>{escape(shown(one.reason))}.</div>"
            f'<div class="lt-remedy">{remedy}{self._files(one.files)}</div></div></li>'
        )

    def _files(self, files: tuple[Path, ...]) -> str:
        if len(files) == 1 and files[0] not in self._ids:
            return ""  # the sentence names it
        names = [self._file(path) for path in files[:MOST_FILES]]
        rest = len(files) - len(names)
        listed = ", ".join(names) + (f" and {rest} more" if rest else "")
        return _folded(counted(len(files), "file"), f"<p>{listed}</p>") if files else ""

    def thumbnails(self, dataset: Dataset) -> str:
        """The first few images."""
        paths = [item.path for item in dataset.items if not item.folder.is_reg]
        images = [
            self._button(path, "lt-picture lt-thumb", small)
            for path in paths[:THUMBNAILS]
            if (small := thumbnail(path))
        ]
        rest = f"<span>+ {len(paths) - THUMBNAILS}</span>" if len(paths) > THUMBNAILS else ""
        return f'<div class="lt-thumbs">{"".join(images)}{rest}</div>'

    def _file(self, path: Path) -> str:
        name = escape(shown(path.name))
        return self._button(path, "lt-file", name) if path in self._ids else name

    def _button(self, path: Path, kind: str, content: str) -> str:
        about = f'data-image="{self._ids[path]}" data-of="{self._of}" title="As training sees it"'
        return f'<button type="button" class="{kind}" {about}>{content}</button>'


def _sentence(text: str) -> str:
    text = shown(text)
    return f"{text[:1].upper()}{text[1:]}."


def _tiles(facts: DatasetSummary) -> str:
    shapes = len(facts.buckets)
    counts = [
        (facts.images, "image" if facts.images == 1 else "images"),
        (facts.images - facts.captions_missing - facts.captions_empty - facts.captions_bare, "with a caption"),
        (facts.samples, "samples per epoch"),
        (shapes, "bucket" if shapes == 1 else "buckets"),
    ]
    tiles = "".join(f"<div><b>{number}</b><span>{what}</span></div>" for number, what in counts)
    return f'<div class="lt-tiles">{tiles}</div>'


def _folders(facts: DatasetSummary) -> str:
    folders = [
        f"{folder.name}: {folder.images} × {folder.repeats}"
        + (", regularisation" if folder.is_reg else f", trigger word “{folder.trigger}”" if folder.trigger else "")
        + (f", {folder.how}" if folder.how else "")
        for folder in facts.folders
    ]
    listed = sorted(facts.buckets, key=lambda row: -row[1])
    sizes = ", ".join(f"{width}×{height} ({uses})" for (width, height), uses in listed[:MOST_SIZES])
    sizes += f" and {len(listed) - MOST_SIZES} more" if len(listed) > MOST_SIZES else ""
    return f"<p>{'<br>'.join(map(escape, folders))}</p><p>Buckets, with their samples per epoch: {escape(sizes)}</p>"


def _lines(title: str, lines: Iterable[str]) -> str:
    items = [f"<li>{escape(line)}</li>" for line in lines]
    if not items:
        return ""
    listed = f'<ul tabindex="0">{"".join(items)}</ul>'
    return _folded(f"{title} ({len(items)})", listed, "lt-note lt-warn", len(items) <= FEW_LINES)


def _folded(head: str, body: str, kind: str = "lt-fold", opened: bool = False) -> str:
    """What is long is folded: what comes after it must not be pushed out of sight."""
    return f'<details class="{kind}"{" open" if opened else ""}><summary>{escape(head)}</summary>{body}</details>'
