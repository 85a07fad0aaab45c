"""One entry of the queue."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lora_trainer.runs.left import text
from lora_trainer.training.folder import RunFolder

QueueState = Literal["waiting", "running", "done", "failed", "stopped"]
OPEN: tuple[QueueState, ...] = ("waiting", "running")
ENDED: tuple[QueueState, ...] = ("done", "failed", "stopped")
INTERRUPTED = "interrupted: waiting to continue"


@dataclass(frozen=True)
class Queued:
    """What is to be trained, and what became of it."""

    id: int
    name: str
    dataset: str
    config: dict[str, Any]  # options by name, with their version
    trigger: str = ""
    test: bool = False
    test_plan: dict[str, Any] = field(default_factory=dict)  # what the test is asked, as a request to test says it
    resume: bool = False  # as chosen when it was added
    overwrite: bool = False
    checkpoint: str = ""  # file name of the base model that it is meant for; empty: whichever is loaded
    places: dict[str, str] = field(default_factory=dict)  # of the command line: paths of checkpoint, vae, lora_dir
    typed: tuple[str, ...] = ()  # class paths that were typed there
    state: QueueState = "waiting"
    interrupted: bool = False  # it has begun already; what there is of it is continued
    why: str = ""  # it failed or waits, in one sentence
    added: str = ""  # when
    taken: str = ""  # when its training was begun

    @property
    def line(self) -> str:
        """``2. zorbo: waiting``"""
        return f"{self.id}. {self.name}: {self.state}" + (f" ({self.why})" if self.why else "")

    def interrupt(self) -> Queued:
        """The entry after its run was ended by something that nobody asked for."""
        return replace(self, state="waiting", interrupted=True, why=INTERRUPTED)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "typed": list(self.typed)}


def read_entry(values: Any) -> Queued:
    """An entry out of a file that may hold anything: what can't be used is a failed entry that says so."""
    if not isinstance(values, dict) or type(values.get("id")) is not int:
        raise ValueError("an entry has no number")
    state, config, typed, places = (values.get(key) for key in ("state", "config", "typed", "places"))
    plan = values.get("test_plan")
    entry = Queued(
        id=values["id"],
        name=text(values.get("name")),
        dataset=text(values.get("dataset")),
        config=config if isinstance(config, dict) else {},
        trigger=text(values.get("trigger")),
        test=values.get("test") is True,
        test_plan=plan if isinstance(plan, dict) else {},
        resume=values.get("resume") is True,
        overwrite=values.get("overwrite") is True,
        checkpoint=text(values.get("checkpoint")),
        places={key: text(path) for key, path in places.items()} if isinstance(places, dict) else {},
        typed=tuple(map(str, typed)) if isinstance(typed, list) else (),
        state=state if state in (*OPEN, *ENDED) else "failed",
        interrupted=values.get("interrupted") is True,
        why=text(values.get("why")),
        added=text(values.get("added")),
        taken=text(values.get("taken")),
    )
    if entry.state in OPEN and not (entry.name and entry.dataset and isinstance(config, dict)):
        return replace(entry, state="failed", why="This entry is damaged; remove it, or edit it.")
    return entry


def begun(output: Path, entry: Queued) -> tuple[bool, bool]:
    """Whether to continue the entry's run, and whether to replace what is there.

    One that was interrupted before its first step has left everything as it was. One that was interrupted before its
    first state begins anew, in the place of what it has left.
    """
    folder = RunFolder(output, entry.name)
    if not entry.interrupted or folder.began() < entry.taken:
        return entry.resume, entry.overwrite
    return folder.has_state, entry.overwrite or not folder.has_state
