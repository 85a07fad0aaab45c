"""What a report says and shows, for the page of its own and for the tab: verdict, and the three sheets of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from lora_trainer.evaluation.chart import Series, chart
from lora_trainer.evaluation.html import bullets
from lora_trainer.evaluation.prompts import lora_tag, strength_text

SCORES = ("accuracy", "flexibility", "artifacts")

Row = dict[str, Any]  # of report.json's images


@dataclass(frozen=True)
class Look:
    """How pictures and prompts are shown where the report stands."""

    picture: Callable[[Row], str]
    prompt: Callable[[str, str], str]  # of a prompt, and of all the settings of its picture where they are known
    level: int = 2  # of the sections' headings
    link: Callable[[str], str] = lambda name: f'href="{escape(name)}"'  # attributes of a link to a file of the run
    use: Callable[[str], str] = lambda file: ""  # a button that makes a saved file the LoRA itself

    def heading(self, text: str, below: int = 0) -> str:
        """A section's heading, or one that stands further down."""
        level = self.level + below
        return f"<h{level}>{escape(text)}</h{level}>"


def sections(report: dict[str, Any], look: Look) -> list[str]:
    """HTML of the sections that a report has, all text escaped."""
    made = (
        _summary(report, look),
        _strength_section(report, look),
        _integration_section(report, look),
        _epoch_section(report, look),
    )
    return [section for section in made if section]


def _summary(report: dict[str, Any], look: Look) -> str:
    best = report["recommended"]
    stem = Path(best["file"]).stem
    prompt = f"{lora_tag(stem, best['strength'])} {report['trigger']}".strip()
    chip = "chip good" if report["verdict"] == "good" else "chip"
    return f"""<div class="cards">
<section class="card">{look.heading("Use it like this", 1)}
<p class="big">{escape(best["file"])} at {strength_text(best["strength"])}</p>
{look.prompt(prompt, _infotext(report))}
{look.use(best["file"]) if best["file"] != report["lora"] else ""}
<p class="small quiet">{escape(best["why"])}{f" ({escape(best['sure'])})" if "sure" in best else ""}</p></section>
<section class="card">{look.heading("Verdict", 1)}
<p><span class="{chip}">{escape(report["verdict"].capitalize())}</span></p>
{bullets(report["evidence"])}</section>
<section class="card">{look.heading("What to do next", 1)}{bullets(report["advice"])}</section>
</div>
{_scores(report)}{_small_print(report)}"""


def _small_print(report: dict[str, Any]) -> str:
    return f'<p class="small quiet">{escape(report["small_print"])}</p>' if report.get("small_print") else ""


def _scores(report: dict[str, Any]) -> str:
    rows = [row for row in report["strengths"] if any(row[score] for score in SCORES)]
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{score}</th>' for score in SCORES)
    lines = [f'<tr><th scope="row">{strength_text(row["strength"])}</th>{_score_cells(row)}</tr>' for row in rows]
    first = f'<tr><th scope="col">strength</th>{head}</tr>'
    return f'<div class="scroll" tabindex="0"><table class="plain">{first}{"".join(lines)}</table></div>'


def _score_cells(row: Row) -> str:
    """The three figures with their intervals."""
    return "".join(
        f"<td>{row[s]['value']:.0f} <span class='quiet'>({row[s]['low']:.0f}–{row[s]['high']:.0f})</span></td>"
        if row[s]
        else "<td>–</td>"
        for s in SCORES
    )


def _strength_section(report: dict[str, Any], look: Look) -> str:
    rows = [row for row in report["images"] if row["kind"] == "strength"]
    if not rows:
        return ""
    chosen = strength_text(report["recommended"]["strength"])
    return f"""{look.heading("Strength")}
<p>The same seeds at rising strength. 0 is the base model alone.</p>
{look.prompt(report["prompts"]["strength"], _infotext(report))}
{_strength_chart(report)}
{_sheet(rows, look, chosen)}
{_grid_link(report, look, "strength.png")}"""


def _epoch_section(report: dict[str, Any], look: Look) -> str:
    rows = [row for row in report["images"] if row["kind"] == "epoch"]
    if not rows:
        return ""
    if report.get("version", 1) < 2:  # the last file's pictures were the sweep's
        last = [
            {**row, "label": "the last"}
            for row in report["images"]
            if row["kind"] == "strength" and row["strength"] == rows[0]["strength"]
        ]
        return f"""{look.heading("Saved epochs")}
<p>The same prompt with every file that was saved during training. If an earlier one looks as good as the last, prefer
it: it has had less time to memorise the training images.</p>
{_sheet([*rows, *last], look, "")}
{_grid_link(report, look, "epochs.png")}"""
    chosen = next((row["label"] for row in report["epochs"] if row["file"] == report["recommended"]["file"]), "")
    return f"""{look.heading("Saved epochs")}
<p>The same prompt and seed with every file that was saved during training, at rising strength.</p>
{_epoch_chart(report)}
{_epoch_table(report, look)}
{_sheet(rows, look, chosen, by="strength")}
{_grid_link(report, look, "epochs.png")}"""


