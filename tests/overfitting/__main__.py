"""``make overfitting``: train and judge all trials, then print the table. Hours; it resumes, also beside a second one.

``python -m tests.overfitting FOLDER [--table]``; FOLDER/table.md has the result, ``--table`` makes it of what is there.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from tests.calibration.runs import Place
from tests.overfitting.judging import judge_trial
from tests.overfitting.table import table
from tests.overfitting.trials import PLAIN, train_trial, trials

log = logging.getLogger("overfitting")


def main() -> None:
    """Everything that isn't done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the LoRAs, the counts and the table go")
    parser.add_argument("--table", action="store_true", help="only the table of what is there")
    parser.add_argument("--methods", nargs="*", help="names of methods; all without")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    place = Place(given.folder)
    for trial in [] if given.table else trials():
        if given.methods and trial.method.name not in given.methods:
            continue
        log.info("%s", trial.name)
        train_trial(trial, place)
        for one in [trial, trial.averaged()] if trial.method is PLAIN else [trial]:
            judge_trial(one, place)
    text = table(place)
    (given.folder / "table.md").write_text(text, encoding="utf-8")
    print(text)  # noqa: T201


if __name__ == "__main__":
    main()
