"""``python -m tests.labelled``: how right the checks of images are; writes the table into ``docs/checks.md``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from lora_trainer.dataset.checks.limits import LIMITS
from tests.labelled.backgrounds import backgrounds
from tests.labelled.counting import Count, counts
from tests.labelled.pictures import halves, photographs
from tests.labelled.subjects import table as subjects_table
from tests.labelled.together import outliers, subjects_cut
from tests.labelled.watermarks import watermarks

HEAD = (
    "| check | cases | precision | recall | precision where it was chosen | recall there |\n|---|---|---|---|---|---|\n"
)


def main() -> None:
    """Count, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pillow", type=Path, metavar="FILE", help="Pillow's source archive, for its photographs")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="the page whose table is written anew")
    args = parser.parse_args()
    pictures = photographs(args.pillow)
    results = []
    for number, half in enumerate(halves(list(pictures))):
        known = {name: pictures[name] for name in half}
        with tempfile.TemporaryDirectory() as folder:
            more = [outliers(known), backgrounds(known), watermarks(known), subjects_cut(pictures, number)]
            results.append([*counts(known, Path(folder)), *more])
    table = HEAD + "".join(row(new, old) for old, new in zip(*results, strict=True))
    print(f"{len(pictures)} photographs\n{table}")  # noqa: T201
    for count in results[1]:
        print(count.check, *count.faults, sep="\n  ")  # noqa: T201
    if args.docs:
        limits = "".join(
            f"| {one.measure} | {f'{one.value:g} {one.unit}'.strip()} | {one.source} |\n" for one in LIMITS
        )
        text = args.docs.read_text(encoding="utf-8")
        for mark, content in (("limits", limits), ("cases", table), ("subjects", subjects_table(pictures))):
            begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->\n"
            text = text[: text.index(begin) + len(begin)] + content + text[text.index(end) :]
        args.docs.write_text(text, encoding="utf-8")


def row(new: Count, old: Count) -> str:
    """A line of the table."""
    cells = (
        new.check,
        new.cases,
        f"{new.precision:.3f}",
        f"{new.recall:.3f}",
        f"{old.precision:.3f}",
        f"{old.recall:.3f}",
    )
    return f"| {' | '.join(map(str, cells))} |\n"


if __name__ == "__main__":
    main()
