"""From the weight names of ldm, sgm and open_clip to those of diffusers and transformers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

State = dict[str, Tensor]

UNET_ENDS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
UNET_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
DIFFUSERS_VAE = "decoder.up_blocks.0.resnets.0.conv1.weight"  # tells diffusers' names from ldm's
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OPEN_CLIP = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def unet_name(name: str, layers_per_block: int) -> str:
    """diffusers' name of a UNet weight, ``name`` without ``model.diffusion_model.``."""
    match = re.match(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.+)$", name)
    if match and not name.startswith("input_blocks.0."):
        return _block_name(match[1], int(match[2]), int(match[3]), match[4], layers_per_block)
    for old, new in UNET_ENDS.items():
        if name.startswith(old + "."):
            return new + "." + _replace_start(name[len(old) + 1 :], UNET_RESNET if "resnets" in new else {})
    return name


def _block_name(way: str, block: int, part: int, rest: str, layers_per_block: int) -> str:
    level, layer = divmod(block - 1 if way == "input" else block, layers_per_block + 1)
    side = "down_blocks" if way == "input" else "up_blocks"
    if rest.startswith("op."):
        return f"{side}.{level}.downsamplers.0.conv.{rest[3:]}"
    if rest.startswith("conv."):
        return f"{side}.{level}.upsamplers.0.{rest}"
    if part == 0:
        return f"{side}.{level}.resnets.{layer}.{_replace_start(rest, UNET_RESNET)}"
    return f"{side}.{level}.attentions.{layer}.{rest}"


def _replace_start(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name.startswith(old + "."):
            return new + name[len(old) :]
    return name


def vae_name(name: str, levels: int) -> str:
    """diffusers' name of a VAE weight, ``name`` without ``first_stage_model.``."""
    name = re.sub(r"\.down\.(\d+)\.block\.(\d+)\.", r".down_blocks.\1.resnets.\2.", name)
    name = re.sub(r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0.", name)
    reverse: Callable[[re.Match[str]], str] = lambda m: f".up_blocks.{levels - 1 - int(m[1])}.{m[2]}"  # noqa: E731
    name = re.sub(r"\.up\.(\d+)\.(block|upsample)", reverse, name)
    name = re.sub(r"(\.up_blocks\.\d+)\.block\.", r"\1.resnets.", name)
    name = re.sub(r"(\.up_blocks\.\d+)\.upsample\.", r"\1.upsamplers.0.", name)
    name = re.sub(r"\.mid\.block_(\d)\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}.", name)
    if ".mid.attn_1." in name:
        head, _, rest = name.partition(".mid.attn_1.")
        return f"{head}.mid_block.attentions.0.{_replace_start(rest, VAE_ATTENTION)}"
    return name.replace(".norm_out.", ".conv_norm_out.").replace(".nin_shortcut.", ".conv_shortcut.")


def unet_state(weights: Mapping[str, Tensor], prefix: str, layers_per_block: int) -> State:
    """The UNet's state dict for diffusers."""
    return {unet_name(name[len(prefix) :], layers_per_block): tensor for name, tensor in weights.items()}


def vae_state(weights: Mapping[str, Tensor], prefix: str, levels: int) -> State:
    """The VAE's state dict for diffusers; the 1x1 convolutions of its attention become linear layers."""
    state: State = {}
    for name, tensor in weights.items():
        inner = name[len(prefix) :]
        if inner.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")):
            attention = ".mid.attn_1." in inner and tensor.ndim == 4
            state[vae_name(inner, levels)] = tensor[:, :, 0, 0] if attention else tensor
    return state


def is_diffusers_vae(names: Iterable[str]) -> bool:
    """Whether a VAE's weights have diffusers' names already."""
    return DIFFUSERS_VAE in names


def diffusers_vae_state(weights: Mapping[str, Tensor]) -> State:
    """The state dict of a VAE in diffusers' names, of today or of before 2023, when its attention had others."""
    state: State = {}
    for name, tensor in weights.items():
        head, attention, rest = name.partition(".attentions.0.")
        if attention:
            state[head + attention + _replace_start(rest, OLD_VAE_ATTENTION)] = (
                tensor[:, :, 0, 0] if tensor.ndim == 4 else tensor
            )
        else:
            state[name] = tensor
    return state


def clip_state(weights: Mapping[str, Tensor], prefix: str) -> State:
    """A transformers CLIP text model's state dict with ``text_model.`` in front of every name."""
    names = {name: name[len(prefix) :].removeprefix("text_model.") for name in weights}
    return {f"text_model.{new}": weights[old] for old, new in names.items() if not new.endswith("position_ids")}


def open_clip_state(weights: Mapping[str, Tensor], prefix: str, layers: int, projection: bool) -> State:
    """The same from open_clip's names; only the first ``layers`` layers, the projection on request."""
    state: State = {}
    for name, tensor in weights.items():
        inner = name[len(prefix) :]
        if inner in OPEN_CLIP:
            state[f"text_model.{OPEN_CLIP[inner]}"] = tensor
        elif inner == "text_projection" and projection:
            state["text_projection.weight"] = tensor.T.contiguous()
        elif (match := re.match(r"transformer\.resblocks\.(\d+)\.(.+)$", inner)) and int(match[1]) < layers:
            state.update(_open_clip_layer(f"text_model.encoder.layers.{match[1]}.", match[2], tensor))
    return state


def _open_clip_layer(layer: str, name: str, tensor: Tensor) -> State:
    if name.startswith("attn.in_proj_"):  # query, key and value in one tensor
        kind = name.removeprefix("attn.in_proj_")
        parts = tensor.chunk(3)
        return {f"{layer}self_attn.{which}_proj.{kind}": part for which, part in zip("qkv", parts, strict=True)}
    return {layer + _replace_start(name, OPEN_CLIP_LAYER): tensor}
