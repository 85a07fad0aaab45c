"""From loose photos to a dataset: copies in a ``<repeats>_<trigger>`` folder; the originals are never touched."""

from __future__ import annotations

import math
import shutil
import unicodedata
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from PIL import Image

from lora_trainer.dataset.checks.limits import TWINS
from lora_trainer.dataset.checks.looks import FILE, Look, Looks
from lora_trainer.dataset.copies import Copied, write_record
from lora_trainer.dataset.crops import LARGEST, crop_to_subject
from lora_trainer.dataset.decode import image_endings, is_plain, read_image
from lora_trainer.dataset.findings import names
from lora_trainer.dataset.folders import side_by_side
from lora_trainer.dataset.foreign import is_foreign_image, unopened
from lora_trainer.dataset.images import resize
from lora_trainer.dataset.items import Skipped
from lora_trainer.dataset.layout import Listing, images_in, list_folder, parse_name, sorted_files
from lora_trainer.dataset.plans import PLANS, plan_for
from lora_trainer.dataset.texts import USUAL_ENDINGS, find_caption, read_lines
from lora_trainer.errors import DatasetError, FileError, counted, quoted
from lora_trainer.files import name_problem, replaced, write_text

OnStage = Callable[[int, int, str], None]  # images done, images in all, what is done to them
DATASETS = "datasets"  # copies of photos, in the output folder
MOST_REPEATS = 1000
MEASURED = (512, 512)  # px: enough to tell twins
EPOCHS = 10  # of the presets
USUAL_REPEATS = 10  # of the workflow for a first LoRA
LONGEST_STEM = 100  # characters


@dataclass(frozen=True)
class Prepared:
    """What was made of a person's photos."""

    folder: Path  # the dataset
    target: Path  # its <repeats>_<trigger> folder
    repeats: int
    images: int
    changed: int  # of these, how many were turned upright, brought to sRGB, made smaller or converted
    described: int  # how many came with a caption that says more than the trigger word
    cropped: int = 0  # to what is probably their subject
    twins: tuple[Path, ...] = ()  # left out: another one is nearly the same
    skipped: tuple[Skipped, ...] = ()  # can't be read
    masks: tuple[Path, ...] = ()  # of the photos, not of the copies
    nested: tuple[Path, ...] = ()  # sub-folders with images

    def lines(self) -> list[str]:
        """What was done, for a person."""
        told = f"{counted(self.images, 'image')} copied to {self.target}; {self.described or 'none'} had a caption"
        others = ", the others got the trigger word as theirs" if self.described else ", so each got the trigger word"
        lines = [f"{told}{others if self.described < self.images else ''}. Your originals are untouched."]
        if self.changed:
            how = "turned upright, brought to sRGB, made smaller, or saved as PNG"
            lines.append(f"{self.changed} of them {'was' if self.changed == 1 else 'were'} {how}, as needed.")
        if self.cropped:
            how = "was" if self.cropped == 1 else "were"
            lines.append(f"{self.cropped} of them {how} cropped to the subject; look at each, and undo what is wrong.")
        if self.twins:
            few = names([path.name for path in self.twins])
            lines.append(f"Left out, as another one is nearly the same: {counted(len(self.twins), 'image')} ({few}).")
        if self.masks:
            few = names([path.name for path in self.masks])
            lines.append(f"Not copied: {counted(len(self.masks), 'mask')} ({few}); make masks of the copies.")
        if self.nested:
            few = names([path.name for path in self.nested])
            lines.append(
                f"Not copied: the images in sub-folders ({few}); move them up, or prepare each folder by itself."
            )
        return [*lines, *(f"Not copied: {one.path.name} {one.reason}" for one in self.skipped), self.sum]

    @property
    def sum(self) -> str:
        """How many steps that makes."""
        return steps_sum(self.images, self.repeats, EPOCHS, 1)


def steps_sum(images: int, repeats: int, epochs: int, batch: int) -> str:
    """The sum in one line."""
    steps = math.ceil(images * repeats / batch) * epochs
    return f"{images} images × {repeats} repeats × {epochs} epochs ÷ batch size {batch} = {steps} steps."


def suggested_repeats(images: int, subject: str) -> int:
    """As many repeats as make about as many steps as the fewest images that are usual for such a subject make with the
    usual repeats; for many images fewer, for few images no more than twice the usual.

    Raises:
        ConfigError: if the kind isn't known; "" is any kind.
    """
    usual = (plan_for(subject) or PLANS["person"]).fewest * USUAL_REPEATS
    return max(1, min(2 * USUAL_REPEATS, round(usual / max(1, images))))


