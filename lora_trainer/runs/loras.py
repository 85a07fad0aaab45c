"""The LoRA files that a run has written: found by their names, told from others' by the session that they carry."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from lora_trainer.training.folder import RunFolder
from lora_trainer.training.taken import session_of

SAVED = r"-(\d{6}|step\d{8}|ema|was(-\d+)?)"  # endings of a run's other files; "was": what the LoRA was before


def named(place: Path, name: str) -> list[Path]:
    """The files of that name in a folder, whoever wrote them."""
    with suppress(OSError):
        names = rf"{re.escape(name)}({SAVED})?\.safetensors"
        return [path for path in sorted(place.iterdir()) if re.fullmatch(names, path.name)]
    return []


def written(folder: RunFolder, place: Path) -> list[Path]:
    """Those of them that the run wrote; all, where version 0.1 began it, which noted no session."""
    own = folder.sessions()
    return [path for path in named(place, folder.name) if own is None or session_of(path) in own]
