"""Learned words in the files that tools work on: carried on, put beside, or refused, and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_trainer.cli import main
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.lora_tools.convert import convert
from lora_trainer.lora_tools.merge import bake, merge, resize
from lora_trainer.lora_tools.ranks import wanted_by

KEY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
SD1 = "bundle_emb.zork.string_to_param.*"


def write(path: Path, words: dict[str, Tensor], width: int = 768) -> Path:
    lora = {f"{KEY}.lora_down.weight": torch.randn(2, width), f"{KEY}.lora_up.weight": torch.randn(8, 2)}
    save_file({**lora, **words}, path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "one.safetensors", {SD1: torch.randn(3, 768)})


def test_what_is_written_carries_the_word_on_unchanged(file: Path, tmp_path: Path) -> None:
    word, plain = load_file(file)[SD1], write(tmp_path / "plain.safetensors", {})
    made = [
        bake(file, 0.5, tmp_path / "b.safetensors"),
        resize(file, wanted_by(1, None, {}), tmp_path / "r.safetensors"),
        convert(file, "kohya", tmp_path / "k.safetensors"),
        merge((plain, file, file), [1, 0.5, 0.3], tmp_path / "m.safetensors"),
    ]
    for one in made:
        written = load_file(one.path)
        assert torch.equal(written[SD1], word) and written[SD1].dtype == torch.float32, "no strength, no rounding"
        assert written[f"{KEY}.lora_up.weight"].dtype == torch.float16
        assert one.lines[-1] == "The learned word zork is kept as it is."
        assert one.modules == 1


def test_a_merge_keeps_the_words_of_all_files_but_not_two_of_one_name(file: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "two.safetensors", {"bundle_emb.blim.string_to_param.*": torch.randn(2, 768)})
    merged = merge((file, other), [1, 1], tmp_path / "m.safetensors")
    assert {name for name in load_file(merged.path) if "bundle" in name} == {
        SD1, "bundle_emb.blim.string_to_param.*"
    }  # fmt: skip
    assert len(merged.lines) == 3
    same = write(tmp_path / "three.safetensors", {SD1.replace("zork", "Zork"): torch.randn(3, 768)})
    with pytest.raises(ConfigError, match=r"one\.safetensors and three\.safetensors can't be merged.*learned 'Zork'"):
        merge((file, same), [1, 1], tmp_path / "n.safetensors")
    assert not (tmp_path / "n.safetensors").exists()


def test_diffusers_reads_the_lora_and_the_word_from_a_file_each(file: Path, tmp_path: Path) -> None:
    made = convert(file, "peft", tmp_path / "p.safetensors")
    assert all("lora" in name for name in load_file(made.path)), "diffusers refuses the file otherwise"
    embedding = load_file(tmp_path / "p_zork.safetensors")
    assert embedding.keys() == {"emb_params"} and torch.equal(embedding["emb_params"], load_file(file)[SD1])
    assert "p_zork.safetensors" in made.lines[-1]
    with pytest.raises(ConfigError, match=r"p_zork\.safetensors exists already"):
        (tmp_path / "p.safetensors").unlink()
        convert(file, "peft", tmp_path / "p.safetensors")
    assert not (tmp_path / "p.safetensors").exists()
    parts = {f"bundle_emb.zork.{part}": torch.randn(2, width) for part, width in (("clip_l", 768), ("clip_g", 1280))}
    convert(write(tmp_path / "xl.safetensors", parts, 2048), "diffusers", tmp_path / "d.safetensors")
    assert load_file(tmp_path / "d_zork.safetensors").keys() == {"clip_l", "clip_g"}, "as its loader of SDXL's has them"
    hostile = write(tmp_path / "h.safetensors", {"bundle_emb./up.clip_l": torch.ones(768, dtype=torch.float64)})
    with pytest.raises(FileError, match="can't be written to a file of its own"):
        convert(hostile, "peft", tmp_path / "q.safetensors")
    assert not (tmp_path / "q.safetensors").exists()


def test_it_is_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lora", "show", str(file)]) == 0
    assert "learned word zork, 3 vectors" in capsys.readouterr().out
    assert main(["lora", "show", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["words"] == {"zork": 3}