def _strength_chart(report: dict[str, Any]) -> str:
    """The main file's figures over the strength."""
    if report.get("version", 1) < 2:
        return ""
    rows = [(row["strength"], row) for row in report["strengths"]]
    ticks = [(strength, strength_text(strength)) for strength, _ in rows]
    return chart(_series(rows), ticks, "Accuracy, flexibility and artifacts over the strength.")


def _epoch_chart(report: dict[str, Any]) -> str:
    """Each file's figures at its best strength, in the order of training."""
    rows = [(float(place), row) for place, row in enumerate(report["epochs"])]
    ticks = [(place, row["label"]) for place, row in rows]
    return chart(_series(rows), ticks, "Accuracy, flexibility and artifacts of the saved files, each at its best.")


def _series(rows: Sequence[tuple[float, Row]]) -> list[Series]:
    return [
        Series(name, name, [
            (place, row[name]["value"], row[name]["low"], row[name]["high"]) for place, row in rows if row[name]
        ])
        for name in SCORES
    ]  # fmt: skip


def _epoch_table(report: dict[str, Any], look: Look) -> str:
    """Each file at its best strength."""
    rows = [row for row in report["epochs"] if row["flexibility"]]
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("file", "best at", *SCORES, "verdict"))
    lines = [
        f'<tr><th scope="row">{escape(row["label"])}</th><td>{strength_text(row["strength"])}</td>{_score_cells(row)}'
        f"<td>{escape(row['verdict'])} {look.use(row['file']) if row['file'] != report['lora'] else ''}</td></tr>"
        for row in rows
    ]
    return f'<div class="scroll" tabindex="0"><table class="plain"><tr>{head}</tr>{"".join(lines)}</table></div>'


def _sheet(rows: Sequence[Row], look: Look, chosen: str, by: str = "seed") -> str:
    """Pictures as a table: a column for each label, a row for each seed or strength."""
    labels = list(dict.fromkeys(row["label"] for row in rows))
    mark = {label: ' class="chosen"' if label == chosen else "" for label in labels}
    head = "".join(f'<th scope="col"{mark[label]}>{escape(label)}</th>' for label in labels)
    lines = []
    for value in dict.fromkeys(row[by] for row in rows):
        at = {row["label"]: row for row in rows if row[by] == value}
        cells = "".join(f"<td{mark[label]}>{look.picture(at[label]) if label in at else ''}</td>" for label in labels)
        lines.append(f'<tr><th scope="row">{by} {value}</th>{cells}</tr>')
    first = f'<tr><td class="corner"></td>{head}</tr>'
    return f'<div class="scroll"><table class="sheet">{first}{"".join(lines)}</table></div>'


def _integration_section(report: dict[str, Any], look: Look) -> str:
    rows = [row for row in report["images"] if row["kind"] == "integration"]
    if not rows:
        return ""
    cards = []
    for prompt in report["prompts"]["integration"]:
        mine = [row for row in rows if row["case"] == prompt]
        pairs = []
        for seed in dict.fromkeys(row["seed"] for row in mine):
            figures = "".join(
                f"<figure>{look.picture(row)}<figcaption>"
                f"{'at ' + strength_text(row['strength']) if row['strength'] else 'without the LoRA'}, seed {seed}"
                "</figcaption></figure>"
                for row in mine
                if row["seed"] == seed
            )
            pairs.append(f'<div class="pair">{figures}</div>')
        if pairs:
            cards.append(
                f'<section class="card">{look.prompt(prompt, "")}<div class="scroll">{"".join(pairs)}</div></section>'
            )
    return f"""{look.heading("In other contexts")}
<p>Does it still follow the prompt? Each pair has the same seed, without and with the LoRA.</p>
<div class="pairs">{"".join(cards)}</div>
{_grid_link(report, look, "integration.png")}"""


def _grid_link(report: dict[str, Any], look: Look, name: str) -> str:
    if name not in report["grids"]:
        return ""
    return f'<p class="small"><a {look.link(name)}>All of it as one image</a></p>'


def _infotext(report: dict[str, Any]) -> str:
    """The settings of the sweep's first picture at the recommended strength, or nearest to it; empty without one."""
    wanted = report["recommended"]["strength"]
    sweep = [row for row in report["images"] if row["kind"] == "strength"]
    best = min(sweep, key=lambda row: abs(row["strength"] - wanted), default=None)
    return str(best["infotext"]) if best else ""
