"""Grids: every picture where its labels say, readable at any size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lora_trainer.evaluation import lettering
from lora_trainer.evaluation.grid import HOLE, PAPER, Labels, for_display, labelled_grid
from lora_trainer.evaluation.lettering import Lettering

COLOURS = [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 0), (0, 255, 255), (255, 0, 255)]]


@pytest.fixture(params=["system font", "bitmap font"])
def font(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of writing: Pillow 9.5 on a system without fonts has its small bitmap font only."""
    lettering.scalable_font.cache_clear()
    if request.param == "bitmap font":
        monkeypatch.setattr(lettering, "scalable_font", lambda size: None)
        monkeypatch.setattr(lettering.ImageFont, "load_default", _bitmap_font)
    return request.param


def _bitmap_font(size: float | None = None) -> object:
    from PIL import ImageFont

    return ImageFont.load_default_imagefont() if hasattr(ImageFont, "load_default_imagefont") else _old_default()


_old_default = lettering.ImageFont.load_default


def grid(side: int) -> Image.Image:
    rows = [[Image.new("RGB", (side, side), colour) for colour in row] for row in COLOURS]
    return labelled_grid(rows, Labels("a title", ["0", "0.8", "1.0"], ["seed 1", "seed 2"], "a prompt", "strength"))


def boxes(image: Image.Image) -> dict[tuple[int, int, int], tuple[int, int, int, int]]:
    """Bounding box of each colour."""
    found = {}
    for colour in (colour for row in COLOURS for colour in row):
        rows, columns = np.nonzero((np.asarray(image) == colour).all(-1))
        found[colour] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return found


@pytest.mark.parametrize(("side", "shown"), [(64, 192), (100, 200), (256, 256)])
def test_pictures_lie_in_their_row_and_column(font: str, side: int, shown: int) -> None:
    found = boxes(grid(side))
    for row in COLOURS:
        lefts = [found[colour][0] for colour in row]
        assert lefts == sorted(lefts) and len({found[colour][1] for colour in row}) == 1
    for column in zip(*COLOURS, strict=True):
        assert found[column[0]][0] == found[column[1]][0] and found[column[0]][1] < found[column[1]][1]
    for left, top, right, bottom in found.values():
        assert (right - left, bottom - top) == (shown, shown)


def test_labels_are_written_outside_the_pictures(font: str) -> None:
    image = grid(64)
    found = boxes(image)
    first = found[COLOURS[0][0]]
    above = image.crop((first[0], 0, first[2], first[1]))
    beside = image.crop((0, first[1], first[0], first[3]))
    for part in (above, beside):
        colours = {colour for _, colour in part.getcolors(maxcolors=1 << 16)}
        assert len(colours - {PAPER}) > 3  # ink and its soft edges


def test_small_pictures_keep_square_pixels_and_large_ones_shrink() -> None:
    small = Image.new("RGB", (64, 64))
    small.putpixel((10, 20), (255, 255, 255))
    shown = for_display(small)
    assert shown.size == (192, 192)
    assert shown.crop((30, 60, 33, 63)).getcolors() == [(9, (255, 255, 255))]
    assert shown.getpixel((29, 60)) == (0, 0, 0)
    assert for_display(Image.new("RGB", (1024, 768))).size == (512, 384)


def test_missing_picture_leaves_a_hole() -> None:
    image = labelled_grid([[Image.new("RGB", (200, 200)), None]], Labels("t", ["a", "b"], ["r"]))
    assert (200 * 200, HOLE) in image.getcolors(maxcolors=1 << 16)


def test_long_words_are_broken_and_long_texts_cut(font: str) -> None:
    text = Lettering(17)
    lines = text.wrap("a_very_long_word_without_any_space " * 6, 120, most_lines=4)
    assert len(lines) == 4 and all(text.width(line) <= 120 for line in lines)
    assert lines[-1].endswith("…")
    assert text.wrap("two words", 1000) == ["two words"]
    assert "".join(text.wrap("abcdefghij" * 5, 60)) == "abcdefghij" * 5


def test_letters_that_no_font_has_are_no_error(font: str) -> None:
    image = labelled_grid([[Image.new("RGB", (64, 64))]], Labels("狐 – 🦊", ["ключ"], ["日本"]))
    assert image.width > 192


def test_labels_that_do_not_fit_are_refused() -> None:
    picture = Image.new("RGB", (64, 64))
    with pytest.raises(ValueError, match="labels"):
        labelled_grid([[picture, picture]], Labels("t", ["only one"], ["r"]))
    with pytest.raises(ValueError, match="at least one picture"):
        labelled_grid([[None]], Labels("t", ["a"], ["r"]))
