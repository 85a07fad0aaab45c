"""Our files in other programs: diffusers with peft makes the same output from them as our own layers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft")
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from lora_trainer.network.file import write_lora
from lora_trainer.network.network import LoraNetwork

Make = Callable[[str], Any]
LOADERS = {
    "sd1": StableDiffusionLoraLoaderMixin,
    "sd2": StableDiffusionLoraLoaderMixin,
    "sdxl": StableDiffusionXLLoraLoaderMixin,
}


@pytest.fixture
def written(tiny: Make, models: Any, tmp_path: Path) -> Iterator[Callable[..., tuple[Any, Path, list[torch.Tensor]]]]:
    """Makes a model, a filled LoRA's file, and the outputs with our layers: UNet, then the text encoders."""

    def make(family: str, **options: Any) -> tuple[Any, Path, list[torch.Tensor]]:
        model = tiny(family)
        network = models.fill(model.network(network_dim=3, network_alpha=2.0, **options))
        path = tmp_path / "ours.safetensors"
        write_lora(path, network.state_dict(), {"ss_output_name": "ours"})
        plain = outputs(model)
        with network:
            ours = outputs(model)
        trained = 1 if options.get("network_train_unet_only") else len(ours)
        assert all(float((a - b).abs().max()) > 1e-2 for a, b in zip(plain[:trained], ours, strict=False))
        return model, path, ours

    yield make


def outputs(model: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model.predict(), *(model.encode(index) for index in range(len(model.encoders)))]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_diffusers_makes_the_same_output_from_our_file(written: Any, models: Any, family: str) -> None:
    model, path, ours = written(family)
    loader: Any = LOADERS[family]
    unet_config = {"unet_config": model.unet.config} if family == "sdxl" else {}
    if (
        family == "sd2"
    ):  # the file is for sd-scripts' layout, which has convolutions where newer checkpoints have linears
        other = models.unet(models.TINY["sd2"], use_linear_projection=False)
        shapes = {name: weight.shape for name, weight in other.state_dict().items()}
        other.load_state_dict({name: w.view(shapes[name]) for name, w in model.unet.state_dict().items()})
        model.unet = other
    state, alphas = loader.lora_state_dict(str(path), **unet_config)
    loader.load_lora_into_unet(state, network_alphas=alphas, unet=model.unet)
    for index, encoder in enumerate(model.encoders):
        prefix = "text_encoder" + ("_2" if index else "")
        loader.load_lora_into_text_encoder(
            state, network_alphas=alphas, text_encoder=encoder.module, prefix=prefix, lora_scale=1.0
        )
    for theirs, own in zip(outputs(model), ours, strict=True):
        torch.testing.assert_close(theirs, own, rtol=1e-4, atol=1e-5)


def test_diffusers_makes_the_same_output_from_our_convolutions(written: Any) -> None:
    model, path, ours = written("sd1", conv_dim=2, network_train_unet_only=True)
    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(str(path))
    StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, network_alphas=alphas, unet=model.unet)
    torch.testing.assert_close(outputs(model)[0], ours[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_we_make_the_same_output_from_a_peft_file(tiny: Make, family: str, tmp_path: Path) -> None:
    model, plain = tiny(family), tiny(family)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
    config = LoraConfig(r=3, lora_alpha=3, target_modules=targets, init_lora_weights="gaussian")
    model.unet.add_adapter(config)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.unet.named_parameters():
        if "lora_B" in name:
            parameter.data.uniform_(-0.3, 0.3, generator=generator)
    tensors = convert_state_dict_to_diffusers(get_peft_model_state_dict(model.unet))
    path = tmp_path / "peft.safetensors"
    save_file({f"unet.{name}": tensor.contiguous() for name, tensor in tensors.items()}, path)
    network = LoraNetwork.from_file(path, plain.unet, plain.encoders, plain.info)
    assert len(network.modules) == len(tensors) // 2 and network.notices == []
    with network, torch.no_grad():
        ours = plain.predict()
    torch.testing.assert_close(ours, model.predict().detach(), rtol=1e-4, atol=1e-5)
