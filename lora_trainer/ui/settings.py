"""The WebUI's settings page of the extension: a few options, each of which does something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SECTION = ("lora_trainer", "Train LoRA")
CATEGORY = "training"  # the WebUI's own, next to its settings for embeddings
OUTPUT = "lora_trainer_output"
SERVE = "lora_trainer_serve_generation"
TEST_AFTER = "lora_trainer_test_after"


def add_settings() -> None:
    """Add the section to the WebUI's Settings tab."""
    from modules import shared

    option = shared.OptionInfo
    rows: dict[str, Any] = {
        OUTPUT: option("", "Folder for runs: logs, samples, test reports, resume states", section=SECTION).info(
            "empty: outputs/lora-trainer in the WebUI's folder; LoRA files go to the WebUI's Lora folder in any case"
        ),
        SERVE: option(True, "Generate while training", section=SECTION).info(
            "pictures asked for during training are made between two steps, with the checkpoint and without the new "
            "LoRA; off: they wait until the training has ended"
        ),
        TEST_AFTER: option(True, "Test every LoRA after training", section=SECTION).info(
            "pictures at several strengths and in other contexts, with a report"
        ),
    }
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


def credentials() -> dict[str, str] | None:
    """Who may use the routes: the WebUI's API users; nobody but our page if only the page has a login; None for all."""
    from modules import shared

    pairs = str(shared.cmd_opts.api_auth or "")
    if pairs:
        return dict(pair.split(":", 1) for pair in pairs.split(",") if ":" in pair)
    return {} if shared.cmd_opts.gradio_auth or shared.cmd_opts.gradio_auth_path else None
