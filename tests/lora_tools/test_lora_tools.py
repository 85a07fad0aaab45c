"""Tools for finished files: against sums and decompositions in float64, and sd-scripts' rules in closed form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_trainer.cli import main
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.hosts.standalone.detect import detect
from lora_trainer.lora_tools.convert import convert
from lora_trainer.lora_tools.extract import _clamped, _weights, extract
from lora_trainer.lora_tools.merge import bake, merge, resize
from lora_trainer.lora_tools.ranks import Rule, Wanted, wanted_by
from lora_trainer.network.file import read_lora, write_lora
from lora_trainer.network.lora import LoraWeights

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
SHAPES = {UNET: (20, 768), CONV: (12, 8, 3, 3), TEXT: (16, 10)}
META = {"ss_base_model_version": "sd_v1", "ss_v2": "False", "ss_network_dim": "6", "ss_output_name": "one"}


def lora(path: Path, seed: int, rank: int = 6, alpha: float = 3.0, names: tuple[str, ...] = tuple(SHAPES)) -> Path:
    """A LoRA whose singular values fall off."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key in names:
        out, *rest = SHAPES[key]
        fall = torch.tensor([0.5**i for i in range(rank)])
        tensors[f"{key}.lora_up.weight"] = (torch.randn(out, rank, generator=generator) * fall).view(
            out, rank, *(1 for _ in rest[1:]))  # fmt: skip
        tensors[f"{key}.lora_down.weight"] = torch.randn(rank, *rest, generator=generator)
        tensors[f"{key}.alpha"] = torch.tensor(alpha)
    write_lora(path, tensors, META)
    return path


def changes(path: Path) -> dict[str, Tensor]:
    """The change of every weight at strength 1, [out, in · kernel], from the tensors."""
    tensors = {name: tensor.double() for name, tensor in load_file(path).items()}
    keys = {name.partition(".")[0] for name in tensors}
    found = {}
    for key in keys:
        down, up = tensors[f"{key}.lora_down.weight"].flatten(1), tensors[f"{key}.lora_up.weight"].flatten(1)
        found[key] = torch.einsum("or,ri->oi", up, down) * float(tensors.get(f"{key}.alpha", len(down))) / len(down)
    return found


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    one, other = lora(tmp_path / "one.safetensors", 1), lora(tmp_path / "two.safetensors", 2, 3, 9.0, (UNET, TEXT))
    return one, other


def test_a_merge_is_the_sum_of_the_changes(two: tuple[Path, Path], tmp_path: Path) -> None:
    made = merge(two, [0.7, -0.4], tmp_path / "sum.safetensors", precision="float")
    one, other, total = changes(two[0]), changes(two[1]), changes(made.path)
    assert total.keys() == one.keys() and made.modules == 3
    for key, change in total.items():
        torch.testing.assert_close(change, 0.7 * one[key] - 0.4 * other.get(key, torch.zeros(1)), rtol=1e-5, atol=1e-5)
    metadata = read_lora(made.path).metadata
    assert metadata["modelspec.merged_from"] == "0.7 · one + -0.4 · two"
    assert metadata["ss_base_model_version"] == "sd_v1" and metadata["ss_network_dim"] == "Dynamic"


def best(change: Tensor, rank: int) -> Tensor:
    """The closest matrix of a rank."""
    u, s, v = torch.linalg.svd(change)
    return u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]


def test_a_merge_to_a_rank_is_the_closest_of_that_rank(two: tuple[Path, Path], tmp_path: Path) -> None:
    made = merge(two, [1.0, 0.5], tmp_path / "sum.safetensors", Wanted(4, 2), "float")
    one, other = changes(two[0]), changes(two[1])
    for key, change in changes(made.path).items():
        rank = 2 if key == CONV else 4
        expected = best(one[key] + 0.5 * other.get(key, torch.zeros(1)), rank)
        torch.testing.assert_close(change, expected, rtol=1e-5, atol=1e-5)


def sd_scripts_rank(s: Tensor, rule: str, value: float, most: int) -> int:
    """The rank by resize_lora.py's rules, written from their description: the index by the rule, plus one, capped."""
    if rule == "sv_ratio":
        index = sum(float(x) > float(s[0]) / value for x in s)
    else:
        sizes = s**2 if rule == "sv_fro" else s
        share, total, index = (value**2 if rule == "sv_fro" else value), 0.0, len(s)
        for i, x in enumerate(sizes):
            total += float(x / sizes.sum())
            if total >= share:
                index = i + 1
                break
    return min(max(1, min(index, len(s) - 1)) + 1, most)


