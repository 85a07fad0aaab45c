"""Tiny random checkpoints in ldm's layout: the true topology of SD 1.x, SD 2.x and SDXL in widths of 32 to 64.

They have as many transformer blocks and text layers as the published models, so lists of modules are the real ones.
The way from diffusers' names to ldm's is written here by walking the modules, independently of the package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

Kind = Literal["sd1", "sd2", "sd2v", "sdxl"]
KINDS: tuple[Kind, ...] = ("sd1", "sd2", "sd2v", "sdxl")
WIDTH = 32  # of the text encoders
HEADS = 2  # of the text encoders and of SD 1.x' UNet
HEAD_CHANNELS = 16  # of the other UNets
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


@dataclass(frozen=True)
class Modules:
    """The modules whose weights are in a checkpoint, as fp32 with values that fp16 can hold."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[CLIPTextModel, ...]
    projection: Tensor | None  # of SDXL's second encoder, [pooled, hidden]


def make_modules(kind: Kind, seed: int = 0) -> Modules:
    """The modules of a kind; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_layers = {"sd1": (12,), "sd2": (23,), "sd2v": (23,), "sdxl": (12, 32)}[kind]
        encoders = tuple(_text_encoder(n, quick=kind in ("sd1", "sdxl") and i == 0) for i, n in enumerate(text_layers))
        projection = torch.randn(WIDTH, WIDTH) * WIDTH**-0.5 if kind == "sdxl" else None
        modules = Modules(
            _unet(kind), make_vae(seed), encoders, None if projection is None else projection.half().float()
        )
    for module in (modules.unet, modules.vae, *modules.text_encoders):
        module.half().float().eval().requires_grad_(False)
    return modules


def _text_encoder(layers: int, quick: bool) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=layers, eos_token_id=49407,
        num_attention_heads=HEADS, hidden_act="quick_gelu" if quick else "gelu", projection_dim=WIDTH,
    )  # fmt: skip
    encoder = CLIPTextModel(config)
    for name, weight in encoder.named_parameters():
        nn.init.normal_(weight, 1.0 if name.endswith("norm.weight") else 0.0, 0.3 if "embedding" in name else 0.15)
    return encoder


def _unet(kind: Kind) -> UNet2DConditionModel:
    if kind == "sdxl":
        return UNet2DConditionModel(
            block_out_channels=(32, 32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=(2, 2, 4), cross_attention_dim=2 * WIDTH,
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=WIDTH + 6 * 256,
        )  # fmt: skip
    return UNet2DConditionModel(
        block_out_channels=(32, 32, 64, 64), attention_head_dim=2 if kind == "sd1" else (2, 2, 4, 4),
        cross_attention_dim=WIDTH, use_linear_projection=kind != "sd1",
    )  # fmt: skip


def make_vae(seed: int = 0) -> AutoencoderKL:
    """The VAE of every kind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    return vae.half().float().eval().requires_grad_(False)


