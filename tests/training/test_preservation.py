"""Differential output preservation: the second loss in closed form, its captions, and that it keeps the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.errors import ConfigError
from lora_trainer.training import loop
from lora_trainer.training.class_captions import ClassCaptions
from lora_trainer.training.preservation import preservation_losses
from tests.support.runs import run
from tests.support.tiny_host import TinyHost

HELD: dict[str, Any] = {"diff_output_preservation": 1.0, "preservation_class": "box"}


@pytest.mark.parametrize(
    ("text", "trigger", "folder", "expected"),
    [
        ("photo of ohwx man, smiling", "", "ohwx man", "photo of man, smiling"),
        ("ohwx in a garden", "", "ohwx man", "man in a garden"),
        ("a drawing of zork", "zork", "things", "a drawing of man"),
        ("somebody else", "zork", "ohwx man", None),
        ("anything", "", "", None),
    ],
)
def test_the_class_takes_the_triggers_place(text: str, trigger: str, folder: str, expected: str | None) -> None:
    assert ClassCaptions("man", trigger).caption(text, folder) == expected


@pytest.mark.parametrize("text_encoder_lr", [0, 1e-3])
def test_the_second_loss_is_the_distance_to_the_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_encoder_lr: float
) -> None:
    found: list[float] = []

    def compare(session: Any, inputs: Any, mine: Any, images: int) -> None:
        losses = preservation_losses(session, inputs, mine)
        assert losses is not None
        model, network = session.model, session.network
        texts = session.feed.class_texts(mine, session.position.epoch, session.position.step)
        noisy = session.objective.noisy(inputs)

        def predict() -> torch.Tensor:
            made = model.encode_captions(texts, 75, 1)
            out: torch.Tensor = model.predict(noisy, inputs.timesteps, made, inputs.sizes)
            return out.detach().double()

        with torch.no_grad():
            ours = predict()
            network.detach()
            theirs = predict()
            network.attach()
        expected = (ours - theirs).pow(2).flatten(1).mean(1)
        torch.testing.assert_close(losses.detach().double(), expected, rtol=1e-4, atol=1e-9)
        found.append(float(expected.sum()))

    monkeypatch.setattr(loop, "preserve", compare)
    run(tmp_path, **HELD, text_encoder_lr=text_encoder_lr, max_train_steps=3)
    assert found[0] == 0 and found[-1] > 0  # a new LoRA has moved nothing yet


def test_the_class_stays_where_it_was(tmp_path: Path) -> None:
    def drift(folder: str, **options: Any) -> float:
        """How far a prediction for the class has moved in a run, by its own model and file."""
        host = TinyHost(tmp_path / folder / "loras")
        run(tmp_path / folder, host=host, max_train_steps=20, learning_rate=0.02, **options)
        from lora_trainer.network.network import LoraNetwork

        model = host.model
        network = LoraNetwork.from_file(
            tmp_path / folder / "loras/zork.safetensors", model.unet, model.text_encoders, model.info
        )
        noisy = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        timesteps = torch.tensor([50, 300, 600, 900])
        with torch.no_grad():
            context = model.encode_captions(["box"] * 4, 75, 1)
            plain = model.predict(noisy, timesteps, context, ())
            with network:
                return float((model.predict(noisy, timesteps, context, ()) - plain).square().mean())

    assert drift("held", **{**HELD, "diff_output_preservation": 10.0}) < 0.7 * drift("free")


def test_what_cant_be_preserved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set preservation_class"):
        run(tmp_path, diff_output_preservation=1.0)
    run(tmp_path / "a", max_train_steps=1)
    for caption in (tmp_path / "a/data").rglob("*.txt"):
        caption.write_text("no such word")
    with pytest.raises(ConfigError, match="needs captions with the trigger word, and none has 'zork'"):
        run(tmp_path / "a", name="other", **HELD)
