"""Modules and keys of the three families, against lists written from the format's description."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.config import NetworkConfig
from lora_trainer.errors import UnsupportedModelError
from lora_trainer.hosts.base import TextEncoder
from lora_trainer.network import keys
from lora_trainer.network.blocks import BlockPlan
from lora_trainer.network.targets import TRANSFORMERS, WITH_RESIDUALS, text_targets, unet_targets


def transformer(prefix: str, depth: int = 1) -> set[str]:
    """Keys of one Transformer2DModel."""
    inner = ["attn1_to_q", "attn1_to_k", "attn1_to_v", "attn1_to_out_0", "attn2_to_q", "attn2_to_k", "attn2_to_v"]
    inner += ["attn2_to_out_0", "ff_net_0_proj", "ff_net_2"]
    blocks = {f"{prefix}_transformer_blocks_{i}_{name}" for i in range(depth) for name in inner}
    return blocks | {f"{prefix}_proj_in", f"{prefix}_proj_out"}


def sd_unet() -> set[str]:
    """SD 1 and 2: 16 transformers."""
    places = [f"down_blocks_{i}_attentions_{j}" for i in (0, 1, 2) for j in (0, 1)]
    places += ["mid_block_attentions_0"] + [f"up_blocks_{i}_attentions_{j}" for i in (1, 2, 3) for j in (0, 1, 2)]
    return set().union(*(transformer(f"lora_unet_{place}") for place in places))


def sd_convolutions() -> set[str]:
    """SD 1 and 2: what conv_dim adds."""
    resnets = {f"down_blocks_{i}_resnets_{j}": i in (1, 2) and j == 0 for i in range(4) for j in (0, 1)}
    resnets |= {f"mid_block_resnets_{j}": False for j in (0, 1)}
    resnets |= {f"up_blocks_{i}_resnets_{j}": True for i in range(4) for j in range(3)}
    found = {f"lora_unet_{place}_{name}" for place in resnets for name in ("conv1", "conv2", "time_emb_proj")}
    found |= {f"lora_unet_{place}_conv_shortcut" for place, shortcut in resnets.items() if shortcut}
    found |= {f"lora_unet_down_blocks_{i}_downsamplers_0_conv" for i in (0, 1, 2)}
    return found | {f"lora_unet_up_blocks_{i}_upsamplers_0_conv" for i in (0, 1, 2)}


def sdxl_unet() -> set[str]:
    """SDXL: 11 transformers of depth 2 or 10, in sgm's names."""
    depths = {f"input_blocks_{k}_1": 2 if k < 6 else 10 for k in (4, 5, 7, 8)} | {"middle_block_1": 10}
    depths |= {f"output_blocks_{k}_1": 10 if k < 3 else 2 for k in range(6)}
    return set().union(*(transformer(f"lora_unet_{place}", depth) for place, depth in depths.items()))


def sdxl_convolutions() -> set[str]:
    """SDXL: what conv_dim adds."""
    resnets = {f"input_blocks_{k}_0": k in (4, 7) for k in (1, 2, 4, 5, 7, 8)}
    resnets |= {"middle_block_0": False, "middle_block_2": False}
    resnets |= {f"output_blocks_{k}_0": True for k in range(9)}
    found = {f"lora_unet_{p}_{name}" for p in resnets for name in ("in_layers_2", "out_layers_3", "emb_layers_1")}
    found |= {f"lora_unet_{place}_skip_connection" for place, skip in resnets.items() if skip}
    return found | {
        "lora_unet_input_blocks_3_0_op", "lora_unet_input_blocks_6_0_op",
        "lora_unet_output_blocks_2_2_conv", "lora_unet_output_blocks_5_2_conv",
    }  # fmt: skip


def text(prefix: str, layers: int) -> set[str]:
    """A text encoder's keys."""
    names = [f"self_attn_{slot}_proj" for slot in ("q", "k", "v", "out")] + ["mlp_fc1", "mlp_fc2"]
    return {f"{prefix}_text_model_encoder_layers_{i}_{name}" for i in range(layers) for name in names}


