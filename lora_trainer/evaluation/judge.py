"""The verdict on a LoRA and the recommendation: what the figures say in words, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp

from lora_trainer.errors import counted
from lora_trainer.evaluation import limits
from lora_trainer.evaluation.examine import Findings
from lora_trainer.evaluation.looking import Look
from lora_trainer.evaluation.measuring import Cell
from lora_trainer.evaluation.prompts import DEFAULT_STRENGTH, strength_text
from lora_trainer.evaluation.scores import Scores, scores
from lora_trainer.measures.denoising import DRIFT_CAP
from lora_trainer.measures.interval import Estimate

UNDER, GOOD, OVER, UNSTABLE, UNKNOWN = "undertrained", "good", "overtrained", "unstable", "not enough evidence"

Key = tuple[str, float]  # file name, strength


@dataclass(frozen=True)
class Recommendation:
    """Which file at which strength; ``sure``: fairly sure, not very sure, a guess."""

    file: str
    strength: float
    why: str
    sure: str


@dataclass(frozen=True)
class Judgement:
    """What a test found. ``files`` has each file's own verdict."""

    verdict: str  # of the main file at its best strength
    evidence: tuple[str, ...]
    advice: tuple[str, ...]
    recommended: Recommendation
    figures: Mapping[Key, Scores]
    files: Mapping[str, str]


def judge(found: Findings, files: Sequence[str]) -> Judgement:
    """Judge what was measured; ``files`` in the order of training, the main file last."""
    figures = {key: scores(cell, found.looks.get(key)) for key, cell in found.cells.items()}
    verdicts = {file: condition(found.of(file), found.looks, figures) for file in files}
    main = files[-1]
    return Judgement(
        verdict=verdicts[main],
        evidence=(*_evidence(found, figures, main), *_course(verdicts, main), *found.missing),
        advice=tuple(_advice(verdicts[main], verdicts, found, figures, main)),
        recommended=recommend(found, figures, files),
        figures=figures,
        files=verdicts,
    )


def worth(figure: Scores) -> float:
    """What is the best: accuracy times flexibility, 0…1; without training images, flexibility alone."""
    return (figure.accuracy.value if figure.accuracy else 50.0) * figure.flexibility.value / 1e4


def condition(cells: Sequence[Cell], looks: Mapping[Key, Look], figures: Mapping[Key, Scores]) -> str:
    """A file's verdict: there is a strength at which it is right and harmless, or it is known why there is none."""
    measured = [(cell, figures[cell.file, cell.strength]) for cell in cells]
    known = [(cell, figure.accuracy.value / 100, figure.flexibility.value / 100) for cell, figure in measured
             if figure.accuracy is not None]  # fmt: skip
    if not known:
        return UNKNOWN
    usual = min(cells, key=lambda cell: abs(cell.strength - 1.0))
    if usual.gain is not None and usual.gain.value < 0 and usual.drift.value > DRIFT_CAP:
        return UNSTABLE
    look = looks.get((usual.file, usual.strength))
    if look is not None and not 1 / limits.LOUD < look.loudness < limits.LOUD:
        return UNSTABLE
    if any(right >= limits.LEARNT and whole >= limits.INTACT for _, right, whole in known):
        return GOOD
    if all(right < limits.NOT_LEARNT for _, right, whole in known if whole >= limits.DAMAGED):
        learnt = [whole for _, right, whole in known if right >= limits.LEARNT]
        return OVER if learnt else UNDER
    return UNKNOWN


def recommend(found: Findings, figures: Mapping[Key, Scores], files: Sequence[str]) -> Recommendation:
    """The file and the strength of the largest worth; the earlier and the weaker one where they are equal."""
    order = {file: number for number, file in enumerate(files)}
    ranked = sorted(figures, key=lambda key: (-round(worth(figures[key]), 2), order.get(key[0], 0), key[1]))
    if not ranked or not any(figures[key].accuracy for key in ranked):
        return Recommendation(
            files[-1], DEFAULT_STRENGTH, f"Its training images weren't at hand: this is the last file, at "
            f"{strength_text(DEFAULT_STRENGTH)}, a usual strength to start with.", "a guess",
        )  # fmt: skip
    best = ranked[0]
    figure = figures[best]
    assert figure.accuracy is not None
    if figure.accuracy.value < 100 * limits.NOT_LEARNT:
        return _most_learnt(figures, ranked)
    others = [key for key in ranked if key[0] != best[0]]
    ahead = worth(figure) - worth(figures[others[0]]) if others else 1.0
    wide = figure.accuracy.high - figure.accuracy.low
    sure = "fairly sure" if ahead > 0.1 and wide < 30 else "not very sure" if wide < 50 else "a guess"
    why = (
        f"Of {counted(len({file for file, _ in figures}), 'file')}, each at several strengths, it shows the subject "
        f"best ({figure.accuracy.value:.0f} of 100) while leaving the rest as it was "
        f"({figure.flexibility.value:.0f} of 100)."
    )
    if others and ahead < 0.05:
        why += f" {others[0][0]} at {strength_text(others[0][1])} is as good by these figures: compare the images."
    return Recommendation(best[0], best[1], why, sure)


