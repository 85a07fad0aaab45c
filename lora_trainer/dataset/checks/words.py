"""What is said of the captions of a whole dataset; :mod:`lora_trainer.dataset.remarks` looks at each folder's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lora_trainer.dataset.findings import Finding, names
from lora_trainer.dataset.items import ImageItem
from lora_trainer.dataset.remarks import plain
from lora_trainer.errors import quoted


def caption_findings(items: Sequence[ImageItem], trigger: str) -> Iterator[Finding]:
    """Of training images that have a caption file.

    Args:
        trigger: the word that the LoRA will be called by; "" for the folders' own words.
    """
    written = [item for item in items if item.caption_source == "file"]
    bare = [item.path for item in written if is_bare(item)]
    if bare:
        some = "The only caption is" if len(written) == 1 else f"{len(bare)} of {len(written)} captions are"
        yield Finding(
            "caption_bare", "warning",
            f"{some} the folder's words and nothing else ({names([path.name for path in bare])}); whatever else is in "
            "these images is learned as part of them", "describe what is to stay changeable", tuple(bare),
        )  # fmt: skip
    yield from _other_trigger(items, trigger)
    yield from _spellings(written)


def is_bare(item: ImageItem) -> bool:
    """Whether a caption says only what its folder's name says."""
    return all(plain(line).strip(" ,") == plain(item.trigger) for line in item.captions)


def _other_trigger(items: Sequence[ImageItem], trigger: str) -> Iterator[Finding]:
    """A trigger word that isn't a folder's own, which :mod:`lora_trainer.dataset.remarks` speaks of."""
    word = plain(trigger)
    captioned = [item for item in items if item.captions]
    if not word or not captioned or any(word == plain(item.trigger) for item in captioned):
        return
    without = [item.path for item in captioned if word not in plain(item.captions[0])]
    if without:
        yield Finding(
            "trigger_missing", "error" if len(without) == len(captioned) else "warning",
            f"{len(without)} of {len(captioned)} captions don't contain the trigger word “{trigger.strip()}”",
            "to put it before every caption, write it, with a comma, into Advanced → Captions → Caption prefix",
            tuple(without),
        )  # fmt: skip


def _spellings(written: Sequence[ImageItem]) -> Iterator[Finding]:
    """One tag written in several ways is several tags to the model."""
    ways: dict[str, Counter[str]] = {}
    for item in written:
        for tag in {tag.strip() for line in item.captions for tag in line.split(",") if tag.strip()}:
            ways.setdefault(plain(tag).replace("-", " "), Counter())[tag.casefold()] += 1
    mixed = [sorted(spelt, key=lambda tag: -spelt[tag]) for spelt in ways.values() if len(spelt) > 1]
    if mixed:
        example = " and ".join(map(quoted, mixed[0][:2]))
        more = f" and {len(mixed) - 1} more" if len(mixed) > 1 else ""
        tags = {tag for spelt in mixed for tag in spelt}
        files = [item.path for item in written if any(tag.strip().casefold() in tags for line in item.captions
                                                      for tag in line.split(","))]  # fmt: skip
        reason = f"One thing is written in different ways: {example}{more}"
        yield Finding("caption_spelling", "info", reason, "choose one of them", tuple(files))