EXPECTED = {
    "sd1": (sd_unet(), sd_convolutions(), 192, 278, 423_936),
    "sd2": (sd_unet(), sd_convolutions(), 192, 278, 432_128),
    "sdxl": (sdxl_unet(), sdxl_convolutions(), 722, 788, 2_659_840),
}


class Renamed(nn.Module):
    """Modules of one tree under other paths, as a host with ldm's names has them."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        for path, module in modules.items():
            *parents, name = path.split(".")
            owner: nn.Module = self
            for parent in parents:
                if not hasattr(owner, parent):
                    owner.add_module(parent, nn.Module())
                owner = getattr(owner, parent)
            owner.add_module(name, module)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_unet_of_true_size_in_both_namings(models: Any, family: Any) -> None:
    plain, convolutions, count, count_with_conv, parameters = EXPECTED[family]
    with torch.device("meta"):
        unet = models.unet(models.TRUE_SIZE[family], norm_num_groups=32)
    info = models.info(family)
    targets = unet_targets(unet, info, TRANSFORMERS)
    assert len(targets) == len(plain) == count
    assert set(models.targets_keys(targets)) == plain
    assert sum(target.shape[0] + target.shape[1] for target in targets) == parameters  # per unit of rank
    everything = unet_targets(unet, info, WITH_RESIDUALS)
    assert len(everything) == count_with_conv
    assert set(models.targets_keys(everything)) == plain | convolutions
    modules = dict(unet.named_modules())
    shape = keys.shape_of(modules, "diffusers")
    places = {target.path: keys.parse(target.path, "diffusers", shape) for target in everything}
    ldm = Renamed({keys.ldm_path(place, shape): modules[path] for path, place in places.items() if place})
    renamed = unet_targets(ldm, models.info(family, "ldm"), WITH_RESIDUALS)
    assert {t.key: (id(t.module), t.block) for t in renamed} == {t.key: (id(t.module), t.block) for t in everything}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_names_translate_back_and_forth(models: Any, family: Any) -> None:
    with torch.device("meta"):
        unet = models.unet(models.TRUE_SIZE[family], norm_num_groups=32)
    paths = [target.path for target in unet_targets(unet, models.info(family), WITH_RESIDUALS)]
    shape = keys.shape_of([name for name, _ in unet.named_modules()], "diffusers")
    for path in paths:
        place = keys.parse(path, "diffusers", shape)
        assert place is not None
        again = keys.parse(keys.ldm_path(place, shape), "ldm", shape)
        assert again == place
        assert keys.diffusers_path(again) == path


@pytest.mark.parametrize("path", ["down_blocks.0.upsamplers.0.conv", "up_blocks.0.downsamplers.0.conv"])
def test_no_level_samples_the_wrong_way(path: str) -> None:
    assert keys.parse(path, "diffusers", keys.Shape(2, frozenset({1, 2, 3}))) is None


@pytest.mark.parametrize(
    ("ldm", "diffusers"),
    [
        (
            "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
        ("input_blocks.8.1.proj_in", "down_blocks.2.attentions.1.proj_in"),
        ("input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
        ("input_blocks.11.0.in_layers.2", "down_blocks.3.resnets.1.conv1"),
        (
            "middle_block.1.transformer_blocks.0.ff.net.0.proj",
            "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
        ),
        ("middle_block.2.emb_layers.1", "mid_block.resnets.1.time_emb_proj"),
        ("output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks.5.2.conv", "up_blocks.1.upsamplers.0.conv"),
        ("output_blocks.11.1.transformer_blocks.0.ff.net.2", "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2"),
        ("output_blocks.9.0.skip_connection", "up_blocks.3.resnets.0.conv_shortcut"),
        ("input_blocks.0.0", "conv_in"),
        ("out.2", "conv_out"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("input_blocks.1.1.norm", "down_blocks.0.attentions.0.norm"),
        ("middle_block.2.out_layers.0", "mid_block.resnets.1.norm2"),
    ],
)
def test_names_of_sd1_as_published(ldm: str, diffusers: str) -> None:
    shape = keys.Shape(2, frozenset({1, 2, 3}))
    place = keys.parse(ldm, "ldm", shape)
    assert place is not None and keys.diffusers_path(place) == diffusers
    assert keys.parse(diffusers, "diffusers", shape) == place
    assert keys.ldm_path(place, shape) == ldm


@pytest.mark.parametrize(
    "path",
    ["time_embed.1", "out.0", "label_emb.0.0", "input_blocks.1.1.norm.x", "conv_norm_out", "time_embedding.act",
     "input_blocks.1.0.in_layers.1", "input_blocks.1.1.transformer_blocks.0.attn1.to_q.x", "output_blocks.1.1.conv"],
)  # fmt: skip
def test_other_paths_are_left_alone(path: str) -> None:
    assert keys.parse(path, "ldm", keys.Shape()) is None
    assert keys.parse(path, "diffusers", keys.Shape()) is None


class Linear(nn.Module):
    """A linear layer that is no nn.Linear, as quantised or patched hosts have."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, columns))


