"""Two tested files side by side: the same prompt and seed, each at its best strength; votes are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.evaluation.compare import VOTES, pairs, side, sides, tally, vote


def picture(name: str, file: str, strength: float, prompt: str, seed: int = 1) -> dict[str, Any]:
    return {"kind": "strength", "file": file, "strength": strength, "seed": seed, "prompt": prompt, "path": name,
            "infotext": prompt}  # fmt: skip


def report(output: Path, run: str, trigger: str, images: list[Any], **more: Any) -> None:
    folder = output / run
    folder.mkdir(parents=True, exist_ok=True)
    found = {"lora": f"{run}.safetensors", "trigger": trigger, "images": images, "verdict": "good", **more}
    (folder / "report.json").write_text(json.dumps(found))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    cat, dog = "cat.safetensors", "dog.safetensors"
    report(tmp_path, "cat", "zcat", [
        picture("c0.png", cat, 0.0, "zcat on ice"), picture("c6.png", cat, 0.6, "<lora:cat:0.6> zcat on ice"),
        picture("c8.png", cat, 0.8, "<lora:cat:0.8>  zcat on ice"),
        picture("c9.png", cat, 0.8, "<lora:cat:0.8> zcat", 2),
        picture("e1.png", "cat-000001.safetensors", 1.0, "<lora:cat-000001:1.0> zcat on ice"),
    ], epochs=[{"file": "cat-000001.safetensors", "label": "epoch 1", "strength": 1.0, "verdict": "undertrained"},
               {"file": cat, "label": "the last", "strength": 0.6, "verdict": "good"}],
       recommended={"file": cat, "strength": 0.8})  # fmt: skip
    report(tmp_path, "dog", "zdog", [
        picture("d7.png", dog, 0.7, "<lora:dog:0.7> zdog on ice"),
        picture("d9.png", dog, 0.8, "<lora:dog:0.8> zdog", 3),
    ], recommended={"file": dog, "strength": 0.7})  # fmt: skip
    return tmp_path


CAT, DOG, FIRST = "cat/cat.safetensors", "dog/dog.safetensors", "cat/cat-000001.safetensors"


def test_pairs_have_the_same_prompt_and_seed_each_at_its_best(output: Path) -> None:
    (pair,) = pairs(side(output, CAT), side(output, DOG))
    assert (pair.prompt, pair.seed, pair.one, pair.two, pair.strengths) == (
        "{trigger} on ice", 1, "c8.png", "d7.png", ("0.8", "0.7"),
    )  # fmt: skip
    (pair,) = pairs(side(output, FIRST), side(output, CAT))
    assert (pair.one, pair.two) == ("e1.png", "c8.png")


def test_every_tested_file_can_be_chosen_and_says_what_it_is(output: Path) -> None:
    (output / "broken").mkdir()
    (output / "broken/report.json").write_text("{")
    report(output, "odd", "", [3, {}, {"file": "x"}], epochs=4)
    labels = {str(one): one.label for one in sides(output)}
    assert labels == {CAT: "cat: the last (good)", FIRST: "cat: epoch 1 (undertrained)", DOG: "dog: the last (good)"}


def test_nothing_in_common_is_said(output: Path) -> None:
    report(output, "ox", "zox", [picture("o.png", "ox.safetensors", 0.8, "<lora:ox:0.8> zox at sea")])
    with pytest.raises(FileError, match="no images of the same prompt and seed"):
        pairs(side(output, CAT), side(output, "ox/ox.safetensors"))
    with pytest.raises(FileError, match="test that LoRA first"):
        side(output, "../cat/cat.safetensors")


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/secret.png", "images/../../x.png"])
def test_a_report_leads_nowhere_else(output: Path, path: str) -> None:
    report(output, "evil", "zox", [picture(path, "evil.safetensors", 0.8, "<lora:evil:0.8> zox on ice")])
    with pytest.raises(FileError, match="No test has images"):
        pairs(side(output, CAT), side(output, "evil/evil.safetensors"))


def test_votes_count_in_whichever_order_the_two_stood(output: Path) -> None:
    for one, two, winner in ((CAT, DOG, "one"), (DOG, CAT, "two"), (DOG, CAT, "one"), (CAT, DOG, "neither"),
                             (CAT, FIRST, "two")):  # fmt: skip
        kept = vote(output, {"one": one, "two": two, "winner": winner, "blind": True, "prompt": "p"})
        assert kept.time and kept.blind
    with (output / VOTES).open("a") as file:
        file.write("half a li\n[]\n")
    assert tally(output, side(output, CAT), side(output, DOG)) == {"one": 2, "two": 1, "neither": 1}
    assert tally(output, side(output, DOG), side(output, CAT)) == {"one": 1, "two": 2, "neither": 1}
    assert len((output / VOTES).read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"winner": "cat"}, ConfigError, "winner"),
        ({"blind": 1}, ConfigError, "blind"),
        ({"two": "x/y"}, FileError, "x/y"),
    ],
)
def test_wrong_votes_are_refused(output: Path, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        vote(output, {"one": CAT, "two": DOG, "winner": "one", "blind": False, **changes})
    assert not (output / VOTES).exists()
