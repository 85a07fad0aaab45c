"""The routes for single images of a dataset: as training sees them, and their crops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from lora_trainer.config import CaptionConfig, DatasetConfig, RunConfig
from lora_trainer.dataset.caption_sheet import CaptionSheet
from lora_trainer.dataset.checks.looks import FILE, Looks
from lora_trainer.dataset.crops import (
    crop,
    crop_of,
    rotation_of,
    shapes,
    suggestion,
    uncrop,
    whole_of,
    whole_picture,
)
from lora_trainer.dataset.rotation import rotate
from lora_trainer.dataset.subject import box_of
from lora_trainer.errors import ConfigError, quoted, shown
from lora_trainer.ui.answers import Handler, Json, aside, jpeg, read_body
from lora_trainer.ui.job import Job
from lora_trainer.ui.request import config_of, dataset_of, refuse_unknown, text_of
from lora_trainer.ui.views import small_jpeg

CROP_KEYS = ("dataset", "id", "action", "box", "config")
ROTATE_KEYS = ("dataset", "id", "degrees", "config")
CROP_ACTIONS = ("show", "set", "undo")
SIDE = 1024  # px of a picture
PREVIEW_KEYS = ("dataset", "id", "config", "uses")
USES = 4  # that are shown
ID = "the image, as <folder>/<name>"


def image_table(job: Job) -> list[tuple[str, str, Handler]]:
    """Methods, addresses and handlers."""
    routes = _ImageRoutes(job)
    return [
        ("POST", "/preview", routes.preview),
        ("POST", "/crop", routes.crop),
        ("POST", "/rotate", routes.rotate),
        ("GET", "/picture", routes.picture),
    ]


class _ImageRoutes:
    def __init__(self, job: Job) -> None:
        self.job = job

    async def preview(self, request: Request) -> Response:
        """An image as training sees it."""
        return Json(await aside(preview_image, await read_body(request), self.job.output))

    async def crop(self, request: Request) -> Response:
        """How a copy is cropped, or crop it."""
        return Json(await aside(crop_image, await read_body(request), self.job.output))

    async def rotate(self, request: Request) -> Response:
        """Rotate a copy."""
        return Json(await aside(rotate_image, await read_body(request), self.job.output))

    async def picture(self, request: Request) -> Response:
        """The whole picture of a copy, as it is without its crop; no larger than a screen."""
        asked = dict(request.query_params)
        content = await aside(self._picture, asked.get("dataset", ""), asked.get("id", ""))
        return jpeg(content, "no-cache")

    def _picture(self, dataset: str, id: str) -> bytes:
        image = _image(dataset, id, self.job.output)
        return small_jpeg(whole_of(image), SIDE, whole=True, rotation=rotation_of(image))


def preview_image(values: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """How one image of a dataset is trained with a configuration.

    Raises:
        LoraTrainerError: one sentence.
    """
    from lora_trainer.dataset.folders import scan
    from lora_trainer.dataset.preview import MOST_USES, preview

    refuse_unknown(values, PREVIEW_KEYS, "preview")
    options = RunConfig.from_dict(config_of(values.get("config")))
    folder, id = dataset_of(values.get("dataset", "")), text_of(values, "id", ID)
    number = values.get("uses", USES)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_USES:
        raise ConfigError(f"uses can't be {quoted(number)}; give a whole number from 1 to {MOST_USES}.")
    with Looks(output / FILE, options.dataset.resolution) as looks:  # checked before, nothing is decoded
        dataset = scan(folder, options.dataset, options.caption, size_of=looks.size)
    return preview(dataset, id, options, number).to_dict()


def crop_image(values: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Show, set or undo the crop of a copy.

    Raises:
        LoraTrainerError: one sentence.
    """
    refuse_unknown(values, CROP_KEYS, "crop")
    action = values.get("action", "show")
    if action not in CROP_ACTIONS:
        raise ConfigError(f"action can't be {quoted(action)}; give one of {', '.join(CROP_ACTIONS)}.")
    options = RunConfig.from_dict(config_of(values.get("config"))).dataset
    image = _image(values.get("dataset", ""), text_of(values, "id", ID), output)
    if action == "set":
        image = crop(image, box_of(values.get("box")), options)
    elif action == "undo":
        image = uncrop(image)
    return _facts(image, options)


def rotate_image(values: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Rotate a copy clockwise; the answer is as that of :func:`crop_image`.

    Raises:
        LoraTrainerError: one sentence.
    """
    refuse_unknown(values, ROTATE_KEYS, "rotate")
    options = RunConfig.from_dict(config_of(values.get("config"))).dataset
    image = _image(values.get("dataset", ""), text_of(values, "id", ID), output)
    return _facts(rotate(image, values.get("degrees"), options), options)


def _facts(image: Path, options: DatasetConfig) -> dict[str, Any]:
    return {
        "id": shown(f"{image.parent.name}/{image.name}"), "crop": crop_of(image), "rotation": rotation_of(image),
        "suggested": suggestion(image), "size": list(whole_picture(image).size),
        "shapes": [list(shape) for shape in shapes(options)],
    }  # fmt: skip


def _image(dataset: Any, id: str, output: Path) -> Path:
    return CaptionSheet(dataset_of(dataset), CaptionConfig(), output).image(id)
