"""How a run ends: at its last step, stopped, or by whatever has happened; what was trained is saved and told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lora_trainer.errors import FileError, counted
from lora_trainer.training.events import Event, Finished, Notice
from lora_trainer.training.watch.health import MOST_SKIPPED

if TYPE_CHECKING:
    from lora_trainer.training.session import Session


def rescue(run: Session) -> list[Event]:
    """Save what was trained so far, whatever has happened; the reason for it is told by somebody else."""
    at = run.position
    if run.finished or at.step == run.first_step:
        return []
    run.finished = True
    run.update.drop_gradients()
    notices = len(run.notices)
    problem = run.tried(run.saver.final)
    kept = run.torn and run.folder.has_state  # an earlier state is better than one with half a step in it
    if not kept:
        run.save_state(epoch_ended=at.group >= run.feed.groups_per_epoch, wait=True)
    if not run.processes.is_main:
        return []
    resumable = " The run can be resumed." if kept or len(run.notices) == notices else ""
    told = problem or f"What was trained until step {at.step} is saved as {run.saver.path()}."
    run.notices.append(told + resumable)
    return [*run.saver.events(), *map(Notice, run.notices[notices:])]


def finish(run: Session, stopped: bool) -> Iterator[Event]:
    """The last save and the closing event. Before the first step there is nothing to save, and a file to lose.

    Raises:
        FileError: if the LoRA can't be written; the state is, if it can be.
    """
    at = run.position
    if at.step == 0:
        run.finished = True
        yield Finished(None, 0, run.steps, stopped, tuple(run.notices))
        return
    notices = len(run.notices)
    problem = run.tried(run.saver.final)
    run.save_state(epoch_ended=at.group >= run.feed.groups_per_epoch, wait=True)
    run.finished = True
    if not stopped:
        yield from run.measure()
    if problem:
        resumable = f"Everything up to step {at.step} is in {run.folder.state}: resume to get the file."
        raise FileError(" ".join([problem, *(run.notices[notices:] or [resumable])]))
    if run.watch.overflows > MOST_SKIPPED:
        run.tell(
            f"{run.watch.overflows} of {counted(at.step, 'step')} changed nothing, because fp16 gradients overflowed; "
            "mixed_precision bf16 loses none."
        )
    if run.processes.is_main:
        yield from run.saver.events()
    yield Finished(run.saver.path(), at.step, run.steps, stopped, tuple(run.notices))
