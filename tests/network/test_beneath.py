"""base_weights: a LoRA beneath another one is the base model merged with it, and nothing of the model is written."""

from __future__ import annotations

from pathlib import Path

import torch

from lora_trainer.config import RunConfig
from lora_trainer.network.attaching import attached
from lora_trainer.network.beneath import networks_beneath
from lora_trainer.network.network import LoraNetwork
from tests.support.runs import run
from tests.support.tiny_host import TinyHost


def test_the_base_model_is_as_if_it_were_merged(tmp_path: Path) -> None:
    run(tmp_path, "first", max_train_epochs=1, text_encoder_lr=1e-2)
    file = tmp_path / "loras/first.safetensors"
    model = TinyHost(tmp_path / "loras").model
    unet = model.unet
    config = RunConfig().replace(network_dim=2, base_weights=[str(file)], base_weights_multiplier=[0.5], seed=3)
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    noisy, t, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.randn(2, 5, 16)

    def predicted() -> torch.Tensor:
        with torch.no_grad():
            return unet(noisy, t, encoder_hidden_states=context).sample

    plain = predicted()
    beneath = networks_beneath(config.network, model)
    network = LoraNetwork.create(unet, model.text_encoders, model.info, config, 3)
    network.beneath = beneath
    with network, attached(beneath):  # as a measurement inside of a step would
        with_base = predicted()
        with network.left_out():
            assert torch.equal(predicted(), with_base), "a new LoRA changes nothing; what is beneath stays"
    assert torch.equal(predicted(), plain), "nothing is left in the model"
    assert all(torch.equal(weight, before[name]) for name, weight in unet.state_dict().items())
    assert not any(parameter.requires_grad for parameter in beneath[0].parameters())
    for module in beneath[0].modules:
        if module.target.part == "unet":
            module.target.module.weight.data += 0.5 * module.delta_weight().reshape(module.target.module.weight.shape)
    torch.testing.assert_close(with_base, predicted(), rtol=1e-4, atol=1e-5)
    assert float((with_base - plain).abs().max()) > 1e-3


def test_captions_are_encoded_with_what_is_beneath(tmp_path: Path) -> None:
    run(tmp_path, "first", max_train_epochs=1, text_encoder_lr=1e-2, network_train_text_encoder_only=True)
    seen = []
    for options in ({}, {"base_weights": str(tmp_path / "loras/first.safetensors")}):
        host = TinyHost(tmp_path / "loras")
        predict = host.model.predict

        def watched(noisy: object, t: object, conditioning: object, sizes: object, predict=predict) -> torch.Tensor:  # type: ignore[no-untyped-def]
            seen.append(conditioning.context.clone())  # type: ignore[attr-defined]
            return predict(noisy, t, conditioning, sizes)

        host.model.predict = watched  # type: ignore[method-assign,assignment]
        run(tmp_path, f"second{len(options)}", host, max_train_epochs=1, measure_at_saves=False, **options)
    half = len(seen) // 2
    assert seen[0].shape == seen[half].shape and float((seen[0] - seen[half]).abs().max()) > 1e-4
