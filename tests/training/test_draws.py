"""What is drawn for a use of an image is part of what a seed means: a new release must not draw otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_trainer.config import CaptionConfig, DatasetConfig, LossConfig
from lora_trainer.dataset.batches import plan_epoch
from lora_trainer.dataset.captions import render
from lora_trainer.dataset.folders import scan
from lora_trainer.network.adapter import Control
from lora_trainer.seeds import derive, python_rng, torch_generator
from lora_trainer.training.diffusion import NoiseSchedule
from lora_trainer.training.objective import DiscreteDiffusion
from tests.support.layers import layer, lora
from tests.support.runs import run
from tests.support.tiny_host import make_dataset


def test_the_noise_and_the_timestep_of_a_use() -> None:
    alphas = torch.linspace(0.999, 0.005, 1000, dtype=torch.float64)
    config = LossConfig(ip_noise_gamma=0.5)
    draw = DiscreteDiffusion(NoiseSchedule(alphas), "epsilon", config).draw(
        torch.zeros(1, 2, 2), torch.ones(1, 2, 2), 7, 3
    )
    for tensor, key in ((draw.latent, "latent"), (draw.noise, "noise")):
        assert torch.equal(tensor, torch.randn(1, 2, 2, generator=torch_generator(7, key, 3)))
    extra = torch.randn(1, 2, 2, generator=torch_generator(7, "perturb", 3))
    torch.testing.assert_close(draw.input_noise, draw.noise + 0.5 * extra)
    assert draw.timestep == int(torch.randint(0, 1000, (1,), generator=torch_generator(7, "timestep", 3)))


def test_the_dropout_of_a_step() -> None:
    module, _ = layer("linear")
    made = lora(module, network_dropout=0.5)
    made.control.step_key = (7, 4)
    assert made.generator("inner", 2).initial_seed() == derive(7, 4, "dropout", made.key, "inner", 2)
    made.control = Control()
    with pytest.raises(RuntimeError, match="begin_step"):
        made.generator("inner")


def test_the_caption_of_a_use(tmp_path: Path) -> None:
    host, _ = run(tmp_path, shuffle_caption=True, cache_text_encoder_outputs=False, max_train_epochs=1)
    data = scan(tmp_path / "data", DatasetConfig(resolution=(64, 64)), CaptionConfig())
    config = CaptionConfig(shuffle_caption=True)
    wanted = [
        render(data.items[sample.item].captions, config, python_rng(7, "caption", sample.uid))
        for batch in plan_epoch(data, 1, 7, 1)
        for sample in batch
    ]
    assert host.model.captions_encoded == wanted and len(set(wanted)) > 5


def test_the_order_of_an_epoch(tmp_path: Path) -> None:
    data = scan(make_dataset(tmp_path), DatasetConfig(resolution=(64, 64)), CaptionConfig())
    order = [[sample.item for batch in plan_epoch(data, 1, 7, epoch) for sample in batch] for epoch in (1, 2)]
    assert order == [[4, 0, 2, 2, 3, 1, 0, 3, 4, 1], [3, 4, 1, 3, 2, 2, 1, 0, 4, 0]]


def test_a_key_gives_the_same_numbers_for_ever() -> None:
    assert derive(7, "caption", 3) == 1232539337306712155
    text = render(["a, b, c, d, e"], CaptionConfig(shuffle_caption=True), python_rng(7, "caption", 3))
    assert text == "c, a, e, b, d"