def test_layers_are_found_by_path_and_shape_not_by_class(models: Any) -> None:
    tree: dict[str, nn.Module] = {
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q": Linear(6, 4),
        "input_blocks.1.1.proj_in": Linear(4, 4),
    }
    tree |= {"input_blocks.3.0.op": Linear(4, 4), "input_blocks.1.0.skip_connection": nn.Identity()}
    assert len(unet_targets(Renamed(tree), models.info("sd1", "ldm"), WITH_RESIDUALS)) == 3
    found = unet_targets(Renamed(tree), models.info("sd1", "ldm"), TRANSFORMERS)
    assert [(t.key, t.shape, t.block, t.conv_in_file) for t in found] == [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", (6, 4), 1, False),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", (4, 4), 1, True),
    ]


def test_strange_unets_are_refused(models: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"tiny\.safetensors.*input_blocks"):
        unet_targets(nn.Linear(2, 2), models.info("sd1", "ldm"), TRANSFORMERS)
    flat = Renamed({"input_blocks.1.1.proj_in": nn.LayerNorm(4)})
    with pytest.raises(UnsupportedModelError, match=r"input_blocks\.1\.1\.proj_in.*quantised"):
        unet_targets(flat, models.info("sd1", "ldm"), TRANSFORMERS)


def true_text(models: Any, width: int, layers: int, projection: bool = False) -> nn.Module:
    return models.text_encoder(
        layers, width, projection, vocab_size=1000, intermediate_size=4 * width, num_attention_heads=width // 64,
        max_position_embeddings=77,
    )  # fmt: skip


def test_text_encoders_of_true_size(models: Any) -> None:
    with torch.device("meta"):
        small, large = true_text(models, 768, 12), true_text(models, 1280, 32, projection=True)
        penultimate, whole = true_text(models, 1024, 23), true_text(models, 1024, 24)
    sd1 = text_targets([TextEncoder(small, "lora_te", "transformers")], models.info("sd1"))
    assert set(models.targets_keys(sd1)) == text("lora_te", 12) and len(sd1) == 72
    for target in sd1:
        assert target.spellings == (target.key, target.key.replace("lora_te_", "lora_te1_")), "files name it either way"
    assert sum(sum(target.shape) for target in sd1) == 165_888
    for module in (penultimate, whole):  # the last of 24 layers has no say in SD 2
        sd2 = text_targets([TextEncoder(module, "lora_te", "transformers")], models.info("sd2"))
        assert set(models.targets_keys(sd2)) == text("lora_te", 23) and len(sd2) == 138
        assert sum(sum(target.shape) for target in sd2) == 423_936
    both = [TextEncoder(small, "lora_te1", "transformers"), TextEncoder(large, "lora_te2", "transformers")]
    sdxl = text_targets(both, models.info("sdxl"))
    assert set(models.targets_keys(sdxl)) == text("lora_te1", 12) | text("lora_te2", 32) and len(sdxl) == 264
    assert {len(target.spellings) for target in sdxl if target.key.startswith("lora_te2_")} == {1}
    assert {target.spellings[1:] for target in sdxl if target.key.startswith("lora_te1_")} == {
        (target.key,) for target in sd1
    }
    assert sum(sum(target.shape) for target in sdxl) == 165_888 + 737_280


