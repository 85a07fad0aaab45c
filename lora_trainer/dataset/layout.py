"""kohya's folder layout: which sub-folders are trained, how often, with which words, and what lies in them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lora_trainer.config import CaptionConfig, DatasetConfig
from lora_trainer.dataset.decode import image_endings
from lora_trainer.dataset.findings import Finding, Severity, names
from lora_trainer.dataset.foreign import is_foreign_image, unopened
from lora_trainer.dataset.items import Folder, Skipped
from lora_trainer.dataset.texts import USUAL_ENDINGS, folded
from lora_trainer.errors import DatasetError, LooseImagesError, counted

_NAME = re.compile(r"\s*\+?(\d+)\s*(?:_(.*))?", re.DOTALL)  # whatever sd-scripts reads: int() of what is before the _
_MASKS = ("-masklabel", "-condlabel")  # OneTrainer's masks and conditions, beside the picture that they belong to
PLAUSIBLE_REPEATS = 1000  # more than this is doubted
SET_ASIDE = "set-aside"  # a folder of what a remedy took out of the dataset
MOST_REPEATS = 10**9
UNREADABLE = "check its permissions"
_SIDECARS = frozenset({".npz", ".json", ".db", ".ini"})  # caches and notes of other trainers and file managers


class UnreadableFolderError(DatasetError):
    """A folder that is there, but can't be read."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.reason = f"The folder {path} can't be read ({error.strerror})"
        super().__init__(f"{self.reason}; {UNREADABLE}.")


@dataclass
class Listing:
    """What lies directly in a folder."""

    images: list[Path] = field(default_factory=list)  # sorted by name
    masks: list[Path] = field(default_factory=list)  # images that only say something of another one
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    @cached_property
    def by_name(self) -> dict[str, Path]:
        """Every file by its name, and by its folded name where no other file has that very name."""
        names = {path.name: path for path in self.files}
        return {**{folded(path.name): path for path in self.files}, **names}


def list_folder(path: Path) -> Listing:
    """Files and folders directly in ``path``, sorted by name, without hidden ones.

    Raises:
        DatasetError: if the folder isn't there or can't be read.
    """
    files: list[Path] = []
    folders: list[Path] = []
    try:
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not entry.name.startswith((".", "__MACOSX", "desktop.ini", "Thumbs.db")):
                    (folders if _is_folder(entry) else files).append(Path(entry.path))
    except FileNotFoundError:
        raise DatasetError(f"The folder {path} doesn't exist; check its path.") from None
    except NotADirectoryError:
        raise DatasetError(f"{path} is a file; give the folder that holds your <repeats>_<trigger> folders.") from None
    except OSError as error:
        raise UnreadableFolderError(path, error) from error
    listing = sorted_files(files)
    listing.folders = folders
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere or to itself is a file, which then can't be read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def sorted_files(files: Sequence[Path]) -> Listing:
    """What files are by their names: pictures, masks, or something else."""
    images = [file for file in files if file.suffix.lower() in image_endings()]
    stems = {image.stem.lower() for image in images}
    masks = [image for image in images if _is_mask(image, stems)]
    apart = set(masks)
    return Listing([image for image in images if image not in apart], masks, list(files))


def _is_mask(image: Path, stems: set[str]) -> bool:
    stem = image.stem.lower()
    return any(stem.endswith(mask) and stem.removesuffix(mask) in stems for mask in _MASKS)


def parse_name(name: str) -> tuple[int, str] | None:
    """Repeats and words of a ``<repeats>_<words>`` folder name; None if it is named otherwise.

    As sd-scripts reads it: ``10`` has repeats and no words, and ``3 _word`` is ``3_word``. Words that aren't UTF-8 are
    read as Windows-1252, like captions.
    """
    match = _NAME.fullmatch(name)
    if not match:
        return None
    words = os.fsencode(match.group(2) or "")
    try:
        text = words.decode("utf-8")
    except UnicodeDecodeError:
        text = words.decode("cp1252", "replace")
    return int(match.group(1)), text.strip()


