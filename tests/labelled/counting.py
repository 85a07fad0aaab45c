"""The cases of each check, and how often it is right."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lora_trainer.config import DatasetConfig
from lora_trainer.dataset.buckets import place
from lora_trainer.dataset.checks.images import image_findings
from lora_trainer.dataset.checks.limits import TWINS
from lora_trainer.dataset.checks.looks import Look, Looks
from lora_trainer.dataset.items import Folder, ImageItem
from lora_trainer.errors import DatasetError
from tests.labelled import changes

RESOLUTION = (512, 512)
FOLDER = Folder(Path("1_x"), 1, "x")


@dataclass
class Count:
    """How often a check was right."""

    check: str
    right: int = 0  # it spoke, and should have
    wrong: int = 0  # it spoke, and shouldn't have
    missed: int = 0  # it should have spoken
    silent: int = 0  # rightly
    faults: tuple[str, ...] = ()

    def add(self, spoke: bool, should: bool, name: str) -> None:
        """One case."""
        self.right += spoke and should
        self.wrong += spoke and not should
        self.missed += should and not spoke
        self.silent += not spoke and not should
        if spoke != should:
            self.faults += (f"{name}: {'spoke' if spoke else 'missed'}",)

    @property
    def cases(self) -> int:
        """All of them."""
        return self.right + self.wrong + self.missed + self.silent

    @property
    def precision(self) -> float:
        """Of what it said, the share that was right."""
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Of what it should have said, the share that it did say."""
        return self.right / max(1, self.right + self.missed)


def counts(photographs: dict[str, Image.Image], folder: Path) -> list[Count]:
    """Every check on cases of these photographs.

    Args:
        folder: an empty one for the files.
    """
    found = [
        _single("blur", ("blur",), changes.blur_cases, photographs, folder),
        _single("exposure", ("underexposed", "overexposed"), changes.exposure_cases, photographs, folder),
        _single("borders", ("borders",), changes.border_cases, photographs, folder),
    ]
    return [*found, _twins(photographs, folder), _unreadable(photographs, folder)]


def _single(
    check: str,
    kinds: tuple[str, ...],
    cases: Callable[[Image.Image], Iterator[changes.Case]],
    photographs: dict[str, Image.Image],
    folder: Path,
) -> Count:
    count = Count(check)
    for name, photograph in photographs.items():
        for what, should, picture in cases(photograph):
            spoke = kinds_of([saved(picture, folder / "case.bmp")]).intersection(kinds)
            count.add(bool(spoke), should, f"{name}, {what}")
    return count


def saved(picture: Image.Image, path: Path) -> Path:
    """The picture as a file without loss."""
    picture.save(path)
    return path


def seen(paths: list[Path], looks: Looks) -> list[tuple[ImageItem, Look]]:
    """Images as the check of a dataset sees them."""
    result = []
    for path in paths:
        status = path.stat()
        size = looks.size(path, status.st_size, status.st_mtime_ns)
        item = ImageItem(path, FOLDER, 1, ("x",), "file", size, place(size, DatasetConfig(resolution=RESOLUTION)))
        result.append((item, looks.of(path)))
    return result


def kinds_of(paths: list[Path]) -> set[str]:
    """The kinds of findings of some images."""
    with Looks(None, RESOLUTION) as looks:
        return {finding.kind for finding in image_findings(seen(paths, looks), looks, RESOLUTION)}


def _twins(photographs: dict[str, Image.Image], folder: Path) -> Count:
    """All in one folder: each changed copy and its photograph are a pair to be found; pairs of different photographs,
    and a photograph with a small part of it, are none."""
    count, files = Count("near-duplicates"), []  # photograph, what was done, kind of case
    for name, photograph in photographs.items():
        made = [
            ("", photograph, "original"),
            *((what, picture, "twin") for what, picture in changes.twins(photograph, name)),
        ]
        made += [(what, picture, "part") for what, picture in changes.relatives(photograph)]
        for what, picture, kind in made:
            files.append((name, what, kind, saved(picture, folder / f"{len(files)}.bmp")))
    with Looks(None, RESOLUTION) as looks:
        items = seen([path for *_, path in files], looks)
        contents, thumbnails = [look.content for _, look in items], [look.thumbnail for _, look in items]
        groups = looks.twins(contents, thumbnails, TWINS.value)
    group = {index: number for number, members in enumerate(groups) for index in members}
    for i, (name, what, kind, _) in enumerate(files):
        for j, (other, another, its_kind, _) in enumerate(files[:i]):
            kinds = {kind, its_kind}
            if name == other and kinds not in ({"original", "twin"}, {"original", "part"}):
                continue  # two changed copies: nobody says how much alike they still are
            joined = i in group and group.get(i) == group.get(j)
            count.add(joined, name == other and "part" not in kinds, f"{name} {what} and {other} {another}")
    return count


def _unreadable(photographs: dict[str, Image.Image], folder: Path) -> Count:
    """Broken files, and whole ones under a wrong name."""
    count = Count("unreadable files")
    for name, photograph in photographs.items():
        files = {ending: _bytes(photograph, ending) for ending in ("JPEG", "PNG", "WEBP")}
        jpeg, png = files["JPEG"], files["PNG"]
        cases = {
            "JPEG": (jpeg, False), "PNG": (png, False), "WebP": (files["WEBP"], False),
            "JPEG named .png": (jpeg, False),
            "cut JPEG": (jpeg[: len(jpeg) * 2 // 3], True), "cut PNG": (png[: len(png) * 2 // 3], True),
            "empty": (b"", True), "text": (b"a caption, no image", True), "half a header": (png[:20], True),
        }  # fmt: skip
        for what, (content, should) in cases.items():
            path = folder / "file.png"
            path.write_bytes(content)
            try:
                kinds_of([path])
                spoke = False
            except DatasetError:
                spoke = True
            count.add(spoke, should, f"{name}, {what}")
    return count


def _bytes(picture: Image.Image, ending: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, ending)
    return file.getvalue()
