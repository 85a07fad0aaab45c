"""The routes of the runs and of the queue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from lora_trainer.errors import ConfigError, HostBusyError, quoted
from lora_trainer.runs.deleting import delete_run, forget_run
from lora_trainer.runs.details import Details, details
from lora_trainer.runs.entry import RunEntry
from lora_trainer.runs.listing import RunList
from lora_trainer.runs.using import use_file
from lora_trainer.training.folder import RunFolder
from lora_trainer.ui.answers import Handler, Json, aside, read_body
from lora_trainer.ui.job import Job
from lora_trainer.ui.request import flag_of, refuse_unknown, text_of
from lora_trainer.ui.status import file_url

RUN_ACTIONS = ("continue", "continue_test", "test", "use", "delete", "forget")
QUEUE_ACTIONS = ("add", "edit", "remove", "move", "hold", "start")


def run_table(routes: RunRoutes) -> list[tuple[str, str, Handler]]:
    """Methods, addresses and handlers."""
    return [
        ("GET", "/runs", routes.runs),
        ("POST", "/runs", routes.act),
        ("GET", "/runs/{name}", routes.run),
        ("GET", "/queue", routes.queue),
        ("POST", "/queue", routes.change),
    ]


class RunRoutes:
    """The runs and the queue of a job's output folder, as requests ask for them."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._list: RunList | None = None

    def list(self) -> RunList:
        """The runs; what was read of them before is kept for as long as the folders stay the same."""
        output, lora_dir = self.job.output, self.job.host.lora_dir
        if self._list is None or (self._list.output, self._list.lora_dir) != (output, lora_dir):
            self._list = RunList(output, lora_dir)
        return self._list

    async def runs(self, request: Request) -> Response:
        """All runs."""
        entries = await aside(lambda: self.list().entries())
        return Json({"runs": [as_json(entry, self.job) for entry in entries]})

    async def run(self, request: Request) -> Response:
        """One run, in full."""
        name = request.path_params["name"]
        return Json(in_full(await aside(self.details, name), self.job))

    def details(self, name: str) -> Details:
        """All of one run.

        Raises:
            FileError: if there is none of that name.
        """
        return details(self.job.output, self.list().entry(name))

    async def act(self, request: Request) -> Response:
        """Do something with a run."""
        return Json(await aside(self._act, await read_body(request)))

    def _act(self, values: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(values, ("action", "name", "keep_lora", "file"), "runs")
        action = _action(values, RUN_ACTIONS)
        entry = self.list().entry(text_of(values, "name", "the name of a run"))
        if action == "continue":
            return {"job": self.job.start({"name": entry.name, "resume": True})}
        if action == "continue_test":
            return {"job": self.job.test({"lora": entry.name, "resume": True})}
        if action == "test":
            return {"job": self.job.test({"lora": entry.name, "trigger": entry.trigger})}
        if self.job.running and self.job.record.name == entry.name:
            raise HostBusyError(f"The run {entry.name} is in progress; stop it first.")
        if action == "use":
            file = text_of(values, "file", "the file that is to be the LoRA")
            used = use_file(self.job.output, entry, file, self.job.host.lora_dir)
            self.job.host.refresh_loras([used.lora, *([used.kept] if used.kept else [])])
            return {"message": used.sentence, "lora": str(used.lora)}
        if action == "forget":
            forget_run(self.job.output, entry.name)
            return {"message": f"{entry.name} isn't offered any more; it stays in the list."}
        keep_lora = flag_of(values, "keep_lora") is not False
        return {"message": delete_run(self.job.output, entry, self.job.host.lora_dir, keep_lora).sentence}

    async def queue(self, request: Request) -> Response:
        """How the queue stands."""
        return Json(await aside(self.job.line.content))

    async def change(self, request: Request) -> Response:
        """Change the queue; the answer is how it stands then."""
        return Json(await aside(self._change, await read_body(request)))

    def _change(self, values: dict[str, Any]) -> dict[str, Any]:
        action, line = _action(values, QUEUE_ACTIONS), self.job.line
        rest = {key: value for key, value in values.items() if key != "action"}
        if action == "add":
            line.add(rest)
            return line.content()
        if action in ("hold", "start"):
            refuse_unknown(rest, (), action)
            return line.start() if action == "start" else line.queue.hold().to_dict()
        number = rest.pop("id", None)
        if type(number) is not int:
            raise ConfigError(f"id can't be {quoted(number)}; give the number of an entry.")
        if action == "edit":
            line.edit(number, rest)
        elif action == "move":
            refuse_unknown(rest, ("to",), action)
            line.queue.move(number, rest.get("to"))
        else:
            refuse_unknown(rest, (), action)
            line.queue.remove(number)
        return line.content()


def _action(values: dict[str, Any], known: tuple[str, ...]) -> str:
    action = values.get("action")
    if action not in known:
        raise ConfigError(f"action can't be {quoted(action)}; give one of {', '.join(known)}.")
    return str(action)


def as_json(entry: RunEntry, job: Job) -> dict[str, Any]:
    """A run for the page, with addresses in place of paths."""
    files = {
        name: file_url(entry.name, path, job.output) if (path := getattr(entry, name)) is not None else ""
        for name in ("preview", "report")
    }
    return {**entry.to_dict(), **files, "lora": entry.lora.name if entry.lora is not None else ""}


def in_full(found: Details, job: Job) -> dict[str, Any]:
    """One run for the page."""
    log = RunFolder(job.output, found.entry.name).log
    return {
        **as_json(found.entry, job),
        "settings": found.settings.to_dict() if found.settings is not None else None,
        "problem": found.problem,
        "losses": found.losses,
        "learned": [asdict(one) for one in found.learned],
        "log": found.log,
        "saves": [path.name for path in found.saves],
        "samples": [
            {"step": step, "prompt": number, "url": file_url(found.entry.name, path, job.output)}
            for step, number, path in found.samples
        ],
        "prompts": found.prompts,
        "notices": found.notices,
        "whole_log": file_url(found.entry.name, log, job.output) if log.is_file() else "",
    }
