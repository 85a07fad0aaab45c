"""``make calibrate``: train, judge and measure all runs, then say how right the verdict is. Hours; it resumes.

``python -m tests.calibration FOLDER [RUN ...]`` for some of the runs; FOLDER/table.md has the result.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from tests.calibration.counting import count, table
from tests.calibration.fitting import rows
from tests.calibration.judging import judge_run
from tests.calibration.measuring import measure_run
from tests.calibration.runs import RUNS, Place, Run, named, train_run

log = logging.getLogger("calibration")


def main() -> None:
    """Everything that isn't done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the LoRAs, the counts and the table go")
    parser.add_argument("runs", nargs="*", help="names of runs; all without")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    place = Place(given.folder)
    for run in [named(name) for name in given.runs] or alternating():
        for work in (train_run, judge_run, measure_run):
            log.info("%s: %s", run.name, work.__name__)
            work(run, place)
    found = rows(place)
    parts = {"fitted": count([row for row in found if row.run.fitted]),
             "held out": count([row for row in found if not row.run.fitted])}  # fmt: skip
    text = table({name: one for name, one in parts.items() if one.verdicts})
    (given.folder / "table.md").write_text(text, encoding="utf-8")
    print(text)  # noqa: T201


def alternating() -> list[Run]:
    """The runs, fitted and held out in turn, so that a calibration that is ended early has some of both."""
    fitted, others = ([run for run in RUNS if run.fitted is which] for which in (True, False))
    return [run for pair in zip(fitted, others, strict=True) for run in pair]


if __name__ == "__main__":
    main()