@pytest.mark.parametrize(
    ("rule", "value"), [("", 0.0), ("sv_fro", 0.95), ("sv_fro", 0.5), ("sv_ratio", 6.0), ("sv_cumulative", 0.8)]
)
def test_resizing_follows_sd_scripts(tmp_path: Path, rule: Rule, value: float) -> None:
    source = lora(tmp_path / "one.safetensors", 1)
    made = resize(source, Wanted(4, 3, rule, value), tmp_path / "small.safetensors", "float")
    before, tensors = changes(source), load_file(made.path)
    for key, change in changes(made.path).items():
        most = 3 if key == CONV else 4
        rank = sd_scripts_rank(torch.linalg.svdvals(before[key]), rule, value, most) if rule else most
        assert len(tensors[f"{key}.lora_down.weight"]) == rank
        torch.testing.assert_close(change, best(before[key], rank), rtol=1e-5, atol=1e-5)
        assert float(tensors[f"{key}.alpha"]) == pytest.approx(0.5 * rank)  # alpha/rank stays
    assert tensors[f"{CONV}.lora_down.weight"].shape[1:] == (8, 3, 3)


def test_a_rank_that_is_large_enough_loses_nothing(tmp_path: Path) -> None:
    source = lora(tmp_path / "one.safetensors", 1)
    made = resize(source, wanted_by(6, None, {}), tmp_path / "same.safetensors", "float")
    for key, change in changes(made.path).items():
        torch.testing.assert_close(change, changes(source)[key], rtol=1e-5, atol=1e-5)
    assert "100.0%" in made.lines[1]


