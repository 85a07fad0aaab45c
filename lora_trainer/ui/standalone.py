"""The same tab as a page of its own, on a checkpoint file, for those without a WebUI."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from lora_trainer.errors import ConfigError
from lora_trainer.ui.access import Access
from lora_trainer.ui.job import Job
from lora_trainer.ui.routes import add_routes
from lora_trainer.ui.status import ROUTE
from lora_trainer.ui.tab import create_tab

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "javascript").glob("*.js"))  # the order in which a WebUI loads them, too
ASSETS = {path.name: path for path in (ROOT / "style.css", *SCRIPTS)}
MOST_TRIED_PORTS = 20


def create_app(
    checkpoint: Path, lora_dir: Path, output: Path, test_after: bool = True, access: Access | None = None
) -> FastAPI:
    """The application: the routes, the page's scripts and style, and the page."""
    job = Job(lambda: _host(checkpoint, lora_dir), lambda: output, lambda: test_after)
    app = FastAPI(title="Train LoRA", docs_url=None, redoc_url=None, openapi_url=None)
    doors = access or Access()
    add_routes(app, job, lambda: doors)

    async def asset(name: str) -> Response:
        known = name in ASSETS and ASSETS[name].is_file()
        return FileResponse(ASSETS[name]) if known else Response(status_code=404)

    app.add_api_route(f"{ROUTE}/assets/{{name}}", asset, methods=["GET"], response_model=None)
    tab = create_tab(job, webui=False, access=lambda: doors)
    with gr.Blocks(title="Train LoRA", analytics_enabled=False) as page, gr.Column(elem_id="tab_lora_trainer"):
        tab.render()
    page.queue()
    app = gr.mount_gradio_app(app, page, path="/")
    app.add_middleware(WithAssets)
    app.state.job = job
    return app


def _host(checkpoint: Path, lora_dir: Path) -> Any:
    from lora_trainer.hosts.standalone.host import DiffusersHost

    return DiffusersHost(checkpoint, lora_dir)


class WithAssets:
    """Puts our scripts and style into the page, whatever gradio makes it."""

    TAGS = (
        f'<link rel="stylesheet" href=".{ROUTE}/assets/style.css">'
        + "".join(f'<script src=".{ROUTE}/assets/{path.name}" defer></script>' for path in SCRIPTS)
        + "</head>"
    ).encode()

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass everything on; the page itself gets the tags."""
        if scope["type"] != "http" or scope["path"] not in ("", "/") or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = b""

        async def collect(message: dict[str, Any]) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = body.replace(b"</head>", self.TAGS, 1)
            headers = [row for row in start["headers"] if row[0].lower() != b"content-length"]
            headers.append((b"content-length", str(len(body)).encode()))
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        # the page as plain text: a compressed one couldn't be added to
        plain = [row for row in scope["headers"] if row[0].lower() != b"accept-encoding"]
        await self.app({**scope, "headers": plain}, receive, collect)


def serve(app: FastAPI, host: str, port: int | None, ready: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Args:
        port: None for the first free one from 7870 on.
        ready: is told the address as soon as the page answers.

    Raises:
        ConfigError: if the port is taken.
    """
    import uvicorn

    found = _free_port(host, port)

    class Server(uvicorn.Server):
        """Saves what is being trained before it ends: afterwards uvicorn passes the signal on, which may kill us."""

        async def shutdown(self, *args: Any, **more: Any) -> None:
            await super().shutdown(*args, **more)
            await asyncio.get_running_loop().run_in_executor(None, app.state.job.close)

    server = Server(uvicorn.Config(app, host=host, port=found, log_level="warning"))

    async def run() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.05)
        if server.started:
            ready(f"http://{'127.0.0.1' if host in ('', '0.0.0.0') else host}:{found}/")
        await serving

    asyncio.run(run())


def _free_port(host: str, port: int | None) -> int:
    first = 7870 if port is None else port
    for candidate in range(first, first + (MOST_TRIED_PORTS if port is None else 1)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return candidate
    raise ConfigError(f"Port {first} is in use; choose another one with --port.")
