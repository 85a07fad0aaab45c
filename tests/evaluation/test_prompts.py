"""Test prompts: where the tag goes, at which strength, and what a prompts file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.evaluation.prompts import (
    Prompt,
    integration_prompts,
    parse_prompt,
    parse_strengths,
    read_prompts,
    read_prompts_file,
    strength_prompt,
    strength_text,
)
from lora_trainer.subjects import SUBJECTS


def test_prompts_are_those_of_the_course() -> None:
    assert strength_prompt("foxy").at("fox", 0.5) == "<lora:fox:0.5> foxy"
    for subject in ("person", "character", "object", "style", "concept"):
        assert SUBJECTS[subject].integration[:2] == SUBJECTS["person"].integration[:2]
    first, second, *_ = integration_prompts("foxy", SUBJECTS["person"].integration)
    assert first.at("fox", first.strength) == "masterpiece, <lora:fox:0.8> foxy in a forest"
    assert second.at("fox", second.strength) == "<lora:fox:0.7> foxy, cyberpunk style"


def test_caption_is_used_with_the_trigger() -> None:
    assert strength_prompt("foxy", "foxy, sitting").text == "{lora} foxy, sitting"
    assert strength_prompt("foxy", "an animal, sitting").text == "{lora} foxy, an animal, sitting"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{trigger} at sea", Prompt("{lora} foxy at sea", 0.8)),
        ("oil painting of {trigger}, {lora}", Prompt("oil painting of foxy, {lora}", 0.8)),
        ("a {trigger}, <lora:fox:0.65>", Prompt("a foxy, {lora}", 0.65)),
        ("<lora:fox:-0.5> foxy", Prompt("{lora} foxy", -0.5)),
        ("<lora:fox:.5> foxy", Prompt("{lora} foxy", 0.5)),
        ("<lora:fox> foxy", Prompt("{lora} foxy", 1.0)),
        ("<lora:style:0.5> foxy", Prompt("{lora} <lora:style:0.5> foxy", 0.8)),
        ("<lora:foxes:0.5> foxy", Prompt("{lora} <lora:foxes:0.5> foxy", 0.8)),
    ],
)
def test_line_of_a_prompts_file(line: str, expected: Prompt) -> None:
    assert parse_prompt(line, "fox", "foxy") == expected


@pytest.mark.parametrize(
    "line",
    [
        "<lora:fox:0.5:1> foxy",
        "<lora:fox:te=0.5:unet=1> foxy",
        "<lora:fox:1.0.0> foxy",
        "<lora:fox:> foxy",
        "<lora:fox:nan> foxy",
        "<lora:fox:0.5> foxy <lora:fox:0.6>",
        "{lora} <lora:fox:0.5> foxy",
        "{lora} foxy {lora}",
    ],
)
def test_tag_that_cannot_be_tested_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_prompt(line, "fox", "foxy")
    assert line in str(caught.value) and "<lora:fox:weight>" in str(caught.value)


def test_prompts_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeff# comment\n\n{trigger} one\r\n  {trigger} two  \n", encoding="utf-8")
    assert [prompt.text for prompt in read_prompts(read_prompts_file(path), "fox", "foxy")] == [
        "{lora} foxy one",
        "{lora} foxy two",
    ]


@pytest.mark.parametrize("content", [b"", b"# only a comment\n", b"\xff\xfe\x00bad"])
def test_useless_prompts_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"prompts\.txt"):
        read_prompts_file(path)
    with pytest.raises(FileError, match=r"none\.txt"):
        read_prompts_file(tmp_path / "none.txt")


def test_strengths() -> None:
    assert parse_strengths(["0.8", " 0.4", "1"]) == (0.0, 0.4, 0.8, 1.0)
    assert [strength_text(s) for s in (0, 0.4, 0.75, 1.0, -0.5)] == ["0", "0.4", "0.75", "1.0", "-0.5"]
    for wrong in ("a", "", "0.4;0.8", "nan", "9"):
        with pytest.raises(ConfigError, match="strengths can't be"):
            parse_strengths(["0.4", wrong])
