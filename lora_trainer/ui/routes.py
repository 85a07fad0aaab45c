"""The HTTP interface, the same in a WebUI and stand-alone: JSON in and out, errors as ``{"error": sentence}``.

Every handler is ``async`` and does nothing slow itself, so that it answers while all worker threads wait for the model.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from lora_trainer.errors import FileError, HostBusyError, LoraTrainerError
from lora_trainer.ui.job import Job
from lora_trainer.ui.status import ROUTE

log = logging.getLogger(__name__)

SERVED = (".png", ".jpg", ".webp", ".html", ".json", ".jsonl", ".css", ".js")
PAGE_KEY = secrets.token_urlsafe(18)  # lets our own page in where a password guards the API; new with every process
KEY_HEADER = "x-lora-trainer-key"
GUARDED_HEADER = "x-lora-trainer-guarded"  # tells the page that addresses of pictures need its key, too
KEY_COOKIE = "lora_trainer_key"  # so that a report's own pictures come, too

Handler = Callable[[Request], Awaitable[Response]]


def add_routes(app: FastAPI, job: Job, *, auth: Mapping[str, str] | None = None) -> None:
    """Add the routes of ``job`` to an application.

    Args:
        auth: user names and passwords; None lets everybody in. An empty mapping lets in nobody but our own page, which
            sends :data:`PAGE_KEY`.
    """
    routes = _Routes(job)
    table: list[tuple[str, str, Handler]] = [
        ("POST", "/train", routes.train),
        ("GET", "/status", routes.status),
        ("POST", "/stop", routes.stop),
        ("POST", "/pause", routes.pause),
        ("POST", "/resume", routes.resume),
        ("POST", "/test", routes.test),
        ("POST", "/check", routes.check),
        ("GET", "/report/{name}", routes.report),
        ("GET", "/report/{name}/{path:path}", routes.file),
    ]
    for method, path, handler in table:
        app.add_api_route(ROUTE + path, guarded(handler, auth), methods=[method], response_model=None)


def guarded(handler: Handler, auth: Mapping[str, str] | None) -> Handler:
    """The handler behind the password check, with its errors as JSON."""

    async def endpoint(request: Request) -> Response:
        if request.headers.get("sec-fetch-site") == "cross-site" and request.method != "GET":
            return _error(403, "This address answers only to its own page and to programs, not to other web pages.")
        if auth is not None and not allowed(request, auth):
            return _unauthorised(request)
        try:
            answer = await handler(request)
            if auth is not None:
                answer.headers[GUARDED_HEADER] = "1"
            if auth is not None and _is_page_key(request.query_params.get("key")):
                answer.set_cookie(KEY_COOKIE, PAGE_KEY, path=ROUTE, httponly=True, samesite="strict")
            return answer
        except HostBusyError as error:
            return _error(409, str(error))
        except FileError as error:
            return _error(404, str(error))
        except LoraTrainerError as error:
            return _error(400, str(error))
        except Exception as error:
            log.exception("%s failed", request.url.path)
            return _error(500, f"Unexpected {type(error).__name__}: {error}")

    return endpoint


def allowed(request: Request, auth: Mapping[str, str]) -> bool:
    """Whether the request carries a user's password (HTTP Basic) or our own page's key."""
    given = (request.headers.get(KEY_HEADER), request.query_params.get("key"), request.cookies.get(KEY_COOKIE))
    if any(_is_page_key(key) for key in given):
        return True
    scheme, _, coded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        user, _, password = base64.b64decode(coded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    return secrets.compare_digest(password.encode(), auth.get(user, "").encode()) and user in auth


def _unauthorised(request: Request) -> Response:
    """What a caller without password or key hears. Only somebody who follows a link is asked for a password by the
    browser: where a page's own request or picture is refused so, the browser holds back all others of the page, too."""
    given = (request.headers.get(KEY_HEADER), request.query_params.get("key"), request.cookies.get(KEY_COOKIE))
    if any(given):
        return _error(401, "This page is from before the WebUI was restarted: reload it.")
    follows_link = request.headers.get("sec-fetch-mode", "navigate") == "navigate" and "origin" not in request.headers
    headers = {"WWW-Authenticate": "Basic"} if follows_link else None
    return _error(401, "Incorrect username or password.", headers)


def _is_page_key(key: str | None) -> bool:
    return key is not None and secrets.compare_digest(key.encode(), PAGE_KEY.encode())


class _Routes:
    def __init__(self, job: Job) -> None:
        self.job = job

    async def train(self, request: Request) -> Response:
        """Begin to train."""
        return JSONResponse({"job": await _aside(self.job.start, await _body(request))})

    async def status(self, request: Request) -> Response:
        """How the job stands."""
        return JSONResponse(self.job.status())

    async def stop(self, request: Request) -> Response:
        """Save and end."""
        return JSONResponse({"stopped": self.job.stop()})

    async def pause(self, request: Request) -> Response:
        """Wait at the next step."""
        return JSONResponse({"paused": self.job.pause()})

    async def resume(self, request: Request) -> Response:
        """Go on."""
        return JSONResponse({"resumed": self.job.resume()})

    async def test(self, request: Request) -> Response:
        """Begin to test a LoRA."""
        return JSONResponse({"job": await _aside(self.job.test, await _body(request))})

    async def check(self, request: Request) -> Response:
        """Look at a dataset."""
        values = await _body(request)
        return JSONResponse(await _aside(self.job.check, values.get("dataset", ""), values.get("config")))

    async def report(self, request: Request) -> Response:
        """The report of a run."""
        return FileResponse(run_file(self.job.output, request.path_params["name"], "report.json"))

    async def file(self, request: Request) -> Response:
        """A picture, page or grid of a run."""
        path = run_file(self.job.output, request.path_params["name"], request.path_params["path"])
        return FileResponse(path, headers={"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})


def run_file(output: Path, name: str, path: str) -> Path:
    """A file of the run ``name``, never one outside its folder.

    Raises:
        FileError: if there is no such file to be had.
    """
    missing = FileError(f"There is no {path} of a run named {name!r}; train or test it first.")
    if not name or name in (".", "..") or any(char in name + path for char in "\\\0") or "/" in name:
        raise missing
    root = output.resolve()
    folder = (root / name).resolve()
    try:
        found = (folder / path).resolve()
        served = found.is_file()
    except (OSError, ValueError, RuntimeError):
        raise missing from None
    if folder.parent != root or not found.is_relative_to(folder) or not served or found.suffix not in SERVED:
        raise missing
    return found


async def _aside(work: Callable[..., Any], *args: Any) -> Any:
    """Do something that reads files outside the event loop, and outside the pool that waiting generations fill."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(work, *args))


async def _body(request: Request) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        LoraTrainerError: if it isn't one.
    """
    try:
        values = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise LoraTrainerError(f"The request isn't JSON ({error}).") from error
    if not isinstance(values, dict):
        raise LoraTrainerError("The request isn't a JSON object; send {…}.")
    return values


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)
