"""Writing to the terminal. Of several processes only the first one speaks."""

from __future__ import annotations

import io
import math
import os
import shutil
import signal as signals
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from signal import SIG_IGN, SIGINT, SIGTERM, getsignal, signal
from types import FrameType
from typing import TYPE_CHECKING

from lora_trainer.errors import ConfigError

if TYPE_CHECKING:
    from lora_trainer.training.events import CancelToken


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that ``accelerate launch`` started."""
    return int(os.environ.get("RANK", "0")) == 0


def replace_unknown_characters() -> None:
    """Show ? for what the terminal's encoding doesn't have: a pipe on Windows, for instance, knows 250 characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def say(text: str = "") -> None:
    """A line on stdout."""
    if is_first_process():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def complain(text: str) -> None:
    """A line on stderr, from every process: the others' errors would be lost otherwise."""
    prefix = "" if is_first_process() else f"[process {os.environ['RANK']}] "
    with suppress(OSError):  # the terminal may be gone; the exit status says it, too
        sys.stderr.write(f"{prefix}{' '.join(text.split())}\n")
        sys.stderr.flush()


def agreed(question: str, otherwise: str) -> bool:
    """Ask yes or no.

    Raises:
        ConfigError: where nobody is there to be asked; says what to do ``otherwise``.
    """
    if not sys.stdin.isatty():
        raise ConfigError(f"Nobody is there to be asked; {otherwise}.")
    sys.stdout.write(question)
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def duration(seconds: float) -> str:
    """Seconds as 8 s, 2:05 min or 1:02:05 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


class ProgressBar:
    """One bar that is drawn over itself on a terminal; elsewhere a plain line from time to time."""

    LINES = 10  # about so many plain lines for a whole bar
    EVERY = 30.0  # seconds after which a plain line comes in any case

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and is_first_process()
        self._shown = False
        self._what, self._tenth, self._last_line = "", -1, 0.0

    def update(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Show that ``done`` of ``total`` is reached."""
        if what != self._what:
            self._what, self._tenth, self._last_line = what, -1, time.monotonic()
        line = f"{what} {done}/{total}" + (f"  {detail}" if detail else "")
        if self.live:
            share = done / total if total else 1.0
            bar = "█" * math.floor(share * 20)
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("\r\x1b[K" + f"{bar:░<20} {line}"[:width])
            sys.stdout.flush()
            self._shown = True
            if done >= total:
                self.clear()
                say(line)
            return
        tenth = done * self.LINES // total if total else self.LINES
        if tenth > self._tenth or time.monotonic() - self._last_line > self.EVERY:
            self._tenth, self._last_line = tenth, time.monotonic()
            say(line)

    def clear(self) -> None:
        """Take the bar away, so that a line can be written."""
        if self._shown:
            sys.stdout.write("\r\x1b[K")
            self._shown = False

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.clear()
        say(text)


ECHO = 5.0  # seconds in which the launcher of several processes passes on a Ctrl-C that they had from the terminal
GO_AWAY = (SIGINT, SIGTERM, *(getattr(signals, name) for name in ("SIGHUP", "SIGBREAK") if hasattr(signals, name)))


@contextmanager
def stop_on_signals(token: CancelToken) -> Iterator[list[int]]:
    """The first Ctrl-C (or SIGTERM, or the terminal's end) asks for a tidy end, a second Ctrl-C doesn't wait for it.

    Gives the numbers of the signals that came. One that was to be ignored (``nohup``) still is.
    """
    asked = 0.0
    came: list[int] = []
    echo = ECHO if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if came:
            if time.monotonic() - asked < echo:
                return
            token.abort()
        asked = time.monotonic()
        came.append(number)
        token.cancel()
        if is_first_process():  # not through sys.stdout, which may be in the middle of a line
            with suppress(OSError):  # the terminal may be what has gone
                os.write(2, b"\nStopping after this step, then saving. Ctrl-C again doesn't wait for the step.\n")

    before = {number: getsignal(number) for number in GO_AWAY}
    for number, handler in before.items():
        if number in (SIGINT, SIGTERM) or handler is not SIG_IGN:
            signal(number, ask)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal(number, handler)


def status_after(came: list[int]) -> int:
    """The exit status of what these signals ended tidily: a stop by Ctrl-C is what was asked for, the others aren't."""
    return 128 + came[0] if came and came[0] != SIGINT else 0


def leave_stdout() -> None:
    """Nobody reads what we write there: nothing more is to be written, not even when the interpreter ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