def prepare(
    sources: Sequence[Path],
    folder: Path,
    trigger: str,
    repeats: object = "",
    subject: str = "",
    output: Path | None = None,
    progress: OnStage | None = None,
    crops: bool = False,
) -> Prepared:
    """Copy pictures and the captions beside them into ``folder/<repeats>_<trigger>``.

    Of images that are nearly the same the largest is taken. A picture without a caption gets one that is the trigger
    word alone. Either all copies are there at the end, or none.

    Args:
        sources: a folder, or files (pictures and caption files of the same name).
        folder: the dataset; the ``<repeats>_<trigger>`` folder in it must be new.
        repeats: "" for as many as suit the number of images and the kind of subject.
        output: the folder that remembers what was seen of images; None forgets.
        crops: crop each copy to what is probably its subject; see :mod:`lora_trainer.dataset.crops`.
        progress: told how many images are done, of how many, and what is done to them; what it raises ends all.

    Raises:
        DatasetError, FileError, ConfigError: one sentence.
    """
    words = check_trigger(trigger)
    times = check_repeats(repeats) if str(repeats).strip() else 0
    suggested_repeats(0, subject)  # refuses an unknown kind
    listing = _listing(sources)
    skipped = [Skipped(file, unopened(file)) for file in listing.files if is_foreign_image(file)]
    with Looks(output / FILE if output is not None else None, MEASURED) as looks:
        pictures = _readable(listing.images, looks, skipped, progress or _untold)
        captioned = {path for path, _ in pictures if find_caption(path, listing.by_name, USUAL_ENDINGS)}
        chosen, twins = _without_twins(pictures, looks, captioned)
    if not chosen:
        raise DatasetError(_nothing(sources, skipped, [path for path in listing.folders if images_in(path)]))
    times = times or suggested_repeats(len(chosen), subject)
    target = folder / f"{times}_{words}"
    if (there := _same_word(folder, words)) is not None:
        raise DatasetError(f"{there} exists already, and nothing is added to it; give another folder or trigger word.")
    described, changed, cropped = _copy_all(chosen, listing, target, words, crops, progress or _untold)
    nested = tuple(path for path in listing.folders if path != folder and images_in(path))
    return Prepared(
        folder, target, times, len(chosen), changed, described, cropped, tuple(twins), tuple(skipped),
        tuple(listing.masks), nested,
    )  # fmt: skip


def _untold(done: int, total: int, what: str) -> None:
    """Nobody asks how far it is."""


def _readable(
    images: Sequence[Path], looks: Looks, skipped: list[Skipped], progress: OnStage
) -> list[tuple[Path, Look]]:
    def read(path: Path) -> Look | Skipped:
        try:
            status = path.stat()
            looks.size(path, status.st_size, status.st_mtime_ns)
            return looks.of(path)
        except OSError as error:
            return Skipped(path, f"can't be read ({error.strerror}); check its permissions.")
        except DatasetError as error:
            return Skipped(path, str(error))

    found: list[tuple[Path, Look]] = []
    for done, (path, seen) in enumerate(zip(images, side_by_side(read, images), strict=True), 1):
        if isinstance(seen, Skipped):
            skipped.append(seen)
        else:
            found.append((path, seen))
        progress(done, len(images), "Looking at photos")
    return found


def _without_twins(
    pictures: Sequence[tuple[Path, Look]], looks: Looks, described: Set[Path]
) -> tuple[list[Path], list[Path]]:
    """What is taken, in order, and what is left out; of twins of one size that which has a caption is taken."""
    groups = looks.twins([look.content for _, look in pictures], [look.thumbnail for _, look in pictures], TWINS.value)
    same: dict[str, list[int]] = {}
    for index, (_, look) in enumerate(pictures):
        same.setdefault(look.content, []).append(index)
    out: set[int] = set()
    for group in [*groups, *same.values()]:
        best = max(group, key=lambda index: (math.prod(pictures[index][1].size), pictures[index][0] in described))
        out.update(index for index in group if index != best)
    return (
        [path for index, (path, _) in enumerate(pictures) if index not in out],
        [pictures[index][0] for index in sorted(out)],
    )