def test_a_text_encoder_without_the_text_model_level_has_the_same_keys(models: Any) -> None:
    class Holder(nn.Module):
        def __init__(self, encoder: nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

    inner = next(module.encoder for module in models.text_encoder().modules() if hasattr(module, "encoder"))
    nested = Renamed({"cond_stage_model.transformer.text_model": Holder(inner)})
    for module in (Holder(inner), nested):
        found = text_targets([TextEncoder(module, "lora_te", "transformers")], models.info("sd1"))
        assert set(models.targets_keys(found)) == text("lora_te", 2)


def test_vision_towers_and_foreign_modules_are_left_alone(models: Any) -> None:
    layer = {f"vision_model.encoder.layers.0.self_attn.{slot}_proj": Linear(4, 4) for slot in ("q", "k", "v", "out")}
    with pytest.raises(UnsupportedModelError, match="lora_te of tiny"):
        text_targets([TextEncoder(Renamed(layer), "lora_te", "transformers")], models.info("sd1"))


@pytest.mark.parametrize(("family", "numbered"), [("sd1", range(1, 25)), ("sdxl", range(2, 22))])
def test_blocks_are_numbered_as_sd_scripts_does(models: Any, family: Any, numbered: range) -> None:
    with torch.device("meta"):
        unet = models.unet(models.TRUE_SIZE[family], norm_num_groups=32)
    targets = unet_targets(unet, models.info(family), WITH_RESIDUALS)
    numbers = {target.key: target.block for target in targets}
    assert set(numbers.values()) == set(numbered)  # without the ends: first convolution, embeddings, output
    expected = (
        {"lora_unet_down_blocks_2_attentions_1_proj_in": 8, "lora_unet_down_blocks_1_downsamplers_0_conv": 6,
         "lora_unet_mid_block_resnets_0_conv1": 12, "lora_unet_up_blocks_0_resnets_0_conv1": 13,
         "lora_unet_up_blocks_3_attentions_2_proj_out": 24, "lora_unet_up_blocks_2_upsamplers_0_conv": 21}
        if family == "sd1"
        else {"lora_unet_input_blocks_4_1_proj_in": 5, "lora_unet_input_blocks_6_0_op": 7,
              "lora_unet_middle_block_0_in_layers_2": 10, "lora_unet_middle_block_1_proj_in": 11,
              "lora_unet_middle_block_2_in_layers_2": 12, "lora_unet_output_blocks_8_0_in_layers_2": 21}
    )  # fmt: skip
    assert {key: numbers[key] for key in expected} == expected


def test_large_convolutions_get_conv_dim_and_the_rest_of_the_block_network_dim(models: Any) -> None:
    unet = models.unet(models.TINY["sd1"])
    plan = BlockPlan.of(NetworkConfig(network_dim=4, network_alpha=2.0, conv_dim=3, conv_alpha=1.5), "sd1")
    for target in unet_targets(unet, models.info("sd1"), WITH_RESIDUALS):
        three = target.key.endswith(("conv1", "conv2", "samplers_0_conv"))
        assert plan.rank_and_alpha(target) == ((3, 1.5) if three else (4, 2.0))
