"""The HTTP interface, the same in a WebUI and stand-alone: JSON in and out, errors as ``{"error": sentence}``.

Every handler is ``async`` and does nothing slow itself, so that it answers while all worker threads wait for the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response

from lora_trainer.errors import (
    FileError,
    HostBusyError,
    LoraTrainerError,
    NameTakenError,
    quoted,
    shortened,
)
from lora_trainer.ui.access import PAGE_KEY, Access, RefusedError, check_page, is_page_key
from lora_trainer.ui.answers import Handler, Json, aside, error_answer, read_body
from lora_trainer.ui.caption_routes import caption_table
from lora_trainer.ui.compare_routes import compare_table
from lora_trainer.ui.image_routes import image_table
from lora_trainer.ui.job import Job
from lora_trainer.ui.remedy_routes import remedy_table
from lora_trainer.ui.request import prepare_dataset
from lora_trainer.ui.run_routes import RunRoutes, run_table
from lora_trainer.ui.status import ROUTE

log = logging.getLogger(__name__)

SERVED = (".png", ".jpg", ".webp", ".html", ".json", ".jsonl")
KEY_HEADER = "x-lora-trainer-key"
GUARDED_HEADER = "x-lora-trainer-guarded"  # tells the page that addresses of pictures need its key, too
KEY_COOKIE = "lora_trainer_key"  # so that a report's own pictures come, too
NO_SCRIPTS = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; sandbox; frame-ancestors 'self'"


def add_routes(app: FastAPI, job: Job, access: Callable[[], Access] = Access) -> None:
    """Add the routes of ``job`` to an application; ``access`` tells at each request who may use them."""
    runs = RunRoutes(job)
    routes = _Routes(job, runs)
    table: list[tuple[str, str, Handler]] = [
        ("POST", "/train", routes.train),
        ("GET", "/status", routes.status),
        ("POST", "/stop", routes.stop),
        ("POST", "/pause", routes.pause),
        ("POST", "/resume", routes.resume),
        ("POST", "/test", routes.test),
        ("POST", "/check", routes.check),
        ("POST", "/check/stop", routes.stop_looking),
        ("POST", "/prepare", routes.prepare),
        ("POST", "/practice", routes.practice),
        ("GET", "/curve", routes.curve),
        ("GET", "/shown/{name}", routes.shown),
        ("GET", "/report/{name}", routes.report),
        ("GET", "/report/{name}/{path:path}", routes.file),
        *run_table(runs),
        *compare_table(job),
        *caption_table(job),
        *image_table(job),
        *remedy_table(job),
    ]
    for method, path, handler in table:
        app.add_api_route(ROUTE + path, guarded(handler, access), methods=[method], response_model=None)


def guarded(handler: Handler, access: Callable[[], Access]) -> Handler:
    """The handler behind the checks of who asks, with its errors as JSON."""

    async def endpoint(request: Request) -> Response:
        try:
            doors = access()
            check_page(doors, request.headers, reads=request.method == "GET")
            _check_caller(doors, request)
            answer = await handler(request)
            if doors.guarded:
                answer.headers[GUARDED_HEADER] = "1"
                if is_page_key(request.query_params.get("key")):
                    answer.set_cookie(KEY_COOKIE, PAGE_KEY, path=ROUTE, httponly=True, samesite="strict")
            return answer
        except RefusedError as error:
            return error_answer(error.status, str(error), _asks_for_password(request) if error.status == 401 else None)
        except (NameTakenError, HostBusyError) as error:
            choices = {"choices": list(error.choices)} if error.choices else {}
            return Json({"error": str(error), **choices}, status_code=409)
        except FileError as error:
            return error_answer(404, str(error))
        except LoraTrainerError as error:
            return error_answer(400, str(error))
        except Exception as error:
            log.exception("%s failed", request.url.path)
            return error_answer(500, f"Unexpected {type(error).__name__}: {shortened(str(error))}")

    return endpoint


def _check_caller(access: Access, request: Request) -> None:
    """Password, key and kind of content.

    Raises:
        RefusedError: in one sentence.
    """
    given = _keys(request)
    ours = any(is_page_key(key) for key in given)
    stale = RefusedError(401, "The WebUI was restarted after this page was loaded; reload the page.")
    if access.guarded and not ours and not access.knows_user(request.headers.get("authorization", "")):
        raise stale if given else RefusedError(401, "Incorrect username or password.")
    if "origin" in request.headers and not is_page_key(request.headers.get(KEY_HEADER)):
        raise stale if given else RefusedError(403, f"A web page must send its key as {KEY_HEADER}.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json":
        raise RefusedError(415, "Send JSON: the header Content-Type must be application/json.")


def _keys(request: Request) -> list[str]:
    """The page's key as it was given, right or wrong."""
    given = (request.headers.get(KEY_HEADER), request.query_params.get("key"), request.cookies.get(KEY_COOKIE))
    return [key for key in given if key]