def write_checkpoint(kind: Kind, folder: Path, name: str = "", seed: int = 0) -> Path:
    """Write ``NAME.safetensors`` (fp16) with its ``NAME.yaml`` and the text encoders' configs; about 10 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or f'tiny-{kind}'}.safetensors"
    save_file(state_dict(kind, make_modules(kind, seed)), path)
    path.with_suffix(".yaml").write_text(yaml.safe_dump(config(kind)), encoding="utf-8")
    (folder / "tiny-clip").mkdir(exist_ok=True)
    text = {"num_attention_heads": HEADS, "hidden_act": "quick_gelu"}
    (folder / "tiny-clip" / "config.json").write_text(json.dumps(text), encoding="utf-8")
    (folder / "tiny-open-clip.json").write_text(json.dumps({"text_cfg": {"heads": HEADS}}), encoding="utf-8")
    return path


def state_dict(kind: Kind, modules: Modules) -> dict[str, Tensor]:
    """All weights under ldm's names, fp16, with the leftovers that real files have."""
    state = {f"model.diffusion_model.{k}": v for k, v in ldm_unet(modules.unet).items()}
    state.update({f"first_stage_model.{k}": v for k, v in ldm_vae(modules.vae).items()})
    encoders = modules.text_encoders
    if kind == "sd1":
        state.update({f"cond_stage_model.transformer.{k}": v for k, v in clip_names(encoders[0]).items()})
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None].float()
    elif kind == "sdxl":
        assert modules.projection is not None
        state.update({f"conditioner.embedders.0.transformer.{k}": v for k, v in clip_names(encoders[0]).items()})
        second = open_clip_names(encoders[1], modules.projection, extra_layer=False)
        state.update({f"conditioner.embedders.1.model.{k}": v for k, v in second.items()})
    else:
        text = open_clip_names(encoders[0], torch.eye(WIDTH), extra_layer=True)
        state.update({f"cond_stage_model.model.{k}": v for k, v in text.items()})
    state["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    state["model_ema.decay"] = torch.tensor(0.9999)
    return {k: v.detach().half().contiguous().clone() for k, v in state.items()}


def ldm_unet(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The UNet's weights under ldm's names."""
    return _renamed(unet.state_dict(), list(_unet_pairs(unet)))


def _unet_pairs(unet: Any) -> Iterator[tuple[str, str]]:
    yield from {
        "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "conv_norm_out": "out.0",
        "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0", "conv_out": "out.2",
        "add_embedding.linear_2": "label_emb.0.2", "mid_block.attentions.0": "middle_block.1",
    }.items()  # fmt: skip
    yield from _resnet_pairs("mid_block.resnets.0", "middle_block.0")
    yield from _resnet_pairs("mid_block.resnets.1", "middle_block.2")
    number = 1
    for i, stage in enumerate(unet.down_blocks):
        for j in range(len(stage.resnets)):
            yield from _resnet_pairs(f"down_blocks.{i}.resnets.{j}", f"input_blocks.{number}.0")
            yield f"down_blocks.{i}.attentions.{j}", f"input_blocks.{number}.1"
            number += 1
        if stage.downsamplers:
            yield f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for i, stage in enumerate(unet.up_blocks):
        for j in range(len(stage.resnets)):
            yield from _resnet_pairs(f"up_blocks.{i}.resnets.{j}", f"output_blocks.{number}.0")
            yield f"up_blocks.{i}.attentions.{j}", f"output_blocks.{number}.1"
            number += 1
        place = 2 if hasattr(stage, "attentions") else 1
        yield f"up_blocks.{i}.upsamplers.0", f"output_blocks.{number - 1}.{place}"


def _resnet_pairs(ours: str, ldm: str) -> Iterator[tuple[str, str]]:
    for name, other in RESNET.items():
        yield f"{ours}.{name}", f"{ldm}.{other}"


def _renamed(state: dict[str, Tensor], pairs: list[tuple[str, str]]) -> dict[str, Tensor]:
    result = {}
    for key, value in state.items():
        ours, ldm = next((a, b) for a, b in pairs if key.startswith(a + "."))
        result[ldm + key[len(ours) :]] = value
    return result


def ldm_vae(vae: AutoencoderKL) -> dict[str, Tensor]:
    """The VAE's weights under ldm's names, attention as 1x1 convolutions."""
    pairs = [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv")]
    for side in ("encoder", "decoder"):
        pairs += [(f"{side}.{n}", f"{side}.{o}") for n, o in (("conv_in", "conv_in"), ("conv_out", "conv_out"))]
        pairs.append((f"{side}.conv_norm_out", f"{side}.norm_out"))
        for j in (0, 1):
            pairs += _vae_resnet(f"{side}.mid_block.resnets.{j}", f"{side}.mid.block_{j + 1}")
        for n, o in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            pairs.append((f"{side}.mid_block.attentions.0.{n}", f"{side}.mid.attn_1.{o}"))
        stages = vae.encoder.down_blocks if side == "encoder" else vae.decoder.up_blocks
        for i, stage in enumerate(stages):
            ours = f"{side}.{'down' if side == 'encoder' else 'up'}_blocks.{i}"
            ldm = f"{side}.down.{i}" if side == "encoder" else f"{side}.up.{len(stages) - 1 - i}"
            pairs.append((f"{ours}.downsamplers.0", f"{ldm}.downsample"))
            pairs.append((f"{ours}.upsamplers.0", f"{ldm}.upsample"))
            for j in range(len(stage.resnets)):
                pairs += _vae_resnet(f"{ours}.resnets.{j}", f"{ldm}.block.{j}")
    state = _renamed(vae.state_dict(), pairs)
    return {k: v[:, :, None, None] if "attn_1" in k and v.ndim == 2 else v for k, v in state.items()}


def _vae_resnet(ours: str, ldm: str) -> list[tuple[str, str]]:
    names = ("norm1", "conv1", "norm2", "conv2")
    return [(f"{ours}.{n}", f"{ldm}.{n}") for n in names] + [(f"{ours}.conv_shortcut", f"{ldm}.nin_shortcut")]


def clip_names(encoder: CLIPTextModel) -> dict[str, Tensor]:
    """The weights of a CLIP text model as old versions of transformers name them."""
    state = {k: v for k, v in encoder.state_dict().items() if not k.endswith("position_ids")}
    return {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in state.items()}


def open_clip_names(encoder: CLIPTextModel, projection: Tensor, extra_layer: bool) -> dict[str, Tensor]:
    """The same as open_clip names them; ``extra_layer`` adds the last one, which SD 2.x doesn't use."""
    ours = {k.removeprefix("text_model."): v for k, v in clip_names(encoder).items()}
    state = {
        "token_embedding.weight": ours["embeddings.token_embedding.weight"],
        "positional_embedding": ours["embeddings.position_embedding.weight"],
        "ln_final.weight": ours["final_layer_norm.weight"],
        "ln_final.bias": ours["final_layer_norm.bias"],
        "text_projection": projection.T,
        "logit_scale": torch.tensor(1.0),
    }
    layers = 1 + max(int(k.split(".")[2]) for k in ours if k.startswith("encoder.layers."))
    for n in range(layers + extra_layer):
        layer, block = f"encoder.layers.{min(n, layers - 1)}", f"transformer.resblocks.{n}"
        for kind in ("weight", "bias"):
            parts = [ours[f"{layer}.self_attn.{which}_proj.{kind}"] for which in "qkv"]
            state[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
            state[f"{block}.attn.out_proj.{kind}"] = ours[f"{layer}.self_attn.out_proj.{kind}"]
            state[f"{block}.ln_1.{kind}"] = ours[f"{layer}.layer_norm1.{kind}"]
            state[f"{block}.ln_2.{kind}"] = ours[f"{layer}.layer_norm2.{kind}"]
            state[f"{block}.mlp.c_fc.{kind}"] = ours[f"{layer}.mlp.fc1.{kind}"]
            state[f"{block}.mlp.c_proj.{kind}"] = ours[f"{layer}.mlp.fc2.{kind}"]
    return state


def config(kind: Kind) -> dict[str, Any]:
    """The inference config that belongs beside the file."""
    unet: dict[str, Any] = {"in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 2}
    unet.update(use_spatial_transformer=True, context_dim=WIDTH, channel_mult=[1, 1, 2, 2], legacy=False)
    unet.update(attention_resolutions=[4, 2, 1], transformer_depth=1)
    unet.update({"num_heads": HEADS} if kind == "sd1" else {"num_head_channels": HEAD_CHANNELS})
    if kind != "sd1":
        unet["use_linear_in_transformer"] = True
    ddconfig = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32}
    ddconfig.update(ch_mult=[1, 1, 1, 1], num_res_blocks=1, attn_resolutions=[], dropout=0.0)
    params: dict[str, Any] = {"first_stage_config": {"params": {"embed_dim": 4, "ddconfig": ddconfig}}}
    clip, open_clip = {"version": "tiny-clip"}, {"arch": "tiny-open-clip", "layer": "penultimate"}
    if kind == "sdxl":
        unet.update(channel_mult=[1, 1, 2], attention_resolutions=[4, 2], transformer_depth=[1, 2, 10])
        unet.update(context_dim=2 * WIDTH, adm_in_channels=WIDTH + 6 * 256, num_classes="sequential")
        embedders = [{"input_key": "txt", "params": {**clip, "layer": "hidden", "layer_idx": 11}}]
        embedders.append({"input_key": "txt", "params": open_clip})
        params.update(scale_factor=0.13025, network_config={"params": unet})
        params["conditioner_config"] = {"params": {"emb_models": embedders}}
    else:
        params.update(linear_start=0.00085, linear_end=0.012, timesteps=1000, image_size=64, scale_factor=0.18215)
        params.update(unet_config={"params": unet}, cond_stage_config={"params": clip if kind == "sd1" else open_clip})
        if kind == "sd2v":
            params["parameterization"] = "v"
    return {"model": {"target": "a Stable Diffusion", "params": params}}