def _same_word(folder: Path, words: str) -> Path | None:
    """A folder of this trigger word, with whatever repeats: beside it, the same photos would be trained twice."""
    there = [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    return next((path for path in there if (parse_name(path.name) or (0, ""))[1].casefold() == words.casefold()), None)


def _copy_all(
    pictures: Sequence[Path], listing: Listing, target: Path, words: str, crops: bool, progress: OnStage
) -> tuple[int, int, int]:
    """Into a folder of a temporary name first; how many were described, how many changed, and how many cropped."""
    making = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    described = changed = cropped = 0
    named = _unique(pictures)
    try:
        for done, (stem, picture) in enumerate(named, 1):
            if not picture.is_file():
                raise FileError(f"{picture} isn't there any more; drop the files again.")
            changed += _copy_picture(picture, making, stem)
            caption = find_caption(picture, listing.by_name, USUAL_ENDINGS)
            if caption is None:
                write_text(making / f"{stem}.txt", words)
            else:
                _copy(caption[0], making / f"{stem}.txt")
                described += _says_more(making / f"{stem}.txt", words)
            progress(done, len(pictures), "Copying photos")
        copies = {path.stem: path for path in making.iterdir() if path.suffix.lower() in image_endings()}
        write_record(making, {stem: Copied.of(picture, copies[stem]) for stem, picture in named})
        for done, path in enumerate(list_folder(making).images if crops else (), 1):
            cropped += crop_to_subject(path)
            progress(done, len(named), "Cropping photos")
        making.rename(target)
    except OSError as error:
        raise FileError(f"{target} can't be made ({error.strerror}); choose another folder.") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(making)
    return described, changed, cropped


def _copy_picture(picture: Path, folder: Path, stem: str) -> bool:
    """As it is where that is right; else upright, in sRGB, no larger than needed, as PNG. Whether it was changed."""
    if is_plain(picture, LARGEST * LARGEST):
        _copy(picture, folder / f"{stem}{picture.suffix.lower()}")
        return False
    colour, _ = read_image(picture)
    scale = math.sqrt(LARGEST * LARGEST / (colour.width * colour.height))
    if scale < 1:
        size = (max(1, round(colour.width * scale)), max(1, round(colour.height * scale)))
        colour = Image.fromarray(resize(colour, size))
    with replaced(folder / f"{stem}.png") as temporary:
        colour.save(temporary, "PNG")
    return True


def _says_more(caption: Path, words: str) -> bool:
    return any(line.casefold() != words.casefold() for line in read_lines(caption)[0])


def check_trigger(trigger: str, what: str = "trigger word") -> str:
    """The trigger word as a folder name can have it; ``what`` is how the sentence calls it.

    Raises:
        DatasetError: one sentence.
    """
    words = " ".join(trigger.split())
    if not words:
        raise DatasetError(f"The {what} is missing: give one, such as zwx_anna.")
    problem = name_problem(words)
    if problem:
        raise DatasetError(
            f"The {what} {quoted(words)} can't be used, because it names the folder and {problem}; use letters, "
            "digits, - and _."
        )
    return words


def check_repeats(repeats: object) -> int:
    """How often each picture is used in an epoch.

    Raises:
        DatasetError: one sentence.
    """
    text = str(repeats).strip().removesuffix(".0")
    if not text.isdigit() or not 1 <= int(text) <= MOST_REPEATS:
        raise DatasetError(f"Repeats can't be {quoted(text)}; give a whole number from 1 to {MOST_REPEATS}.")
    return int(text)


def free_folder(parent: Path, name: str) -> Path:
    """A folder that doesn't exist yet: with a number where one of that name does."""
    folder, number = parent / name, 2
    while folder.exists():
        folder, number = parent / f"{name}-{number}", number + 1
    return folder


def _listing(sources: Sequence[Path]) -> Listing:
    """Everything in the folder, or the files themselves."""
    if len(sources) == 1 and sources[0].is_dir():
        return list_folder(sources[0])
    return sorted_files([source for source in sources if not source.is_dir()])


def _nothing(sources: Sequence[Path], skipped: Sequence[Skipped], nested: Sequence[Path]) -> str:
    where = f" in {sources[0]}" if sources and sources[0].is_dir() else ""
    if skipped:
        return f"No image{where} can be copied: {skipped[0].path.name} {skipped[0].reason}"
    if nested:
        few = names([path.name for path in nested])
        return f"The images{where} are in its sub-folders ({few}); prepare one of those by itself."
    return f"There are no images{where} to copy; give a folder of photos or drop the files here."


def _unique(pictures: Sequence[Path]) -> list[tuple[str, Path]]:
    """A name for each copy: its own, with a number where two pictures would share a caption."""
    used: set[str] = set()
    named: list[tuple[str, Path]] = []
    for picture in pictures:
        own = unicodedata.normalize("NFC", picture.stem)[:LONGEST_STEM].strip(" .") or "image"
        stem, number = own, 2
        while stem.lower() in used:
            stem, number = f"{own}-{number}", number + 1
        used.add(stem.lower())
        named.append((stem, picture))
    return named


def _copy(source: Path, target: Path) -> None:
    with replaced(target) as temporary:
        shutil.copyfile(source, temporary)