def _asks_for_password(request: Request) -> dict[str, str] | None:
    """Only somebody who follows a link is asked for a password by the browser: where a page's own request or picture is
    refused so, the browser holds back all others of that page, too."""
    follows_link = request.headers.get("sec-fetch-mode", "navigate") == "navigate" and "origin" not in request.headers
    return {"WWW-Authenticate": "Basic"} if follows_link and not _keys(request) else None


class _Routes:
    def __init__(self, job: Job, runs: RunRoutes) -> None:
        self.job, self.runs = job, runs

    async def train(self, request: Request) -> Response:
        """Begin to train."""
        return Json({"job": await aside(self.job.start, await read_body(request))})

    async def status(self, request: Request) -> Response:
        """How the job stands."""
        return Json(self.job.status())

    async def stop(self, request: Request) -> Response:
        """Save and end."""
        return Json({"stopped": self.job.stop()})

    async def pause(self, request: Request) -> Response:
        """Wait at the next step."""
        return Json({"paused": self.job.pause()})

    async def resume(self, request: Request) -> Response:
        """Go on."""
        return Json({"resumed": self.job.resume()})

    async def test(self, request: Request) -> Response:
        """Begin to test a LoRA."""
        return Json({"job": await aside(self.job.test, await read_body(request))})

    async def check(self, request: Request) -> Response:
        """Look at a dataset."""
        return Json(await aside(self.job.check, await read_body(request)))

    async def prepare(self, request: Request) -> Response:
        """Make a dataset of a folder of photos."""
        values = await read_body(request)
        return Json(await aside(prepare_dataset, values, self.job.output, self.job.looking))

    async def stop_looking(self, request: Request) -> Response:
        """End checks and copies of photos; a training isn't touched."""
        return Json({"stopped": self.job.looking.stop()})

    async def practice(self, request: Request) -> Response:
        """Install the practice project in the WebUI."""
        from lora_trainer.ui.actions.practice import install_for

        made = await aside(install_for, self.job)
        checkpoint = str(made.checkpoint) if made.checkpoint is not None else None
        return Json({"checkpoint": checkpoint, "dataset": str(made.dataset), "trigger": made.trigger})

    async def curve(self, request: Request) -> Response:
        """The job's loss, and what it has learned, as drawings; or those of ``run``."""
        from lora_trainer.ui.fragments import curves_fragment

        width, name = (request.query_params.get(key, "") for key in ("width", "run"))
        shown = self.job.record if not name else await aside(self.runs.details, name)
        return Json(await aside(curves_fragment, shown, width))

    async def shown(self, request: Request) -> Response:
        """The report of a run as the tab shows it."""
        from lora_trainer.ui.fragments import report_fragment

        name = request.path_params["name"]
        path = run_file(self.job.output, name, "report.json")
        grows = self.job.running and self.job.record.name == name
        return Json({"html": await aside(report_fragment, path, name, grows)})

    async def report(self, request: Request) -> Response:
        """The report of a run."""
        return FileResponse(run_file(self.job.output, request.path_params["name"], "report.json"))

    async def file(self, request: Request) -> Response:
        """A picture, page or grid of a run."""
        path = run_file(self.job.output, request.path_params["name"], request.path_params["path"])
        from lora_trainer.evaluation.html import POLICY

        is_report = path.name == "report.html"  # which we wrote: its one script may run, nobody else's
        policy = f"{POLICY}; frame-ancestors 'self'" if is_report else NO_SCRIPTS
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": policy}
        return FileResponse(path, headers=headers)


def run_file(output: Path, name: str, path: str) -> Path:
    """A file of the run ``name``, never one outside its folder.

    Raises:
        FileError: if there is no such file to be had.
    """
    missing = FileError(f"There is no {shortened(path)} of a run named {quoted(name)}; train or test it first.")
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