def find_folders(
    directory: Path,
    is_reg: bool,
    findings: list[Finding],
    config: DatasetConfig | None = None,
    caption: CaptionConfig | None = None,
) -> list[tuple[Folder, Listing]]:
    """The folders to train on, with what lies in them. What is ignored goes into ``findings``.

    Raises:
        DatasetError: if there is none; says what to rename.
    """
    config, caption = config or DatasetConfig(), caption or CaptionConfig()

    def folder_of(path: Path, parsed: tuple[int, str]) -> Folder:
        return replace(_folder(path, parsed, is_reg), config=config, caption=caption)

    listing = list_folder(directory)
    found: list[tuple[Folder, Listing]] = []
    refused: UnreadableFolderError | None = None
    for path in listing.folders:
        parsed = parse_name(path.name)
        if parsed and parsed[0]:
            try:
                found.append((folder_of(path, parsed), list_folder(path)))
            except UnreadableFolderError as error:
                refused = error
                findings.append(Finding("unreadable_folder", "error", error.reason, UNREADABLE, (path,)))
        elif path.name == SET_ASIDE:
            findings += _set_aside(path)
        elif images := images_in(path):
            findings.append(_ignored(path, images, parsed is not None))
    itself = directory.resolve()  # whose name counts, also of "." and of a link
    parsed = parse_name(itself.name)
    if found:
        if listing.images:
            ignored = f"{_count(len(listing.images), 'image')} ignored: images directly in {directory} aren't used"
            remedy = "move them into a <repeats>_<trigger> folder to train on them"
            findings.append(Finding("loose_images", "warning", ignored, remedy, tuple(listing.images)))
    elif listing.images and parsed and parsed[0]:
        found.append((folder_of(itself, parsed), list_folder(itself)))
        told = f"{directory} is itself a <repeats>_<trigger> folder"
        findings.append(Finding("single_folder", "info", told, "it is used as the whole dataset"))
        findings += [one for path in listing.folders if path.name == SET_ASIDE for one in _set_aside(path)]
    if not found:
        raise refused or (LooseImagesError if listing.images else DatasetError)(_what_to_rename(directory, listing))
    for folder, inside in found:
        if folder.repeats > PLAUSIBLE_REPEATS and inside.images:
            often = f"{folder.name} repeats each of its images {folder.repeats} times per epoch, as its name says"
            remedy = (
                "if that number means something else, such as a date, rename the folder, for instance to "
                f"{suggested_name(folder.name)}"
            )
            findings.append(Finding("repeats", "error", often, remedy, (folder.path,)))
    return found


def _folder(path: Path, parsed: tuple[int, str], is_reg: bool) -> Folder:
    repeats, words = parsed
    if repeats > MOST_REPEATS:
        raise DatasetError(
            f"The folder {path.name} asks for {repeats} repeats of each image; rename it, for instance to "
            f"{suggested_name(path.name)}."
        )
    return Folder(path, repeats, words, is_reg)


