"""Every network type on a single layer, and what other programs make of its tensors, by their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.config import NetworkConfig
from lora_trainer.network.adapter import Adapter
from lora_trainer.network.blocks import BlockPlan
from lora_trainer.network.control import Control
from lora_trainer.network.kinds import create
from lora_trainer.network.targets import Target

TYPES: dict[str, dict[str, Any]] = {
    "lora": {}, "locon tucker": {"use_tucker": True}, "lora_fa": {"algo": "lora_fa"},
    "tlora": {"algo": "tlora"}, "rslora": {"rs_lora": True},
    "loha": {"algo": "loha"}, "loha tucker": {"algo": "loha", "use_tucker": True},
    "lokr": {"algo": "lokr", "factor": 2}, "lokr tucker": {"algo": "lokr", "factor": 2, "use_tucker": True},
    "lokr both": {"algo": "lokr", "factor": 4, "decompose_both": True},
    "lokr whole": {"algo": "lokr", "full_matrix": True},
    "dora": {"dora_wd": True}, "dora on output": {"dora_wd": True, "wd_on_output": True},
    "doha": {"algo": "loha", "dora_wd": True}, "dokr": {"algo": "lokr", "factor": 2, "dora_wd": True},
    "dora tucker": {"dora_wd": True, "use_tucker": True},
    "dylora": {"algo": "dylora"},
    "oft": {"algo": "diag-oft"}, "oft limited": {"algo": "diag-oft", "constraint": 0.05, "rescaled": True},
    "oft counted": {"algo": "oft", "constraint": 0.01}, "boft": {"algo": "boft", "constraint": 0.2, "rescaled": True},
    "ia3": {"algo": "ia3", "lycoris_preset": "full"}, "ia3 input": {"algo": "ia3", "train_on_input": True},
}  # fmt: skip
LAYERS = ("linear", "bias", "conv1", "conv3", "strided")
RANK, ALPHA = 2, 3.0


def frozen(kind: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Tensor]:
    """A frozen layer whose sides LoKr can split, and an input."""
    generator = torch.Generator().manual_seed(5)
    module: nn.Module
    if kind in ("linear", "bias"):
        module, x = nn.Linear(12, 24, bias=kind == "bias"), torch.randn(3, 5, 12, generator=generator)
    else:
        size, stride = (1, 1) if kind == "conv1" else (3, 2 if kind == "strided" else 1)
        module, x = nn.Conv2d(12, 24, size, stride, size // 2), torch.randn(2, 12, 6, 6, generator=generator)
    for parameter in module.parameters():
        parameter.data.uniform_(-0.5, 0.5, generator=generator)
    return module.to(dtype).requires_grad_(False), x.to(dtype)


def options(name: str) -> NetworkConfig:
    """The configuration of a type."""
    return NetworkConfig(network_dim=RANK, network_alpha=ALPHA, conv_dim=RANK, conv_alpha=ALPHA, **TYPES[name])


def new(name: str, module: Any, key: str = "k", seed: int = 1, **control: Any) -> Adapter:
    """A fresh adapter of a type for a layer."""
    target = Target(key, "path", module, tuple(module.weight.shape), "unet")
    rank, alpha = BlockPlan(options(name), "sd1", None).rank_and_alpha(target)
    return create(target, rank, alpha, Control(**control), seed, options(name))


def filled(name: str, module: Any, **control: Any) -> Adapter:
    """The same with values in all weights, as training would leave them."""
    made = new(name, module, **control)
    generator = torch.Generator().manual_seed(2)
    for weight in made.weights.values():
        weight.data.add_(torch.empty_like(weight).uniform_(-0.5, 0.5, generator=generator))
    return made


def rebuilt(parts: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """The change of ``weight`` that AUTOMATIC1111's loader computes from a file's tensors, in float64.

    From the description of its extensions-builtin/Lora: a matrix product, a Hadamard product or a Kronecker product,
    Tucker cores contracted with both sides, times alpha/rank (1 where nothing has a rank), and magnitudes last.
    """
    p = {name: tensor.double() for name, tensor in parts.items()}
    weight, rank = weight.double(), None

    def product(a: Tensor, b: Tensor, core: Tensor | None = None) -> Tensor:
        if core is None:
            return torch.einsum("or,ri->oi", a, b)
        return torch.einsum("abkl,ao,bi->oikl", core, a, b)

    if "oft_blocks" in p:
        turned = _turned(p["oft_blocks"], float(p["alpha"]) * len(weight), weight)
        return turned * p.get("rescale", torch.ones(())) - weight
    if "weight" in p:
        row = p["weight"].flatten()
        shape = (1, -1) if p["on_input"] else (-1, 1)
        return weight * row.view(*shape, *(1 for _ in weight.shape[2:]))
    if "lora_up.weight" in p:
        up, down = p["lora_up.weight"].flatten(1), p["lora_down.weight"].flatten(1)
        rank, core = down.shape[0], p.get("lora_mid.weight")
        change = product(up, down) if core is None else product(up.T, down, core)
    elif "hada_w1_a" in p:
        rank = p["hada_w1_b"].shape[0]
        halves = [product(p[f"hada_w{i}_a"], p[f"hada_w{i}_b"], p.get(f"hada_t{i}")) for i in (1, 2)]
        change = halves[0] * halves[1]
    else:
        sides = []
        for i in (1, 2):
            if f"lokr_w{i}" not in p:
                rank = p[f"lokr_w{i}_b"].shape[0]
            whole = p.get(f"lokr_w{i}")
            sides.append(product(p[f"lokr_w{i}_a"], p[f"lokr_w{i}_b"], p.get("lokr_t2")) if whole is None else whole)
        first, second = sides[0], sides[1].flatten(1)
        change = torch.einsum("ac,bd->abcd", first, second).flatten(0, 1).flatten(1)
        if weight.dim() == 4:  # the second side's inputs carry the kernel behind them
            change = torch.einsum("ac,bdk->abcdk", first, second.reshape(len(second), -1, weight[0, 0].numel()))
    change = change.reshape(weight.shape) * (1.0 if rank is None else float(p["alpha"]) / rank)
    if "dora_scale" not in p:
        return change
    scale = p["dora_scale"]
    moved = weight + change
    inputs = scale.shape[0] == 1
    over = tuple(i for i in range(weight.dim()) if i != (1 if inputs else 0))
    return moved * scale / moved.pow(2).sum(over, keepdim=True).sqrt() - weight


def _turned(blocks: Tensor, limit: float, weight: Tensor) -> Tensor:
    """Of OFT, or of BOFT, whose stages are loops over single outputs here."""
    skew, eye = blocks - blocks.transpose(-1, -2), torch.eye(blocks.shape[-1], dtype=torch.float64)
    if limit:
        norm = float(skew.norm())
        skew = skew * ((min(norm, limit) + 1e-8) / (norm + 1e-8))
    turn = torch.matmul(eye + skew, (eye - skew).inverse())
    if blocks.dim() == 3:
        return torch.einsum("knm,kn...->km...", turn, weight.view(*blocks.shape[:2], -1)).reshape(weight.shape)
    rows, size = weight.flatten(1), blocks.shape[-1]
    for stage, rotations in enumerate(turn):
        apart = 2**stage * size // 2
        pairs = [(i, i + apart) for i in range(len(rows)) if i // apart % 2 == 0]
        order = [i for pair in pairs for i in pair]
        after = torch.empty_like(rows)
        for number, rotation in enumerate(rotations):
            mine = order[number * size : (number + 1) * size]
            for place, row in enumerate(mine):
                after[row] = sum(float(rotation[place, k]) * rows[other] for k, other in enumerate(mine))
        rows = after
    return rows.reshape(weight.shape)
