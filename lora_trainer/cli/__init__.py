"""The command line. Exit status: 0 done (also after a stop that was asked for), 1 failed, 2 wrong usage or input."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from lora_trainer.cli.parser import build_parser
from lora_trainer.cli.terminal import complain, leave_stdout, replace_unknown_characters
from lora_trainer.errors import HostBusyError, LoraTrainerError, NameTakenError, TrainingDivergedError, memory_problem

DONE, FAILED, WRONG_INPUT, ABORTED = 0, 1, 2, 130
FAILURES = (TrainingDivergedError, HostBusyError)  # the others say that something given is wrong


class RunFailedError(LoraTrainerError):
    """What was given was right, but the run broke off: the disk is full, for instance."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    replace_unknown_characters()
    try:
        args = build_parser().parse_args(arguments)
    except SystemExit as exit:  # after --help, or with a line on stderr about the usage
        return int(exit.code or 0)
    _set_up_messages(args.debug)
    try:
        return int(args.run(args) or DONE)
    except LoraTrainerError as error:
        if args.debug:
            raise
        complain(str(error) + _options(error))
        return FAILED if isinstance(error, (RunFailedError, *FAILURES)) else WRONG_INPUT
    except KeyboardInterrupt:
        complain("Aborted.")
        return ABORTED
    except SystemExit as exit:  # a library that gives up
        complain(f"Something ended the program ({exit.code}); --debug shows where.")
        if args.debug:
            raise
        return FAILED
    except BrokenPipeError:  # whoever read our output has gone, for instance `head`; there was nothing else to do
        leave_stdout()
        return DONE
    except Exception as error:
        if args.debug:
            raise
        reason = " ".join(str(error).split()) or "no reason given"
        complain(
            memory_problem(error) or f"{type(error).__name__}: {reason} (unexpected; --debug shows the full trace)"
        )
        return FAILED


def _options(error: LoraTrainerError) -> str:
    """What to type for the choices that there are."""
    words = {
        "resume": "--resume continues it", "overwrite": "--overwrite replaces what is there",
        "resume+overwrite": "--resume --overwrite allows it",
    }  # fmt: skip
    choices = error.choices if isinstance(error, NameTakenError) else ()
    return f" ({', '.join(words[choice] for choice in choices)})" if choices else ""


def _set_up_messages(debug: bool) -> None:
    """Our own warnings as lines on stderr; other libraries only speak with --debug."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s" if debug else "%(message)s",
    )
    if debug:
        for noisy in ("PIL", "urllib3", "matplotlib", "filelock", "asyncio"):
            logging.getLogger(noisy).setLevel(logging.INFO)
        return
    logging.getLogger("lora_trainer").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")
