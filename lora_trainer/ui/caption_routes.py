"""The routes of captions: the sheet, its changes, small pictures, what a captioner or the checkpoint
makes for a dataset."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from lora_trainer.config import CaptionConfig
from lora_trainer.config.groups import TOKEN_LENGTHS
from lora_trainer.dataset.belongs import RULES
from lora_trainer.dataset.caption_sheet import CaptionSheet, Row, counted_tokens
from lora_trainer.errors import ConfigError, quoted
from lora_trainer.ui.answers import Handler, Json, aside, jpeg, read_body
from lora_trainer.ui.engine import load
from lora_trainer.ui.errands import regularise
from lora_trainer.ui.errands.describe import asked_for, offered
from lora_trainer.ui.job import Job
from lora_trainer.ui.request import dataset_of, refuse_unknown, text_of
from lora_trainer.ui.views import small_jpeg

KEYS = ("dataset", "action", "id", "ids", "text", "before", "words", "instead", "limit")
ACTIONS = ("set", "prefix", "append", "replace", "remove", "first", "leave_out", "undo", "count")
SIDE = 256  # px of a small picture


def caption_table(job: Job) -> list[tuple[str, str, Handler]]:
    """Methods, addresses and handlers."""
    routes = _CaptionRoutes(job)
    return [
        ("GET", "/captions", routes.captions),
        ("POST", "/captions", routes.change),
        ("GET", "/thumbnail", routes.thumbnail),
        ("GET", "/captioners", routes.captioners),
        ("POST", "/caption", routes.describe),
        ("POST", "/regularise", routes.regularise),
    ]


class _CaptionRoutes:
    def __init__(self, job: Job) -> None:
        self.job = job

    async def captions(self, request: Request) -> Response:
        """All captions of a dataset, with their tags."""
        asked = dict(request.query_params)
        return Json(await aside(self._captions, asked.get("dataset", ""), _limit(asked.get("limit"))))

    def _captions(self, dataset: str, limit: int) -> dict[str, Any]:
        sheet = self._sheet(dataset)
        rows = sheet.rows()
        return {"rows": [row.to_dict(limit) for row in rows], "rules": RULES, **_about(sheet, rows)}

    async def change(self, request: Request) -> Response:
        """Change captions; the answer has the rows that changed."""
        return Json(await aside(self._change, await read_body(request)))

    def _change(self, values: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(values, KEYS, "captions")
        action, limit = values.get("action"), _limit(values.get("limit"))
        if action not in ACTIONS:
            raise ConfigError(f"action can't be {quoted(action)}; give one of {', '.join(ACTIONS)}.")
        if action == "count":
            return counted_tokens(str(values.get("text") or ""), limit)
        sheet = self._sheet(values.get("dataset"))
        if action == "undo":
            changed = sheet.undo()
        elif action == "set":
            text, before = str(values.get("text") or ""), str(values.get("before") or "")
            changed = sheet.set(text_of(values, "id", "the id of an image"), text, before)
        else:
            changed = sheet.edit(
                str(action), str(values.get("words") or ""), str(values.get("instead") or ""), _ids(values)
            )
        return {"changed": [row.to_dict(limit) for row in changed], **_about(sheet, sheet.rows())}

    async def thumbnail(self, request: Request) -> Response:
        """A small picture of an image of the dataset."""
        asked = dict(request.query_params)
        content = await aside(self._thumbnail, asked.get("dataset", ""), asked.get("id", ""))
        return jpeg(content, "private, max-age=300")

    def _thumbnail(self, dataset: str, id: str) -> bytes:
        return small_jpeg(self._sheet(dataset).image(id), SIDE, whole=True)

    async def captioners(self, request: Request) -> Response:
        """Who can write captions here."""
        return Json(await aside(lambda: offered(self.job.host)))

    async def describe(self, request: Request) -> Response:
        """Begin to write captions."""
        return Json({"job": await aside(self._describe, await read_body(request))})

    def _describe(self, values: dict[str, Any]) -> str:
        load()
        return self.job.do(asked_for(values, self.job.host, self.job.output))

    async def regularise(self, request: Request) -> Response:
        """Begin to make images of the class."""
        return Json(await aside(self._regularise, await read_body(request)))

    def _regularise(self, values: dict[str, Any]) -> dict[str, Any]:
        load()
        errand = regularise.asked_for(values, self.job.host, self.job.output)
        return {"job": self.job.do(errand), "folder": str(errand.plan.folder), "images": errand.plan.images}

    def _sheet(self, dataset: Any) -> CaptionSheet:
        return CaptionSheet(dataset_of(dataset), CaptionConfig(), self.job.output)


def _about(sheet: CaptionSheet, rows: list[Row]) -> dict[str, Any]:
    return {"tags": sheet.tags(rows), "undo": sheet.undoable}


def _limit(value: object) -> int:
    text = str(value or TOKEN_LENGTHS[0])
    if not text.isdigit() or int(text) not in TOKEN_LENGTHS:
        raise ConfigError(f"limit can't be {quoted(value)}; give one of {', '.join(map(str, TOKEN_LENGTHS))}.")
    return int(text)


def _ids(values: dict[str, Any]) -> list[str] | None:
    ids = values.get("ids")
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise ConfigError("ids must be a list of the ids of images.")
    return ids
