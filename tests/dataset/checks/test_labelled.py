"""A small part of the labelled cases; ``make cases`` counts them all and writes docs/checks.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from lora_trainer.dataset.checks.limits import LIMITS
from tests.labelled import counting
from tests.labelled.counting import Count
from tests.labelled.pictures import halves, photographs
from tests.labelled.subjects import WAYS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "checks.md"
LEAST = {"blur": (0.95, 0.90), "exposure": (0.95, 0.90), "borders": (0.95, 0.90), "near-duplicates": (0.98, 0.95),
         "unreadable files": (1.0, 1.0)}  # fmt: skip


@pytest.fixture(scope="module")
def few() -> dict[str, Image.Image]:
    """Photographs that no threshold was chosen on."""
    known = photographs(None)
    return {name: ImageOps.contain(known[name], (360, 360)) for name in ("skimage/astronaut.png", "skimage/coffee.png")}


def test_the_checks_are_right_on_photographs_that_they_were_not_made_with(
    few: dict[str, Image.Image], tmp_path: Path
) -> None:
    results = {count.check: count for count in counting.counts(few, tmp_path)}
    assert set(results) == set(LEAST) and sum(count.cases for count in results.values()) > 150
    shares = {name: (1.0, 0.85) if name in ("blur", "exposure") else least for name, least in LEAST.items()}
    for name, count in results.items():  # of so few cases a single one is 4 %
        assert (count.precision, count.recall) >= (shares[name][0] - 0.06, 0), (name, count.faults)
        assert count.recall >= shares[name][1], (name, count.faults)


def test_the_page_says_what_was_counted_and_what_the_limits_are() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for check, (precision, recall) in LEAST.items():
        (numbers,) = re.findall(rf"^\| {check} \| (\d+) \| ([\d.]+) \| ([\d.]+) \|", text, re.MULTILINE)
        cases, *shares = map(float, numbers)
        assert cases > 100 and shares[0] >= precision and shares[1] >= recall
    for limit in LIMITS:
        assert f"| {limit.measure} | {limit.value:g} {limit.unit}".rstrip() in text, limit


def test_the_page_says_how_well_subjects_are_found_and_that_nothing_else_is_better() -> None:
    text = DOCS.read_text(encoding="utf-8").partition("<!-- subjects -->\n")[2]
    found = {way: float(re.search(rf"^\| {re.escape(way)} \| ([\d.]+) \|", text, re.MULTILINE)[1]) for way in WAYS}
    assert len(found) == 5 and max(found, key=lambda way: found[way]) == next(iter(WAYS))


def test_halves_share_nothing() -> None:
    one, other = halves([f"p{n}" for n in range(9)])
    assert not {*one} & {*other} and len(one) + len(other) == 9


def test_counts() -> None:
    count = Count("x")
    for spoke, should in ((True, True), (True, False), (False, True), (False, False), (True, True)):
        count.add(spoke, should, "case")
    assert (count.cases, count.precision, count.recall, len(count.faults)) == (5, 2 / 3, 2 / 3, 2)
