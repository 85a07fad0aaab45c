"""The network type as kohya's form has it: ``LoRA_type`` and the fields that it is given."""

from __future__ import annotations

from typing import Any

from lora_trainer.config import OPTIONS
from lora_trainer.kohya.types import BLOCKS, LYCORIS, OTHER_NAMES, TYPE_OPTIONS, TYPES

SHOWN: dict[str, Any] = {  # what the form shows where nothing is set; it keeps showing its last value otherwise
    "LyCORIS_preset": "full", "bypass_mode": False, "constrain": 0, "decompose_both": False, "dora_wd": False,
    "factor": -1, "rank_dropout_scale": False, "rescaled": False, "train_norm": False, "train_on_input": False,
    "unit": 1, "use_cp": False, "use_scalar": False, "use_tucker": False,
}  # fmt: skip
_LYCORIS = {
    "lora": "LyCORIS/LoCon", "loha": "LyCORIS/LoHa", "lokr": "LyCORIS/LoKr", "ia3": "LyCORIS/iA3",
    "dylora": "LyCORIS/DyLoRA", "diag-oft": "LyCORIS/Diag-OFT", "boft": "LyCORIS/BOFT",
}  # fmt: skip


def write_type(flat: dict[str, Any], data: dict[str, Any], extra: list[str], lost: list[str]) -> None:
    """The type whose fields carry most; what it isn't given is listed."""
    kind = _kind(flat, lost)
    data["LoRA_type"] = kind
    row = TYPES[kind]
    for name in TYPE_OPTIONS:
        if flat[name] == OPTIONS[name].default:
            continue
        if name in row.fields:
            data[name] = flat[name]
        elif other := next((other for other, ours in OTHER_NAMES.items() if ours == name and other in row.fields), ""):
            data[other] = flat[name]
        else:
            lost.append(f"kohya's form has no {name} for {kind}; it isn't written.")
    _conv(flat, kind, lost)
    if row.module == LYCORIS:
        data["LyCORIS_preset"] = preset_of(flat, lost)
        given = [name for name in BLOCKS if flat[name] != OPTIONS[name].default]
        lost += [f"LyCORIS has no {name}; kohya's form won't pass it on." for name in given]
    elif flat["lycoris_preset"]:
        lost.append(f"lycoris_preset isn't written, because {kind} has none.")


def _kind(flat: dict[str, Any], lost: list[str]) -> str:
    algo = plain_type(flat, lost)
    if algo == "lora_fa":
        return "LoRA-FA"
    if algo == "dylora" and not flat["lycoris_preset"] and not flat["train_norm"]:
        return "Kohya DyLoRA"
    if algo == "oft":
        lost.append("kohya's form has no algo oft; LyCORIS/Diag-OFT is written, whose network_dim is the blocks' size.")
        return _LYCORIS["diag-oft"]
    special = [name for name in ("dora_wd", "use_tucker", "train_norm", "lycoris_preset") if flat[name]]
    if algo != "lora" or special:
        return _LYCORIS[algo]
    return "Kohya LoCon" if flat["conv_dim"] or flat["conv_block_dims"] else "Standard"


def plain_type(flat: dict[str, Any], lost: list[str]) -> str:
    """The network type as kohya has it."""
    if flat["algo"] != "tlora":
        return str(flat["algo"])
    lost.append("kohya has no algo tlora; a plain LoRA is written.")
    return "lora"


def _conv(flat: dict[str, Any], kind: str, lost: list[str]) -> None:
    if "conv_dim" in TYPES[kind].fields:
        return
    if flat["conv_dim"]:
        lost.append(f"conv_dim isn't written, because {kind} has none.")
    if flat["conv_alpha"] != 1:
        lost.append("conv_alpha has no effect without conv_dim, and kohya's form drops it.")


def preset_of(flat: dict[str, Any], lost: list[str]) -> str:
    """LyCORIS has a preset for every run."""
    given: str = flat["lycoris_preset"]
    if not given:
        given = "ia3" if flat["algo"] == "ia3" else "full" if flat["conv_dim"] else "attn-mlp"
        lost.append(f"lycoris_preset is empty, and LyCORIS needs one: {given} is written.")
    return given
