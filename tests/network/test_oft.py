"""OFT in sd-scripts' keys, with its constraint, and what of OFT and BOFT can't be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris.functional.diag_oft import diff_weight
from torch import Tensor

from lora_trainer.errors import ConfigError, FileError
from lora_trainer.network.file import read_lora, write_lora
from lora_trainer.network.network import LoraNetwork
from tests.support.network_types import LAYERS, filled, frozen

Make = Callable[[str], Any]
KEY = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
SDXL_KEY = "input_blocks_4_1_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize("kind", LAYERS)
def test_few_large_blocks_turn_as_lycoris_function_turns_them(kind: str) -> None:
    module, _ = frozen(kind)
    made = filled("oft counted", module)
    blocks = made.file_parts()["oft_blocks"]
    assert blocks.shape == (2, 12, 12), "network_dim is their number"
    theirs = diff_weight(module.weight, blocks, None, constraint=0.01 * 24)
    torch.testing.assert_close(made.delta_weight(), theirs.view_as(module.weight), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        free = diff_weight(module.weight, blocks, None)
    assert float(made.norm()) < 0.2 * float(free.norm())


def sd_scripts(weight: Tensor, blocks: Tensor, alpha: float, multiplier: float) -> Tensor:
    """The weight that sd-scripts' networks/oft.py makes, from its description, in float64."""
    weight, blocks = weight.double(), blocks.double()
    skew = blocks - blocks.transpose(1, 2)
    norm = skew.norm()
    skew = skew * ((norm.clamp(max=alpha * len(weight)) + 1e-8) / (norm + 1e-8))
    eye = torch.eye(blocks.shape[1], dtype=torch.float64)
    turn = multiplier * (torch.matmul(eye + skew, (eye - skew).inverse()) - eye) + eye
    return torch.einsum("knm,knp->kmp", turn, weight.view(*blocks.shape[:2], -1)).reshape(weight.shape)


@pytest.mark.parametrize(("family", "key"), [("sd1", KEY), ("sdxl", SDXL_KEY)])
def test_a_file_of_sd_scripts_is_read_used_and_continued(tiny: Make, family: str, key: str, tmp_path: Path) -> None:
    model = tiny(family)
    layer = next(m.target.module for m in model.network().modules if m.key == f"lora_unet_{key}")
    out = layer.weight.shape[0]
    blocks = torch.randn(2, out // 2, out // 2) / 4
    tensors = {f"oft_unet_{key}.oft_blocks": blocks, f"oft_unet_{key}.alpha": torch.tensor(1e-2)}
    path = tmp_path / "oft.safetensors"
    write_lora(path, tensors, {})
    network = LoraNetwork.from_file(path, model.unet, model.encoders, model.info)
    assert network.notices == [] and [m.label for m in network.modules] == ["OFT"]
    x = torch.randn(3, layer.weight.shape[1])
    with network, network.inference(0.7), torch.no_grad():
        ours = layer(x)
    theirs = x.double() @ sd_scripts(layer.weight, blocks, 1e-2, 0.7).T
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
    options = {"algo": "oft", "network_dim": 2, "lycoris_preset": "attn-only", "network_train_unet_only": True}
    for constraint in (1e-2, 0.0):  # where another one is set, the change is the same
        continued = model.network(**options, constraint=constraint, network_weights=str(path))
        mine = next(m for m in continued.modules if m.key == f"lora_unet_{key}")
        torch.testing.assert_close(mine.delta_weight(), network.modules[0].delta_weight(), rtol=1e-4, atol=1e-6)


def test_a_constraint_doesnt_stop_the_first_step() -> None:
    module, x = frozen("linear")
    made = filled("oft limited", module)
    made.weights["oft_blocks"].data.zero_()
    made.attach()
    module(x).square().sum().backward()
    grad = made.weights["oft_blocks"].grad
    assert grad is not None and bool(torch.isfinite(grad).all()) and bool(grad.any())


def test_what_cant_be_read_or_cut_into_blocks_is_told(tiny: Make, tmp_path: Path) -> None:
    model, path = tiny("sd1"), tmp_path / "a.safetensors"
    tensors = model.network(network_dim=2, algo="diag-oft").state_dict()
    name = next(key for key in tensors if key.endswith("oft_blocks"))
    stem = name.removesuffix("oft_blocks")
    for key, wrong, sentence in (
        (name, torch.zeros(2, 3, 4), "lacks square blocks"),
        (name, torch.zeros(1, 2, 2), r"has \d+ outputs, and the file blocks \(1, 2, 2\)"),
        (name, torch.zeros(3, 2, 4, 4), r"no BOFT that can be read.*\(3, 2, 4, 4\)"),
        (f"{stem}rescale", torch.ones(3, 1), "has 3 scales for"),
    ):
        write_lora(path, {**tensors, key: wrong}, {})
        with pytest.raises(FileError, match=sentence):
            LoraNetwork.from_file(path, model.unet, model.encoders, model.info)
    outputs = tensors[name].shape[0] * 2
    write_lora(path, {**tensors, f"{stem}rescale": torch.ones(outputs, 1)}, {})
    assert read_lora(path).modules[stem[:-1]].parts()["rescale"].shape == (outputs, 1)
    with pytest.raises(FileError, match="switch rescaled on"):
        model.network(network_dim=2, algo="diag-oft", network_weights=str(path))
    with pytest.raises(ConfigError, match="network_dim 7 can't be the number of OFT's blocks"):
        model.network(network_dim=7, algo="oft")
