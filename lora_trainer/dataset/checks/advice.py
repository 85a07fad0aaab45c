"""What is said of the images together, and of what training does with them: what doesn't belong, what never changes,
what mirroring and cropping spoil."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_trainer.dataset.buckets import crop_box
from lora_trainer.dataset.checks import limits
from lora_trainer.dataset.checks.images import Seen, lost
from lora_trainer.dataset.checks.looks import Look, Looks
from lora_trainer.dataset.checks.outliers import FEWEST
from lora_trainer.dataset.findings import Finding, names
from lora_trainer.dataset.folders import side_by_side
from lora_trainer.dataset.items import ImageItem
from lora_trainer.dataset.remarks import plain
from lora_trainer.dataset.subject import Box
from lora_trainer.errors import counted, quoted

SCREENSHOT = re.compile(
    r"screen.?shot|bildschirmfoto|capture d.écran|captura de pantalla|屏幕截图|スクリーンショット", re.IGNORECASE
)
LETTERING = frozenset({"text", "logo", "lettering", "writing", "letters", "watermark", "sign", "tattoo", "numbers"})
FACES = ("person", "character")


def advice(seen: Seen, looks: Looks, subject: str) -> Iterator[Finding]:
    """All of it, for training images.

    Args:
        subject: person, character, style, object or concept; "" where nobody said.
    """
    items = [item for item, _ in seen]
    yield from _outliers(seen, looks)
    yield from _backgrounds(seen, looks, subject)
    yield from _marked(seen, looks)
    yield from _unchanging(items)
    yield from _screenshots(items)
    yield from _mirrored(items, subject)
    yield from _subjects(items, looks)


def _outliers(seen: Seen, looks: Looks) -> Iterator[Finding]:
    odd = looks.oddness([look.content for _, look in seen], [look.thumbnail for _, look in seen])
    files = tuple(item.path for (item, _), one in zip(seen, odd, strict=True) if one >= limits.ODD.value)
    if files:
        one = len(files) == 1
        told = f"{counted(len(files), 'image')} {'looks' if one else 'look'} like none of the others"
        few = names([path.name for path in files])
        yield Finding("outlier", "info", f"{told} ({few})", "look whether they belong here", files)


def _backgrounds(seen: Seen, looks: Looks, subject: str) -> Iterator[Finding]:
    """Images before what looks like one background."""
    apart = looks.backgrounds([look.content for _, look in seen], [look.thumbnail for _, look in seen])
    files = tuple(item.path for (item, _), one in zip(seen, apart, strict=True) if one < limits.SAME.value)
    if files and len(files) >= limits.ONE_BACKGROUND.value * len(seen):
        yield Finding(
            "variety", "info",
            f"{len(files)} of {len(seen)} images have a background of nearly the same colours "
            f"({names([path.name for path in files])}), which is learned as part of the {subject or 'subject'}",
            "add images from other places, or name the background in the captions", files,
        )  # fmt: skip


def _marked(seen: Seen, looks: Looks) -> Iterator[Finding]:
    """Watermarks, dates and logos: the same marks at the same place of nearly all images of one shape."""
    shapes: dict[float, list[tuple[ImageItem, Look]]] = {}
    for item, look in seen:
        if max(look.borders) < limits.BORDER.value:  # whose edges are at the same place, too
            shapes.setdefault(round(item.size[0] / item.size[1], 1), []).append((item, look))
    files: list[Path] = []
    places: dict[str, None] = {}
    for same in shapes.values():
        box, shares = looks.marks([look.content for _, look in same], [look.marks for _, look in same])
        if box is not None:
            files += [item.path for (item, _), share in zip(same, shares, strict=True) if share >= limits.MARKED.value]
            places[_place(box)] = None
    if files:
        yield Finding(
            "watermark", "warning",
            f"{len(files)} of {len(seen)} images have the same marks {' and '.join(places)} "
            f"({names([path.name for path in files])}), such as a watermark, a date or a logo, which is learned, too",
            "crop them off, or use images without them", tuple(files),
        )  # fmt: skip


def _place(box: Box) -> str:
    """Where a box is, in words."""
    across, down = box[0] + box[2], box[1] + box[3]  # twice the middle
    side = "left" if across < 2 / 3 else "right" if across > 4 / 3 else ""
    height = "top" if down < 2 / 3 else "bottom" if down > 4 / 3 else ""
    return f"at the {f'{height} {side}'.strip()}" if height or side else "in the middle"


def _unchanging(items: Sequence[ImageItem]) -> Iterator[Finding]:
    """Tags that nearly all captions have, beside the trigger word."""
    written = [item for item in items if item.caption_source == "file"]
    if len(written) < FEWEST:
        return
    counts = Counter(tag for item in written for tag in {plain(tag) for tag in item.captions[0].split(",")}
                     if tag and plain(item.trigger) not in tag)  # fmt: skip
    always = [tag for tag, uses in counts.most_common() if uses >= limits.ALWAYS.value * len(written)]
    if always:
        tags = names([quoted(tag) for tag in always])
        yield Finding(
            "unchanging", "info", f"Nearly every caption says {tags}",
            "what is in all images comes up by itself later; vary it, or leave it out of the captions if it belongs to "
            "the subject", tuple(item.path for item in written if always[0] in map(plain, item.captions[0].split(","))),
        )  # fmt: skip


def _screenshots(items: Sequence[ImageItem]) -> Iterator[Finding]:
    files = tuple(item.path for item in items if SCREENSHOT.search(item.path.name))
    if files:
        like = "is named like a screenshot" if len(files) == 1 else "are named like screenshots"
        told = f"{counted(len(files), 'file')} {like} ({names([path.name for path in files])})"
        yield Finding("screenshot", "info", told, "crop bars and buttons off: they are learned, too", files)


def _mirrored(items: Sequence[ImageItem], subject: str) -> Iterator[Finding]:
    mirrored = [item for item in items if item.folder.config.flip_aug]
    if not mirrored:
        return
    off = "switch flip_aug off"
    if subject in FACES:
        yield Finding(
            "flip", "warning",
            "Half of the images are mirrored (flip_aug), but no face is the same on both sides: partings and moles "
            "change places", off, tuple(item.path for item in mirrored),
        )  # fmt: skip
    words = [item.path for item in mirrored if LETTERING & {*re.findall(r"[a-z]+", " ".join(item.captions).lower())}]
    if words:
        few = names([path.name for path in words])
        told = f"{counted(len(words), 'caption')} mention lettering ({few}), which is mirrored, too (flip_aug)"
        yield Finding("flip_text", "warning", told, off, tuple(words))


def _subjects(items: Sequence[ImageItem], looks: Looks) -> Iterator[Finding]:
    """Images whose probable subject the bucket's crop cuts."""
    cropped = [item for item in items if lost(item.size, item.placement) >= limits.CUT.value]
    left = side_by_side(lambda item: kept(item, looks.subject(item.path)), cropped)
    cut = tuple(item.path for item, share in zip(cropped, left, strict=True) if share < limits.SUBJECT.value)
    if cut:
        few = names([path.name for path in cut])
        verb = "loses" if len(cut) == 1 else "lose"
        told = f"{counted(len(cut), 'image')} probably {verb} a part of the subject in the crop to the bucket ({few})"
        yield Finding("subject_cut", "info", told, "look at them as training sees them, and crop them yourself", cut)


def kept(item: ImageItem, subject: Box) -> float:
    """The share of the subject's box that the bucket's centre crop keeps."""
    (width, height), crop = item.placement.resized, crop_box(*item.placement)
    inside = (crop[0] / width, crop[1] / height, crop[2] / width, crop[3] / height)
    wide = min(inside[2], subject[2]) - max(inside[0], subject[0])
    high = min(inside[3], subject[3]) - max(inside[1], subject[1])
    area = (subject[2] - subject[0]) * (subject[3] - subject[1])
    return max(0.0, wide) * max(0.0, high) / area if area else 1.0
