"""The WebUI's settings page of the extension: a few options, each of which does something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_trainer.errors import LoraTrainerError
from lora_trainer.ui.access import Access, is_loopback, read_hosts

SECTION = ("lora_trainer", "Train LoRA")
CATEGORY = "training"  # the WebUI's own, next to its settings for embeddings
OUTPUT = "lora_trainer_output"
SERVE = "lora_trainer_serve_generation"
TEST_AFTER = "lora_trainer_test_after"
HOSTS = "lora_trainer_hosts"
OPEN = "lora_trainer_open"


def add_settings() -> None:
    """Add the section to the WebUI's Settings tab."""
    from modules import shared

    option = shared.OptionInfo
    rows: dict[str, Any] = {
        OUTPUT: option("", "Output folder: logs, sample images, test reports, resume states", section=SECTION).info(
            "empty: outputs/lora-trainer in the WebUI's folder; LoRA files always go to the WebUI's Lora folder"
        ),
        SERVE: option(True, "Generate while training", section=SECTION).info(
            "images requested during training are made between two steps, with the checkpoint and without the new "
            "LoRA; off: they wait until training has finished"
        ),
        TEST_AFTER: option(True, "Test every LoRA after training", section=SECTION).info(
            "images at several strengths and in other contexts, with a report"
        ),
        HOSTS: option(
            "", "Other names under which this WebUI is reached", section=SECTION, onchange=_kept_if_public(HOSTS)
        ).info(
            "separated by commas, such as ai.example.com; needed behind a proxy, or for a name that isn't this "
            "machine's "
            "own. Under any other name, training is refused"
        ),
        OPEN: option(
            False, "Let anyone who can reach this WebUI train", section=SECTION, onchange=_kept_if_public(OPEN)
        ).info(
            "matters only where other machines can reach it without a login (--listen or --share, without "
            "--gradio-auth): "
            "there, training is off unless this is on, and this can be changed only in config.json"
        ),
    }
    rows[HOSTS].restrict_api = rows[OPEN].restrict_api = True
    for key, info in rows.items():
        info.category_id = CATEGORY
        shared.opts.add_option(key, info)


def output_folder() -> Path:
    """Where the runs' folders go."""
    from modules import paths, shared

    chosen = str(shared.opts.data.get(OUTPUT, "") or "").strip()
    return Path(chosen).expanduser() if chosen else Path(paths.data_path) / "outputs" / "lora-trainer"


def test_after() -> bool:
    """Whether a run is tested when the request doesn't say."""
    from modules import shared

    return bool(shared.opts.data.get(TEST_AFTER, True))


def access() -> Access:
    """Who may use the routes and the tab, as things are now."""
    from modules import shared

    data, options = shared.opts.data, shared.cmd_opts
    pairs = str(options.api_auth or "")
    server = str(options.server_name or "")
    share = str(getattr(shared.demo, "share_url", "") or "")
    origins = str(getattr(options, "cors_allow_origins", "") or "").replace("*", "")
    return Access(
        users=dict(pair.split(":", 1) for pair in pairs.split(",") if ":" in pair),
        login=bool(options.gradio_auth or options.gradio_auth_path),
        exposed=bool(options.listen or options.share or options.ngrok) or not is_loopback(server),
        open=bool(data.get(OPEN, False)),
        hosts=read_hosts(f"{data.get(HOSTS, '')} {server} {share} {origins}"),
    )


def _kept_if_public(key: str) -> Callable[[], None]:
    """Strangers can reach the WebUI's settings page, too: what keeps them out isn't theirs to change."""

    def check() -> None:
        now = access()
        if now.exposed and not now.login:
            raise LoraTrainerError(f"{key} can't be changed while anyone can reach this: start with --gradio-auth.")

    return check
