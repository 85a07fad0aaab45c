"""The route of remedies: what they would do, doing it, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from lora_trainer.errors import ConfigError, quoted, shown
from lora_trainer.ui.answers import Handler, Json, aside, read_body
from lora_trainer.ui.job import Job
from lora_trainer.ui.request import config_of, dataset_of, refuse_unknown

KEYS = ("dataset", "action", "kinds", "subject", "trigger", "config")
ACTIONS = ("list", "apply", "undo")


def remedy_table(job: Job) -> list[tuple[str, str, Handler]]:
    """Methods, addresses and handlers."""

    async def remedies(request: Request) -> Response:
        return Json(await aside(apply_remedies, await read_body(request), job.output))

    return [("POST", "/remedies", remedies)]


def apply_remedies(values: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """List, apply or take back the remedies of what the check finds.

    Raises:
        LoraTrainerError: one sentence.
    """
    from lora_trainer.config import RunConfig
    from lora_trainer.dataset.changes import Journal
    from lora_trainer.dataset.checks.check import check
    from lora_trainer.dataset.remedies import Remedies, apply

    refuse_unknown(values, KEYS, "remedies")
    action, kinds = values.get("action", "list"), values.get("kinds") or []
    if action not in ACTIONS:
        raise ConfigError(f"action can't be {quoted(action)}; give one of {', '.join(ACTIONS)}.")
    if not isinstance(kinds, list):
        raise ConfigError(f"kinds can't be {quoted(kinds)}; give a list of the kinds of findings.")
    dataset = dataset_of(values.get("dataset", ""))
    journal = Journal(dataset, output)
    if action == "undo":
        return {"done": f"Taken back: {journal.undo()}", "changes": [], "undo": journal.undoable}
    options = RunConfig.from_dict(config_of(values.get("config")))
    subject, trigger = (str(values.get(key) or "") for key in ("subject", "trigger"))
    checked = check(dataset, options.dataset, options.caption, subject, trigger, output)
    changes = Remedies(dataset, trigger).changes(checked.findings, kinds)
    done = apply(journal, changes) if action == "apply" else ""
    return {"done": done, "changes": [shown(change) for change in changes], "undo": journal.undoable}
