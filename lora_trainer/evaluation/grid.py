"""Pictures in a labelled grid, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from lora_trainer.evaluation.lettering import Lettering

SMALLEST_CELL = 192  # pixels of a cell's longer side; smaller pictures are enlarged to be seen
LARGEST_CELL = 512
GAP = 8
MARGIN = 20
PAPER, INK, QUIET, HOLE = (250, 250, 249), (24, 24, 27), (95, 95, 104), (228, 228, 231)

Row = Sequence["Image.Image | None"]


@dataclass(frozen=True)
class Labels:
    """The words around a grid; ``corner`` stands above the rows' labels."""

    title: str
    columns: Sequence[str]
    rows: Sequence[str]
    subtitle: str = ""
    corner: str = ""


def for_display(image: Image.Image, smallest: int = SMALLEST_CELL, largest: int = LARGEST_CELL) -> Image.Image:
    """Enlarge tiny pictures by a whole factor, pixels kept square; shrink big ones smoothly."""
    image = image.convert("RGB")
    side = max(image.size)
    if side < smallest:
        factor = -(-smallest // side)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if side > largest:
        size = (max(1, round(image.width * largest / side)), max(1, round(image.height * largest / side)))
        return image.resize(size, Image.Resampling.LANCZOS)
    return image


def labelled_grid(rows: Sequence[Row], labels: Labels) -> Image.Image:
    """Draw ``rows`` of pictures with a title, a label over every column and one beside every row.

    A missing picture (None) leaves an empty cell, for instance after a stop. Long labels are wrapped.

    Raises:
        ValueError: if the labels don't fit the rows and columns, or there is no picture at all.
    """
    if len(rows) != len(labels.rows) or any(len(row) != len(labels.columns) for row in rows):
        raise ValueError(f"{len(labels.columns)}×{len(labels.rows)} labels for rows of {[len(row) for row in rows]}")
    shown = [[None if image is None else for_display(image) for image in row] for row in rows]
    sizes = [image.size for row in shown for image in row if image is not None]
    if not sizes:
        raise ValueError("a grid needs at least one picture")
    cell_w, cell_h = max(w for w, _ in sizes), max(h for _, h in sizes)

    heading, text = Lettering(26), Lettering(17)
    widest_label = max((text.width(label) for label in (*labels.rows, labels.corner)), default=0)
    label_w = min(widest_label, max(140, cell_w)) + (GAP * 2 if widest_label else 0)
    width = MARGIN * 2 + label_w + len(labels.columns) * (cell_w + GAP) - GAP
    title = heading.wrap(labels.title, width - 2 * MARGIN)
    subtitle = text.wrap(labels.subtitle, width - 2 * MARGIN) if labels.subtitle else []
    columns = [text.wrap(label, cell_w, most_lines=8) for label in labels.columns]
    beside = [text.wrap(label, label_w - 2 * GAP, most_lines=cell_h // text.line_height) for label in labels.rows]

    head_h = len(title) * heading.line_height + len(subtitle) * text.line_height + GAP
    names_h = max(len(lines) for lines in columns) * text.line_height + GAP
    top = MARGIN + head_h + names_h
    canvas = Image.new("RGB", (width, top + len(rows) * (cell_h + GAP) - GAP + MARGIN), PAPER)

    y = _write(canvas, heading, MARGIN, MARGIN, title, INK)
    _write(canvas, text, MARGIN, y, subtitle, QUIET)
    _write(canvas, text, MARGIN, MARGIN + head_h, [labels.corner], QUIET)
    for c, lines in enumerate(columns):
        left = MARGIN + label_w + c * (cell_w + GAP)
        for i, line in enumerate(lines):
            text.draw(
                canvas, left + (cell_w - text.width(line)) // 2, MARGIN + head_h + i * text.line_height, line, INK
            )
    for r, row in enumerate(shown):
        y = top + r * (cell_h + GAP)
        _write(canvas, text, MARGIN, y + (cell_h - len(beside[r]) * text.line_height) // 2, beside[r], INK)
        for c, image in enumerate(row):
            x = MARGIN + label_w + c * (cell_w + GAP)
            if image is None:
                canvas.paste(HOLE, (x, y, x + cell_w, y + cell_h))
            else:
                canvas.paste(image, (x + (cell_w - image.width) // 2, y + (cell_h - image.height) // 2))
    return canvas


def _write(
    canvas: Image.Image, lettering: Lettering, left: int, top: int, lines: Sequence[str], colour: tuple[int, int, int]
) -> int:
    """Write lines below each other; returns where the next would begin."""
    for line in lines:
        lettering.draw(canvas, left, top, line, colour)
        top += lettering.line_height
    return top
