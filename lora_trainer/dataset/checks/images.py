"""What is said of the images themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_trainer.dataset.buckets import Placement, Size
from lora_trainer.dataset.checks import limits
from lora_trainer.dataset.checks.looks import Look, Looks
from lora_trainer.dataset.decode import is_animated
from lora_trainer.dataset.findings import Finding, Severity, names
from lora_trainer.dataset.items import ImageItem
from lora_trainer.errors import counted

Seen = Sequence[tuple[ImageItem, Look]]


def image_findings(seen: Seen, looks: Looks, resolution: Size) -> Iterator[Finding]:
    """All that there is to say of single images and of pairs.

    Args:
        resolution: (width, height) in px of training.
    """
    masks = [item.path for item, look in seen if look.two_toned >= limits.MASK.value]
    seen = [(item, look) for item, look in seen if look.two_toned < limits.MASK.value]
    yield from _told("mask", "warning", masks, len(seen), "black and white only, like a mask",
                     "move what is a mask out of the folder")  # fmt: skip
    yield from _animated(seen)
    yield from _twins(seen, looks)
    yield from _sizes(seen, resolution)
    yield from _pixels(seen)


def _pixels(seen: Seen) -> Iterator[Finding]:
    of = len(seen)

    def tell(kind: str, looking: list[Path], what: str, remedy: str) -> Iterator[Finding]:
        return _told(kind, "warning", looking, of, what, remedy)

    blurred = [item.path for item, look in seen if look.blur >= limits.BLUR.value]
    yield from tell("blur", blurred, "blurred even at the training resolution", "replace or leave out what isn't sharp")
    dark = [item.path for item, look in seen if look.exposure.lights < limits.TOO_DARK.value]
    yield from tell("underexposed", dark, "too dark", "brighten or replace what should be brighter")
    bright = [item.path for item, look in seen if _is_bright(look)]
    yield from tell("overexposed", bright, "too bright, with lost detail", "replace what is overexposed")
    bordered = [item.path for item, look in seen if max(look.borders) >= limits.BORDER.value]
    yield from tell("borders", bordered, "with a border or stripes, which are learned, too", "crop them off")
    packed = [
        item.path for item, look in seen if look.jpeg_quality is not None and look.jpeg_quality < limits.JPEG.value
    ]
    yield from tell(
        "jpeg", packed, f"compressed to less than JPEG quality {limits.JPEG.value:g}",
        "look for a better copy: the artefacts are learned, too",
    )  # fmt: skip


def _animated(seen: Seen) -> Iterator[Finding]:
    moving = [item.path for item, _ in seen if is_animated(item.path)]
    if moving:
        few = names([path.name for path in moving])
        reason = f"Of {counted(len(moving), 'animation')} only the first frame is used ({few})"
        yield Finding("animation", "info", reason, "save other frames as images to use them", tuple(moving))


def _is_bright(look: Look) -> bool:
    seen = look.exposure
    clipped = seen.clipped >= limits.TOO_BRIGHT.value and seen.outline < limits.ON_WHITE.value
    return clipped or seen.shadows >= limits.WASHED_OUT.value


def _twins(seen: Seen, looks: Looks) -> Iterator[Finding]:
    """The same image more than once: each group's largest one is the one to keep."""
    by_content: dict[str, list[ImageItem]] = {}
    for item, look in seen:
        by_content.setdefault(look.content, []).append(item)
    exact = [group for group in by_content.values() if len(group) > 1]
    thumbnails = {look.content: look.thumbnail for _, look in seen}
    contents = list(thumbnails)
    groups = looks.twins(contents, list(thumbnails.values()), limits.TWINS.value)
    near = [[by_content[contents[index]][0] for index in group] for group in groups]
    for kind, found, what in (("duplicate", exact, "the same file as"), ("near_duplicate", near, "nearly the same as")):
        if not found:
            continue
        kept = [max(group, key=_pixels_of) for group in found]
        extra = [item.path for group, keep in zip(found, kept, strict=True) for item in group if item is not keep]
        first = next(item for item in found[0] if item is not kept[0])
        subject = f"{counted(len(extra), 'image')} {'is' if len(extra) == 1 else 'are'}"
        yield Finding(
            kind, "warning",
            f"{subject} {what} another one (such as {first.path.name} and {kept[0].path.name}), "
            "which counts it twice",
            "set them aside", tuple(extra),
        )  # fmt: skip


def _pixels_of(item: ImageItem) -> int:
    return item.size[0] * item.size[1]


def _sizes(seen: Seen, resolution: Size) -> Iterator[Finding]:
    area = resolution[0] * resolution[1]
    at = f"{resolution[0]}x{resolution[1]} px"
    tiny = [item.path for item, _ in seen if _pixels_of(item) < limits.TINY.value * area]
    small = [item.path for item, _ in seen if limits.TINY.value * area <= _pixels_of(item) < limits.SMALL.value * area]
    remedy = "use larger originals, or train at a lower resolution"
    half: Severity = "error" if 2 * len(tiny) > len(seen) else "warning"
    yield from _told("too_small", half, tiny, len(seen), f"less than half as large as the training resolution ({at})",
                     remedy)  # fmt: skip
    yield from _told("small", "warning", small, len(seen), f"smaller than the training resolution ({at})", remedy)
    cut = [item.path for item, _ in seen if lost(item.size, item.placement) >= limits.CUT.value]
    yield from _told(
        "cut", "warning", cut, len(seen), f"cut by more than {limits.CUT.value:.0%} to fit their bucket",
        "crop them yourself, so that the subject stays whole",
    )  # fmt: skip
    buckets = Counter(item.bucket for item, _ in seen)
    alone = sum(uses == 1 for uses in buckets.values())
    if len(seen) > 3 and alone > limits.ALONE.value * len(seen):
        sizes = ", ".join(f"{width}x{height}" for (width, height), _ in buckets.most_common(4))
        yield Finding(
            "aspect_ratios", "info",
            f"The images have {len(buckets)} different shapes ({sizes}{', …' if len(buckets) > 4 else ''}), so that "
            "hardly any share a batch", "crop them to a few shapes",
        )  # fmt: skip


def lost(size: Size, placement: Placement) -> float:
    """The share of an image that its bucket's crop cuts off."""
    resized, bucket = placement.resized, placement.bucket
    return 1 - bucket[0] * bucket[1] / (resized[0] * resized[1])


def _told(kind: str, severity: Severity, files: list[Path], of: int, what: str, remedy: str) -> Iterator[Finding]:
    if files:
        subject = f"{len(files)} of {counted(of, 'image')}" if of > 1 else "The only image"
        verb = "is" if len(files) == 1 or of <= 1 else "are"
        few = f" ({names([path.name for path in files])})"
        yield Finding(kind, severity, f"{subject} {verb} {what}{few}", remedy, tuple(files))
