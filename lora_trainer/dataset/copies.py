"""Which photo each of the copies in a folder came from, as :mod:`lora_trainer.dataset.prepare` notes it beside them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.dataset.subject import Box, box_of
from lora_trainer.errors import ConfigError, FileError, shown
from lora_trainer.files import file_sha256, read_object, write_json

RECORD = ".prepared.json"  # in the folder of the copies


@dataclass(frozen=True)
class Copied:
    """What is remembered of one copy."""

    source: str  # the photo; "" where its path can't be written down
    bytes: int  # of the photo
    changed: int  # ns
    crop: Box | None = None
    rotation: int = 0  # degrees clockwise, against the photo; 0, 90, 180 or 270
    cut: str = ""  # SHA-256 of the copy as it was left here, by which a later change by others is noticed

    @classmethod
    def of(cls, source: Path, copy: Path) -> Copied:
        """A copy of that photo."""
        status = source.stat()
        path = str(source.absolute())
        known = path if shown(path) == path else ""
        return cls(known, status.st_size, status.st_mtime_ns, cut=file_sha256(copy))

    @property
    def edited(self) -> bool:
        """Whether it was cropped or rotated here."""
        return self.crop is not None or self.rotation != 0

    def photo(self) -> Path | None:
        """The photo, if it is there as it was."""
        if not self.source:
            return None
        path = Path(self.source)
        with suppress(OSError):
            status = path.stat()
            if (status.st_size, status.st_mtime_ns) == (self.bytes, self.changed):
                return path
        return None


def write_record(folder: Path, copies: Mapping[str, Copied]) -> None:
    """Remember the copies in a folder, by the stems of their names."""
    rows = {shown(stem): vars(copied) for stem, copied in copies.items()}
    write_json(folder / RECORD, {"version": 1, "copies": rows})


def read_record(folder: Path) -> dict[str, Copied]:
    """The copies in a folder by their stems; none where :func:`write_record` wasn't at work.

    Raises:
        FileError: if the record is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        return {}
    try:
        rows = read_object(file)["copies"]
        return {
            stem: Copied(
                str(row["source"]), int(row["bytes"]), int(row["changed"]),
                box_of(row["crop"]) if row["crop"] else None, int(row.get("rotation", 0)) % 360 // 90 * 90,
                str(row.get("cut", "")),
            )
            for stem, row in rows.items()
        }  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise FileError(f"{file} is damaged; prepare the photos again to crop them.") from error
