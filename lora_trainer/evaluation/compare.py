"""Two tested files side by side: the pictures that both have of the same prompt and seed, and what people voted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from lora_trainer.errors import ConfigError, FileError, quoted
from lora_trainer.evaluation.prompts import DEFAULT_STRENGTH, strength_text
from lora_trainer.evaluation.tested import best_strength, rows_of
from lora_trainer.files import read_lines, read_object

VOTES = "votes.jsonl"  # in the output folder
WINNERS = ("one", "two", "neither")
Winner = Literal["one", "two", "neither"]


@dataclass(frozen=True)
class Side:
    """A file of a tested run; written ``RUN/FILE``."""

    run: str
    file: str
    report: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.run}/{self.file}"

    @property
    def label(self) -> str:
        """For people: the run, which file, and what its test said of it."""
        row = next((row for row in rows_of(self.report, "epochs") if row["file"] == self.file), {})
        which = str(row.get("label") or "the last")
        verdict = row.get("verdict") or (self.report.get("verdict") if self.file == self.report.get("lora") else "")
        return f"{self.run}: {which}{f' ({verdict})' if verdict else ''}"

    @property
    def strength(self) -> float:
        """At which the file is best, as its test found it."""
        return best_strength(self.report, self.file) or DEFAULT_STRENGTH

    def pictures(self) -> dict[tuple[str, int], dict[str, Any]]:
        """By prompt and seed, the picture at the best strength, or nearest to it."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for row in rows_of(self.report, "images"):
            if row["file"] != self.file or not row["strength"]:
                continue
            key = (self._asked(row["prompt"]), row["seed"])
            off = abs(row["strength"] - self.strength)
            if key not in found or off < abs(found[key]["strength"] - self.strength):
                found[key] = row
        return found

    def _asked(self, prompt: str) -> str:
        """A prompt without what differs from LoRA to LoRA."""
        prompt = re.sub(r"<lora:[^>]*>", "", prompt)
        trigger = str(self.report.get("trigger") or "")
        return " ".join((prompt.replace(trigger, "{trigger}") if trigger else prompt).split())


@dataclass(frozen=True)
class Pair:
    """A picture of each side; paths are below the runs' folders."""

    prompt: str
    seed: int
    one: str
    two: str
    strengths: tuple[str, str]


def sides(output: Path) -> list[Side]:
    """Every file that a test has pictures of, the newest test first."""
    reports = [path for path in output.glob("*/report.json") if path.is_file()]
    found = []
    for path in sorted(reports, key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(FileError):
            report = read_object(path)
            files = dict.fromkeys(row["file"] for row in rows_of(report, "images"))
            found += [Side(path.parent.name, file, report) for file in files]
    return found


def side(output: Path, text: str) -> Side:
    """The one that is written so.

    Raises:
        FileError: if no test has pictures of it.
    """
    for one in sides(output):
        if str(one) == text:
            return one
    raise FileError(f"No test has images of {quoted(text)}; test that LoRA first.")


def pairs(one: Side, two: Side) -> list[Pair]:
    """What both have pictures of.

    Raises:
        FileError: if that is nothing.
    """
    mine, theirs = one.pictures(), two.pictures()
    found = [
        Pair(prompt, seed, mine[prompt, seed]["path"], theirs[prompt, seed]["path"],
             (strength_text(mine[prompt, seed]["strength"]), strength_text(theirs[prompt, seed]["strength"])))
        for prompt, seed in mine if (prompt, seed) in theirs
    ]  # fmt: skip
    if not found:
        raise FileError(f"{one} and {two} have no images of the same prompt and seed; test both with the same prompts.")
    return found


@dataclass(frozen=True)
class Vote:
    """Which of two somebody liked better; ``blind`` if they didn't know which was which."""

    one: str
    two: str
    winner: Winner
    blind: bool
    prompt: str = ""
    time: str = ""


def vote(output: Path, given: Mapping[str, Any]) -> Vote:
    """Keep a vote.

    Raises:
        ConfigError: if it isn't one.
        FileError: if there is no such file, or it can't be written.
    """
    winner, blind = given.get("winner"), given.get("blind")
    if winner not in WINNERS:
        raise ConfigError(f"winner can't be {quoted(winner)}; give one of {', '.join(WINNERS)}.")
    if not isinstance(blind, bool):
        raise ConfigError(f"blind can't be {quoted(blind)}; give true or false.")
    one, two = (str(side(output, str(given.get(name) or ""))) for name in ("one", "two"))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    made = Vote(one, two, winner, blind, str(given.get("prompt") or "")[:1000], now)  # type: ignore[arg-type]
    try:
        with (output / VOTES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(made)) + "\n")
    except OSError as error:
        raise FileError(f"The vote can't be kept in {output / VOTES} ({error.strerror}).") from error
    return made


def tally(output: Path, one: Side, two: Side) -> dict[str, int]:
    """How often each of two was preferred, in whichever order they stood."""
    counted = dict.fromkeys(WINNERS, 0)
    swapped = {"one": "two", "two": "one", "neither": "neither"}
    for kept in read_lines(output / VOTES):
        if (kept.get("one"), kept.get("two")) == (str(one), str(two)) and kept.get("winner") in counted:
            counted[kept["winner"]] += 1
        elif (kept.get("two"), kept.get("one")) == (str(one), str(two)) and kept.get("winner") in counted:
            counted[swapped[kept["winner"]]] += 1
    return counted