def leftovers(folder: Path, listing: Listing, endings: tuple[str, ...], findings: list[Finding]) -> list[Skipped]:
    """Images in formats that can't be read, as skipped; everything else that is ignored goes into
    ``findings``."""
    skipped: list[Skipped] = []
    others: list[Path] = []
    stems = {folded(image.stem) for image in listing.images}
    orphans: list[Path] = []
    unread: list[Path] = []
    for path in listing.files:
        ending = path.suffix.lower()
        if ending in image_endings() or ending in _SIDECARS:
            continue
        if is_foreign_image(path):
            skipped.append(Skipped(path, unopened(path)))
        elif any(folded(path.name).endswith(caption.lower()) for caption in endings):
            if not any(
                folded(path.name) == stem + caption.lower() for caption in endings for stem in _stems(path, stems)
            ):
                orphans.append(path)
        elif ending in USUAL_ENDINGS and folded(path.stem) in stems:
            unread.append(path)
        else:
            others.append(path)

    def tell(kind: str, severity: Severity, paths: list[Path], reason: str, remedy: str = "") -> None:
        if paths:
            findings.append(Finding(kind, severity, f"{folder.name}: {reason}", remedy, tuple(paths)))

    def few(paths: list[Path]) -> str:
        return names([path.name for path in paths])

    captions = _count(len(orphans), "caption file")
    tell("orphan_captions", "warning", orphans, f"{captions} ignored: no image has that name ({few(orphans)})")
    tell(
        "unread_captions", "warning", unread,
        f"{_count(len(unread), 'caption file')} not read ({few(unread)}), because caption_extension is {endings[0]}",
        f"set it to {unread[0].suffix} to use them" if unread else "",
    )  # fmt: skip
    kinds = ", ".join(sorted({path.suffix.lower() or "no extension" for path in others}))
    tell(
        "other_files",
        "info",
        others,
        f"{_count(len(others), 'file')} ignored, being neither image nor caption ({kinds})",
    )
    nested = [path for path in listing.folders if path.name != SET_ASIDE and images_in(path)]
    tell(
        "nested_images", "warning", nested,
        f"images in its sub-folders ({few(nested)}) are ignored", "move them up to train on them",
    )  # fmt: skip
    return skipped


def _list_if_readable(path: Path) -> Listing:
    try:
        return list_folder(path)
    except DatasetError:  # a folder that isn't part of the dataset needn't be readable
        return Listing()


def images_in(path: Path) -> int:
    """How many images lie directly in a folder; 0 where it can't be read."""
    return len(_list_if_readable(path).images)


def _stems(path: Path, stems: set[str]) -> list[str]:
    """Stems of images that could own this caption file: its name up to each dot."""
    parts = folded(path.name).split(".")
    return [stem for n in range(1, len(parts)) if (stem := ".".join(parts[:n])) in stems]


def _count(number: int, noun: str) -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def _ignored(path: Path, images: int, zero_repeats: bool) -> Finding:
    why = "its name says 0 repeats" if zero_repeats else "its name doesn't begin with a number of repeats"
    ignored = f"The folder {path.name} with {counted(images, 'image')} is ignored because {why}"
    remedy = f"rename it, for instance to {suggested_name(path.name)}, to train on it"
    return Finding("ignored_folder", "warning", ignored, remedy, (path,))


def _set_aside(path: Path) -> list[Finding]:
    images = len(_list_if_readable(path).images)
    told = f"{counted(images, 'image')} set aside, in the folder {path.name}"
    return [Finding("set_aside", "info", told, "undo brings them back", (path,))] if images else []


def suggested_name(name: str) -> str:
    """A name with which a folder would be trained on as is usual."""
    parsed = parse_name(name)
    return f"10_{(parsed[1] if parsed else name) or 'myword'}"


def _what_to_rename(directory: Path, listing: Listing) -> str:
    """The sentence for a folder without any ``<repeats>_<trigger>`` folder: the most likely remedy."""
    if listing.images:
        return (
            f"{directory} holds images, but its name gives neither repeats nor trigger word; rename it to "
            f"<repeats>_<trigger>, for instance {suggested_name(directory.resolve().name)}, or move the images into a "
            "sub-folder with such a name."
        )
    for path in listing.folders:
        if any(parse_name(inner.name) for inner in _list_if_readable(path).folders):
            return f"{directory} has no <repeats>_<trigger> folder, but {path} does; give {path} as the dataset."
    for path in listing.folders:
        if images_in(path):
            return (
                f"No folder in {directory} is named <repeats>_<trigger>; rename {path.name}, for instance to "
                f"{suggested_name(path.name)}."
            )
    return (
        f"{directory} holds no images; put them into a sub-folder named <repeats>_<trigger>, for instance 10_mytrigger."
    )
