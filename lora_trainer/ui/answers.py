"""What all routes share: reading a request's JSON, answering with JSON, doing slow things aside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.files import parse_json
from lora_trainer.ui.access import RefusedError

LARGEST_BODY = 4 * 2**20  # bytes

Handler = Callable[[Request], Awaitable[Response]]


class Json(JSONResponse):
    """JSON that can always be sent: halves of characters, as in names of files, are escaped; NaN becomes null."""

    def render(self, content: Any) -> bytes:
        """The body."""
        try:
            return json.dumps(content, allow_nan=False).encode()
        except ValueError:
            plain = json.loads(json.dumps(content), parse_constant=lambda name: None)
            return json.dumps(plain, allow_nan=False).encode()


async def aside(work: Callable[..., Any], *args: Any) -> Any:
    """Do something that reads files outside the event loop, and outside the pool that waiting generations fill."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(work, *args))


def jpeg(content: bytes, cache: str) -> Response:
    """A picture, to be kept by the browser as ``cache`` says; "not found" where there is none."""
    if not content:
        return Response(status_code=404)
    headers = {"Cache-Control": cache, "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type="image/jpeg", headers=headers)


async def read_body(request: Request) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        LoraTrainerError: if it isn't one.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise RefusedError(413, f"The request is larger than {LARGEST_BODY // 2**20} MiB.")
    try:
        values = parse_json(body or b"{}", "The request")
    except FileError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(values, dict):
        raise ConfigError("The request isn't a JSON object; send {…}.")
    return values


def error_answer(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """What went wrong, in one sentence."""
    return Json({"error": sentence}, status_code=status, headers=headers)
