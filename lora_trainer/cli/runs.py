"""``runs``"""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import asdict
from pathlib import Path

from lora_trainer.cli.terminal import agreed, say
from lora_trainer.runs.deleting import delete_run, forget_run
from lora_trainer.runs.details import details
from lora_trainer.runs.entry import RunEntry
from lora_trainer.runs.listing import RunList, list_runs
from lora_trainer.runs.using import use_file

LAST = 5  # lines of the log


def run_list(args: argparse.Namespace) -> None:
    """One line for each run."""
    entries = list_runs(args.output)
    if args.json:
        say(json.dumps([entry.to_dict() for entry in entries], indent=2))
        return
    for entry in entries:
        say(_line(entry))
    if not entries:
        say(f"There are no runs in {args.output}.")
    offered = next((entry for entry in entries if entry.offered), None)
    if offered is not None:
        say(f"To continue {offered.name}: {_continuing(args, offered)}")


def run_show(args: argparse.Namespace) -> None:
    """All there is to see of one run."""
    found = details(args.output, _entry(args))
    entry, settings = found.entry, found.settings
    if args.json:
        more = {
            "settings": settings.to_dict() if settings is not None else None, "problem": found.problem,
            "losses": found.losses, "learned": [asdict(one) for one in found.learned], "log": found.log,
            "saves": [str(path) for path in found.saves],
            "samples": [str(path) for _, _, path in found.samples], "notices": found.notices,
        }  # fmt: skip
        say(json.dumps({**entry.to_dict(), **more}, indent=2))
        return
    say(_line(entry))
    rows = {
        "Checkpoint": entry.checkpoint, "Dataset": entry.dataset, "Trigger word": entry.trigger,
        "LoRA files": ", ".join(path.name for path in found.saves), "Report": str(entry.report or ""),
        "Sample images": str(found.samples[-1][2].parent) if found.samples else "",
    }  # fmt: skip
    for label, value in rows.items():
        if value:
            say(f"{label}: {value}")
    for row in found.log[-LAST:]:
        say(f"Step {row['step']}: loss {row['loss']:.4f}")
    for line in dict.fromkeys([*entry.warnings, *([found.problem] if found.problem else []), *found.notices]):
        say(f"Note: {line}")
    if entry.resumable:
        say(f"To continue it: {_continuing(args, entry)}")


def _continuing(args: argparse.Namespace, entry: RunEntry) -> str:
    """The command, which also says where the run is if that isn't the usual place."""
    command = ["python", "-m", "lora_trainer", "train", "--resume", "--name", entry.name]
    return shlex.join(command if args.output == Path("output") else [*command, "--output", str(args.output)])


def run_delete(args: argparse.Namespace) -> None:
    """Delete a run after asking."""
    entry = _entry(args)
    if not args.yes and not agreed(f"Delete the run {entry.name}{_with_lora(args)}? [y/N] ", "add --yes to delete it"):
        say("Nothing was deleted.")
        return
    lora_dir = entry.lora.parent if entry.lora is not None else args.output / "lora"
    deleted = delete_run(args.output, entry, lora_dir, keep_lora=not args.with_lora)
    say(json.dumps({"message": deleted.sentence}) if args.json else deleted.sentence)


def run_use(args: argparse.Namespace) -> None:
    """Let a saved file be the LoRA."""
    used = use_file(args.output, _entry(args), args.file, args.output / "lora")
    say(json.dumps({"message": used.sentence, "lora": str(used.lora)}) if args.json else used.sentence)


def run_forget(args: argparse.Namespace) -> None:
    """Don't offer to continue it."""
    forget_run(args.output, _entry(args).name)
    say(f"{args.name} isn't offered any more; it stays in the list.")


def _entry(args: argparse.Namespace) -> RunEntry:
    return RunList(args.output).entry(args.name)


def _line(entry: RunEntry) -> str:
    more = [entry.verdict, *(["can be continued"] if entry.resumable else []), *entry.warnings]
    return f"{entry.line}{''.join(f'; {words}' for words in more if words)}"


def _with_lora(args: argparse.Namespace) -> str:
    return " and the LoRA files that it wrote" if args.with_lora else "; the LoRA files stay"
