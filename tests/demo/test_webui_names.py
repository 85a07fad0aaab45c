"""The WebUI applies every module that the demo trains: its Lora extension finds each key's layer in the checkpoint."""

from __future__ import annotations

import re

from lora_trainer import demo
from lora_trainer.hosts.base import ModelInfo
from lora_trainer.hosts.standalone.detect import UNET, detect
from lora_trainer.hosts.standalone.parts import build_parts
from lora_trainer.network.targets import WITH_RESIDUALS, unet_targets

INFO = ModelInfo("sd1", "epsilon", "diffusers", "tiny-world.safetensors", "", "", "", "", "", 64)
RESNET = {
    "conv1": "in_layers_2", "conv2": "out_layers_3", "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}  # fmt: skip


def webui_layer(key: str) -> str:
    """The layer that AUTOMATIC1111 1.10 looks for, which always takes the layout of SD 1.x for granted."""
    name = key.removeprefix("lora_unet_")
    if match := re.fullmatch(r"mid_block_(attentions|resnets)_(\d)_(.+)", name):
        part = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block_{part}_{RESNET.get(match[3], match[3])}"
    if match := re.fullmatch(r"down_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", name):
        place = f"input_blocks_{1 + 3 * int(match[1]) + int(match[3])}_{int(match[2] == 'attentions')}"
        return f"{place}_{RESNET.get(match[4], match[4])}"
    if match := re.fullmatch(r"up_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", name):
        place = f"output_blocks_{3 * int(match[1]) + int(match[3])}_{int(match[2] == 'attentions')}"
        return f"{place}_{RESNET.get(match[4], match[4])}"
    if match := re.fullmatch(r"down_blocks_(\d+)_downsamplers_0_conv", name):
        return f"input_blocks_{3 + 3 * int(match[1])}_0_op"
    if match := re.fullmatch(r"up_blocks_(\d+)_upsamplers_0_conv", name):
        return f"output_blocks_{2 + 3 * int(match[1])}_{2 if int(match[1]) > 0 else 1}_conv"
    return name


def test_the_webui_finds_every_module_of_the_demos_network() -> None:
    found = detect(demo.CHECKPOINT)
    layers = {
        name.removeprefix(UNET).removesuffix(".weight").replace(".", "_")
        for name in found.file.shapes
        if name.startswith(UNET)
    }
    targets = unet_targets(build_parts(found).unet, INFO, WITH_RESIDUALS)
    assert len(targets) == 176
    assert [target.key for target in targets if webui_layer(target.key) not in layers] == []
    assert len({webui_layer(target.key) for target in targets}) == 176