def loha(path: Path) -> tuple[Path, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    tensors, whole = {}, {}
    for key, shape in SHAPES.items():
        out, inputs = shape[0], torch.Size(shape[1:]).numel()
        w = {part: torch.randn(2, size, generator=generator) for part, size in
             (("w1_a", out), ("w1_b", inputs), ("w2_a", out), ("w2_b", inputs))}  # fmt: skip
        tensors |= {f"{key}.hada_{part}": t.T.contiguous() if part[-1] == "a" else t for part, t in w.items()}
        tensors[f"{key}.alpha"] = torch.tensor(1.0)
        whole[key] = ((w["w1_a"].T @ w["w1_b"]) * (w["w2_a"].T @ w["w2_b"]) / 2).double()
    write_lora(path, tensors, META)
    return path, whole


def test_other_types_become_loras(tmp_path: Path, two: tuple[Path, Path]) -> None:
    source, whole = loha(tmp_path / "loha.safetensors")
    made = resize(source, wanted_by(4, None, {}), tmp_path / "lora.safetensors", "float")
    for key, change in changes(made.path).items():  # rank 2 · 2 holds all of a LoHa of rank 2
        torch.testing.assert_close(change, whole[key], rtol=1e-4, atol=1e-4)
    assert load_file(made.path)[f"{CONV}.lora_down.weight"].shape == (4, 8, 3, 3)
    with pytest.raises(ConfigError, match="is a LoHa: a sum of other types than LoRA needs a rank"):
        merge((source, two[0]), [1, 1], tmp_path / "sum.safetensors")
    summed = merge((source, two[0]), [1, 1], tmp_path / "sum.safetensors", Wanted(10, 10), "float")
    for key, change in changes(summed.path).items():
        torch.testing.assert_close(change, whole[key] + changes(two[0])[key], rtol=1e-4, atol=1e-4)


def test_baking_multiplies_the_change_of_every_type(tmp_path: Path) -> None:
    source = lora(tmp_path / "one.safetensors", 1)
    baked = bake(source, -0.6, tmp_path / "b.safetensors", "float")
    for key, change in changes(baked.path).items():
        torch.testing.assert_close(change, -0.6 * changes(source)[key], rtol=1e-5, atol=1e-5)
    other, whole = loha(tmp_path / "loha.safetensors")
    weights = read_lora(bake(other, 0.5, tmp_path / "c.safetensors", "float").path).modules
    for key, change in whole.items():
        found: Any = weights[key].change()
        torch.testing.assert_close(found.double().flatten(1), change / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["diffusers", "peft"])
def test_converted_keys_mean_the_same_there_and_back(tmp_path: Path, form: str) -> None:
    source = lora(tmp_path / "one.safetensors", 1)
    made = convert(source, form, tmp_path / "d.safetensors", "float")
    path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    ending = {"diffusers": "lora.down.weight", "peft": "lora_A.weight"}[form]
    assert f"{path}.{ending}" in load_file(made.path)
    back = convert(made.path, "kohya", tmp_path / "k.safetensors", "float")
    assert changes(back.path).keys() == changes(source).keys()
    for key, change in changes(back.path).items():
        torch.testing.assert_close(change, changes(source)[key], rtol=1e-5, atol=1e-5)


def test_sdxl_keys_are_told_by_place(tmp_path: Path) -> None:
    key = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k"
    tensors = {f"{key}.lora_down.weight": torch.randn(2, 2048), f"{key}.lora_up.weight": torch.randn(640, 2)}
    write_lora(tmp_path / "x.safetensors", tensors, {})
    made = convert(tmp_path / "x.safetensors", "peft", tmp_path / "y.safetensors", "float")
    assert "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.lora_A.weight" in load_file(made.path)
    back = convert(made.path, "kohya", tmp_path / "z.safetensors", "float")
    assert f"{key}.lora_down.weight" in load_file(back.path)


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_extracting_finds_what_was_added(tiny_checkpoint: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    base = tiny_checkpoint(kind)
    found = detect(base)
    weights = _weights(found, convolutions=True)
    tensors = {name: tensor.float() for name, tensor in load_file(base).items()}
    generator, added = torch.Generator().manual_seed(4), {}
    for name, tensor in tensors.items():  # a change of rank 2 in every weight that has two sides
        if tensor.dim() in (2, 4) and min(tensor.shape[:2]) > 2:
            left, right = (torch.randn(size, 2, generator=generator) for size in (len(tensor), tensor[0].numel()))
            added[name] = (left @ right.T).view(tensor.shape) * 0.1
    tuned = tmp_path / "tuned.safetensors"
    save_file({name: tensor + added.get(name, 0) for name, tensor in tensors.items()}, tuned)
    made = extract(base, tuned, Wanted(8, 8), tmp_path / "e.safetensors", "float", clamp_quantile=1.0)
    after = _weights(detect(tuned), convolutions=True)
    got = changes(made.path)
    assert got.keys() == weights.keys() and read_lora(made.path).modules.keys() == got.keys()
    for key, change in got.items():
        expected = (after[key]().double() - weights[key]().double()).flatten(1)
        torch.testing.assert_close(change, best(expected, 8), rtol=1e-3, atol=1e-4)
    assert any("lora_te" in key for key in got)


def test_factors_are_clamped_as_sd_scripts_clamps_them() -> None:
    weights = LoraWeights(torch.randn(4, 50), torch.randn(30, 4), 4.0)
    limit = torch.quantile(torch.cat([weights.up.flatten(), weights.down.flatten()]), 0.9)
    clamped = _clamped(weights, 0.9)
    for name in ("up", "down"):
        torch.testing.assert_close(getattr(clamped, name), getattr(weights, name).clamp(-limit, limit))


def test_what_doesnt_go_is_told_in_one_sentence(two: tuple[Path, Path], tmp_path: Path) -> None:
    free = tmp_path / "free.safetensors"
    with pytest.raises(ConfigError, match=r"one\.safetensors exists already"):
        bake(two[1], 0.5, two[0])
    with pytest.raises(ConfigError, match="There are 2 LoRAs and 1 ratios"):
        merge(two, [1.0], free)
    with pytest.raises(ConfigError, match="sv_fro can't be 2; give a number above 0"):
        wanted_by(None, None, {"sv_fro": 2.0})
    with pytest.raises(ConfigError, match="Give a rank"):
        wanted_by(None, None, {})
    with pytest.raises(ConfigError, match="strength can't be 0"):
        bake(two[0], 0.0, free)
    tensors = load_file(two[0])
    write_lora(tmp_path / "dora.safetensors", {**tensors, f"{UNET}.dora_scale": torch.ones(1, 768)}, META)
    for call in (lambda p: bake(p, 0.5, free), lambda p: resize(p, Wanted(2, 2), free)):
        with pytest.raises(FileError, match="DoRA"):
            call(tmp_path / "dora.safetensors")
    turned = {f"{TEXT}.oft_blocks": torch.zeros(4, 4, 4), f"{TEXT}.alpha": torch.zeros(())}
    write_lora(tmp_path / "oft.safetensors", turned, META)
    with pytest.raises(FileError, match=r"oft\.safetensors is of type OFT .*strength"):
        bake(tmp_path / "oft.safetensors", 0.5, free)
    wide = {f"{TEXT}.lora_down.weight": torch.ones(2, 11), f"{TEXT}.lora_up.weight": torch.ones(16, 2)}
    write_lora(tmp_path / "wide.safetensors", wide, META)
    with pytest.raises(FileError, match=f"{TEXT} is of different widths"):
        merge((two[0], tmp_path / "wide.safetensors"), [1, 1], free)
    write_lora(tmp_path / "xl.safetensors", wide, {"ss_base_model_version": "sdxl_base_v1-0"})
    with pytest.raises(ConfigError, match=r"SDXL.*one family"):
        merge((two[0], tmp_path / "xl.safetensors"), [1, 1], free)
    assert not free.exists()


def test_the_command_line(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = map(str, two)
    out = str(tmp_path / "out.safetensors")
    assert main(["lora", "merge", one, other, "--ratios", "1", "0.5", "--output", out]) == 0
    assert "0.5 · two" in capsys.readouterr().out
    assert main(["lora", "resize", out, "--sv_fro", "0.9", "--output", out]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["lora", "resize", out, "--sv_fro", "0.9", "--output", out, "--overwrite"]) == 0
    assert main(["lora", "convert", one, "--to", "peft", "--output", str(tmp_path / "p.safetensors")]) == 0
    assert main(["lora", "bake", one, "--strength", "0.8", "--output", str(tmp_path / "b.safetensors")]) == 0
    capsys.readouterr()
    assert main(["lora", "show", one, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["types"] == {"LoRA": 3} and shown["ranks"] == [6, 6] and shown["family"] == "SD 1.x"
    assert main(["lora", "show", one]) == 0
    assert "2 modules of the UNet and 1 module of the text encoder; rank 6, alpha 3" in capsys.readouterr().out
