"""The namings that LoRA files come in, brought to kohya's; and what else a file may be, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.errors import FileError
from lora_trainer.families import Family, family_of_base_version, family_of_context, family_of_lora_keys
from lora_trainer.files import parse_json
from lora_trainer.network.kinds import PARTS

_PART = re.compile(rf"(.+?)\.({'|'.join(re.escape(part) for part in PARTS)})")
_BARE = ("weight",)  # of (IA)³, under kohya's keys only: elsewhere it is a model's own
_OFT = "oft_unet_"  # sd-scripts' OFT: the UNet's modules under another prefix
_ROOTS = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
_KOHYA = re.compile(r"lora_(?:unet|te|te1|te2)_[^.]+")
_OTHER_KINDS = {
    "oft_diag": "OFT of an old LyCORIS", ".diff": "full difference",
    ".a1.weight": "GLoRA", "lokr_t1": "LoKr with two Tucker decompositions",
}  # fmt: skip
_OTHER_FILES = {
    "model.diffusion_model.": "a whole checkpoint", "first_stage_model.": "a whole checkpoint",
    "double_blocks": "for Flux", "single_blocks": "for Flux", "single_transformer_blocks": "for Flux",
    "joint_blocks": "for SD 3", "lora_te3": "for SD 3", "lora_prior": "for Stable Cascade",
    "transformer.": "for a transformer model (Flux, SD 3, …)",
    "lora_transformer_": "for a transformer model (Flux, SD 3, …)",
    "lora_unet_blocks_": "for a transformer model (Wan, Anima, …)",
    "diffusion_model.": "for a transformer model (Flux, Wan, …)",
    "emb_params": "an embedding",
}  # fmt: skip


def group(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, dict[str, Tensor]]:
    """The tensors by kohya's module name and part, such as "down", "up", "alpha".

    Raises:
        FileError: if the file is no LoRA for SD 1, SD 2 or SDXL; says what it is where that can be seen.
    """
    if not tensors:
        raise FileError(f"{path} holds no weights; it isn't a LoRA.")
    if other := next((model for sign, model in _OTHER_FILES.items() if any(sign in name for name in tensors)), None):
        raise FileError(f"{path} is {other}; only LoRAs for SD 1, SD 2 and SDXL can be read.")
    groups: dict[str, dict[str, Tensor]] = {}
    peft = _peft_configuration(metadata)
    for name, tensor in tensors.items():
        match = _PART.fullmatch(name)
        key = _kohya_key(match[1]) if match else None
        if match is None or key is None or (match[2] in _BARE and key != match[1]):
            raise FileError(_refusal(path, name, tensors))
        groups.setdefault(key, {})[PARTS[match[2]]] = tensor
        alpha = _peft_alpha(peft, match[1])
        if alpha is not None:
            groups[key].setdefault("alpha", torch.tensor(alpha))
    return groups


def family_of(inputs: Mapping[str, int], metadata: Mapping[str, str]) -> Family | None:
    """The family of a LoRA, from its input width at the cross-attention, its metadata, or its text encoders.

    Args:
        inputs: input width of each module by kohya's name.
        metadata: the file's.
    """
    widths = {width for key, width in inputs.items() if key.endswith(("attn2_to_k", "attn2_to_v"))}
    if len(widths) == 1 and (known := family_of_context(next(iter(widths)))):
        return known
    return family_of_base_version(metadata.get("ss_base_model_version", "")) or family_of_lora_keys(
        any(key.startswith("lora_te2_") for key in inputs)
    )


def _kohya_key(name: str) -> str | None:
    if name.startswith(_OFT):
        name = f"{_ROOTS['unet']}_{name.removeprefix(_OFT)}"
    if _KOHYA.fullmatch(name):
        return name
    root, _, rest = name.partition(".")
    if root not in _ROOTS or not rest:
        return None
    if root != "unet" and rest.startswith("encoder."):  # transformers 5 leaves the level out
        rest = f"text_model.{rest}"
    return f"{_ROOTS[root]}_{rest.replace('.', '_')}"


def _peft_configuration(metadata: Mapping[str, str]) -> dict[str, object]:
    """What diffusers puts into the metadata of peft-named files; empty for other files."""
    try:
        table = parse_json(metadata.get("lora_adapter_metadata", "{}"), "lora_adapter_metadata")
    except FileError:
        return {}
    return table if isinstance(table, dict) else {}


def _peft_alpha(table: Mapping[str, object], name: str) -> float | None:
    """A module's alpha: its own in ``<root>.alpha_pattern``, else ``<root>.lora_alpha``."""
    root, _, rest = name.partition(".")
    pattern = table.get(f"{root}.alpha_pattern")
    alpha = pattern.get(rest) if isinstance(pattern, dict) else None
    alpha = table.get(f"{root}.lora_alpha") if alpha is None else alpha
    return float(alpha) if isinstance(alpha, (int, float)) else None


def _refusal(path: Path, name: str, names: Iterable[str]) -> str:
    """The sentence for a file that holds something else than LoRA weights."""
    for sign, kind in _OTHER_KINDS.items():
        if any(sign in other for other in names):
            return f"{path} is of type {kind}; LoRA, LoCon, LoHa, LoKr, DoRA, (IA)³, OFT and BOFT can be read."
    return f"{path} isn't a LoRA for SD 1, SD 2 or SDXL (it holds {name})."
