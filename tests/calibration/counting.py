"""How right the verdict and the recommendation are, held against the judge who knows the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from statistics import mean
from typing import Any

from lora_trainer.evaluation import judge as judging
from lora_trainer.evaluation.choosing import best_cell
from lora_trainer.evaluation.examine import Findings
from lora_trainer.evaluation.looking import Look
from lora_trainer.evaluation.measuring import Cell
from lora_trainer.measures.interval import Estimate
from tests.calibration.fitting import Row, labels
from tests.calibration.runs import SAVES

EDGE = "edge"  # between two labels: no verdict would be wrong
CLEAR = (judging.UNDER, judging.GOOD, judging.OVER, judging.UNSTABLE)

Rule = Callable[[Sequence[Row]], "Row | None"]  # None where a run lacks what the rule goes by


@dataclass
class Count:
    """Of a set of runs: each file's true label and verdict; regret by rule and run."""

    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    regrets: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def told(self) -> int:
        """Files with a clear label that got a verdict."""
        return sum(n for (true, said), n in self.verdicts.items() if true != EDGE and said != judging.UNKNOWN)

    @property
    def right(self) -> int:
        """Those whose verdict is the label."""
        return sum(n for (true, said), n in self.verdicts.items() if true == said)

    @property
    def abstained(self) -> int:
        """Files with a clear label that got none."""
        return sum(n for (true, said), n in self.verdicts.items() if true != EDGE and said == judging.UNKNOWN)


def count(rows: Sequence[Row]) -> Count:
    """Judge every run as a test of it would."""
    counted, true = Count(), labels(list(rows))
    for name in dict.fromkeys(row.run.name for row in rows):
        mine = [row for row in rows if row.run.name == name]
        files = [str(step) for step in SAVES if any(row.step == step for row in mine)]
        verdict = judging.judge(findings(mine), files)
        for file in files:
            counted.verdicts[true[name, int(file)], verdict.files[file]] += 1
        at = (int(verdict.recommended.file), verdict.recommended.strength)
        chosen = {"recommended": next(row for row in mine if (row.step, row.strength) == at)}
        chosen |= {rule: row for rule, choose in RULES.items() if (row := choose(mine)) is not None}
        best = max(row.truth.quality for row in mine)
        for rule, row in chosen.items():
            counted.regrets.setdefault(rule, {})[name] = best - row.truth.quality
    return counted


def findings(rows: Sequence[Row]) -> Findings:
    """What a test of a run finds."""
    found = Findings()
    for row in rows:
        key = (str(row.step), row.strength)
        found.cells[key] = _cell(row)
        look = row.measured.get("look")
        if look:
            found.looks[key] = Look(**{**look, "likeness": _estimate(look["likeness"])})
    return found


def _cell(row: Row) -> Cell:
    known = {one.name for one in fields(Cell)}
    values = {name: _estimate(value) for name, value in row.measured.items() if name in known}
    return Cell(**{**values, "file": str(row.step), "strength": row.strength, "bins": tuple(values["bins"])})


def _estimate(value: Any) -> Any:
    return Estimate(**value) if isinstance(value, dict) else value


def _under_the_cap(rows: Sequence[Row]) -> Row:
    best = best_cell([_cell(row) for row in rows])
    return next(row for row in rows if (str(row.step), row.strength) == (best.file, best.strength))


def _most(name: str) -> Rule:
    def choose(rows: Sequence[Row]) -> Row | None:
        known = [row for row in rows if row.value(name) == row.value(name)]  # not NaN
        return max(known, key=lambda row: row.value(name), default=None)

    return choose


RULES: dict[str, Rule] = {
    "last file at 1.0": lambda rows: next(row for row in rows if (row.step, row.strength) == (SAVES[-1], 1.0)),
    "gain under the cap on drift": _under_the_cap,
    "gain alone": _most("gain"),
    "likeness alone": _most("likeness"),
    "least drift": lambda rows: min(rows, key=lambda row: row.value("drift")),
}


def table(parts: dict[str, Count]) -> str:
    """Markdown: the verdict, its confusions, and the regret of each rule, for each set of runs."""
    lines = ["| runs | files with a clear label | given a verdict | right | abstained |", "|---|---|---|---|---|"]
    for name, one in parts.items():
        clear = one.told + one.abstained
        lines.append(
            f"| {name} | {clear} | {one.told} | {one.right} ({one.right / max(one.told, 1):.0%}) "
            f"| {one.abstained} ({one.abstained / max(clear, 1):.0%}) |"
        )
    said = (*CLEAR, judging.UNKNOWN)
    for name, one in parts.items():
        lines += ["", f"{name}, true label against verdict:", "", f"| | {' | '.join(said)} |", "|---" * 6 + "|"]
        lines += [f"| {true} | {' | '.join(str(one.verdicts[true, s]) for s in said)} |" for true in (*CLEAR, EDGE)]
    lines += ["", f"| regret (mean / worst run) | {' | '.join(parts)} |", "|---" * (len(parts) + 1) + "|"]
    for rule in ("recommended", *RULES):
        cells = [f"{mean(one.regrets[rule].values()):.3f} / {max(one.regrets[rule].values()):.2f}"
                 for one in parts.values()]  # fmt: skip
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
