"""The training images of datasets by their ids: a page with thousands of them asks for one after the other, and the
folders aren't listed for each."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.dataset.folders import training_folders
from lora_trainer.errors import shown

MOST = 4  # datasets

_seen: dict[Path, tuple[dict[Path, int], dict[str, Path]]] = {}  # of each: its folders' times of change, its images


def find_image(dataset: Path, id: str) -> Path | None:
    """The image of an id, ``<folder>/<name>``; None if there is none. A dataset that changed is listed anew.

    Raises:
        DatasetError: if there is no such dataset.
    """
    changed, images = _seen.get(dataset, ({}, {}))
    image = images.get(id)
    if image is None or not image.is_file() or any(_changed(path) != time for path, time in changed.items()):
        image = _listed(dataset).get(id)
    return image


def _listed(dataset: Path) -> dict[str, Path]:
    changed = {dataset: _changed(dataset)}  # before it is listed: what changes meanwhile is noticed the next time
    found = training_folders(dataset)
    changed |= {folder.path: _changed(folder.path) for _, folder, _ in found}
    images = {shown(f"{name}/{image.name}"): image for name, _, listing in found for image in listing.images}
    for old in list(_seen)[: 1 - MOST]:
        _seen.pop(old, None)
    _seen[dataset] = (changed, images)
    return images


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
