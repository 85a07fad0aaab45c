"""What the WebUI executes of this extension: it registers the tab, the settings and the routes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modules import script_callbacks, scripts

import lora_trainer

ROOT = Path(scripts.basedir()).resolve()


def make_job() -> Any:
    """The one job of this process; it outlives "Reload UI"."""
    from lora_trainer.ui import settings
    from lora_trainer.ui.shared import shared_job

    return shared_job(make_host, settings.output_folder, settings.test_after)


def make_host() -> Any:
    """The WebUI's model, reached when the first job starts."""
    from lora_trainer.hosts.webui.which import webui_host

    return webui_host()


def on_tabs() -> list[tuple[Any, str, str]]:
    """The tab."""
    from lora_trainer.ui.settings import access
    from lora_trainer.ui.tab import create_tab

    return [(create_tab(make_job(), access=access), "Train LoRA", "lora_trainer")]


def on_settings() -> None:
    """The section in Settings."""
    from lora_trainer.ui.settings import add_settings

    add_settings()


def on_app(_demo: Any, app: Any) -> None:
    """The routes."""
    from lora_trainer.ui.routes import add_routes
    from lora_trainer.ui.settings import access

    add_routes(app, make_job(), access)


if not Path(lora_trainer.__file__).resolve().is_relative_to(ROOT):
    raise ImportError(
        f"Train LoRA: another package named lora_trainer, {lora_trainer.__file__}, is loaded instead of the "
        "extension's own. Uninstall it or disable the extension that brings it, then restart the WebUI."
    )
script_callbacks.on_ui_tabs(on_tabs)
script_callbacks.on_ui_settings(on_settings)
script_callbacks.on_app_started(on_app)