def _most_learnt(figures: Mapping[Key, Scores], ranked: Sequence[Key]) -> Recommendation:
    """Where nothing is learnt yet, the weakest strength would win by doing no harm: what shows the most is named."""

    def right(key: Key) -> float:
        figure = figures[key].accuracy
        return figure.value if figure else 0.0

    best = max(ranked, key=lambda key: (right(key), -key[1]))
    why = f"No file shows the subject well; this one shows the most of it ({right(best):.0f} of 100)."
    return Recommendation(best[0], best[1], why, "a guess")


def _evidence(found: Findings, figures: Mapping[Key, Scores], main: str) -> list[str]:
    """The main file at its best strength in figures."""
    keys = [key for key in figures if key[0] == main]
    if not keys:
        return ["Nothing was measured."]
    best = max(keys, key=lambda key: worth(figures[key]))
    figure, cell = figures[best], found.cells[best]
    lines = []
    if figure.accuracy is not None and cell.gain is not None:
        lines.append(
            f"At strength {strength_text(best[1])}, its best, accuracy is {_span(figure.accuracy)} and flexibility "
            f"{_span(figure.flexibility)} of 100. On its training images the error is {_factor(cell.gain.value)}."
        )
    else:
        lines.append(f"At strength {strength_text(best[1])} flexibility is {_span(figure.flexibility)} of 100.")
    lines.append(
        f"Predictions for prompts without the trigger move by {100 * cell.drift.value:.0f} %; up to "
        f"{100 * DRIFT_CAP:.0f} % is usually harmless."
    )
    if cell.weights == 0:
        lines.append("All its weights are zero: this LoRA has no effect.")
    return lines


def _course(verdicts: Mapping[str, str], main: str) -> list[str]:
    """What became of the files from the first to the last."""
    named = [(file, verdict) for file, verdict in verdicts.items() if verdict != UNKNOWN]
    if len(named) < 2:
        return []
    changes = [f"{verdict} from {file} on" for (_, before), (file, verdict) in pairwise(named) if before != verdict]
    if not changes:
        return [f"All {len(named)} saved files are {named[0][1]}."]
    return [f"The first saved file is {named[0][1]}; {'; '.join(changes)}."]


def _advice(
    verdict: str, verdicts: Mapping[str, str], found: Findings, figures: Mapping[Key, Scores], main: str
) -> list[str]:
    """What to do next, in the words of the workflow; only what the figures support."""
    if verdict == UNDER:
        right = [figure.accuracy.value for (file, _), figure in figures.items() if file == main and figure.accuracy]
        near = max(right, default=0.0)
        more = "Train about half as long again." if near > 35 else "Train two to three times as many epochs."
        return [more, "If that changes little, raise the learning rate and check that every caption has the trigger."]
    if verdict == OVER:
        earlier = [file for file, one in verdicts.items() if one == GOOD]
        use = [f"Use {earlier[-1]} instead, which is good."] if earlier else []
        return [*use, "Train fewer epochs or lower the learning rate: known things change with it.",
                "More varied captions, with colours and places in words, bind the subject to the trigger."]  # fmt: skip
    if verdict == UNSTABLE:
        return ["Lower the learning rate to a third, and use min-SNR gamma 5.",
                "If a noise offset was set, reduce it; then train again from the start."]  # fmt: skip
    if verdict == GOOD:
        return ["Use it. Compare the images: figures don't know your taste."]
    return ["Compare the images yourself: is it your subject, does it follow the prompt, is anything distorted?"]


def _span(figure: Estimate) -> str:
    return f"{figure.value:.0f} ({figure.low:.0f}–{figure.high:.0f})"


def _factor(gain: float) -> str:
    return f"{exp(abs(gain)):.1f} times {'smaller' if gain >= 0 else 'larger'} than the base model's"
