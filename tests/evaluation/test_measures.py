"""The measures: against closed forms and other implementations, and that they leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_trainer.evaluation.material import Material
from lora_trainer.evaluation.measuring import Bench
from lora_trainer.measures.denoising import Pictures, Rows, drift
from lora_trainer.measures.interval import bootstrap
from lora_trainer.measures.likeness import features, likeness, nearest
from lora_trainer.measures.probe import Probe, fixed_noise
from lora_trainer.measures.sameness import nearest_distance, spread
from lora_trainer.measures.sampling import sample
from lora_trainer.measures.weights import health
from tests.support.runs import run
from tests.support.tiny_host import TinyModel

KNOWN = ("a red cup", "a blue cup", "a green cup", "a white cup")
ASKED = ("a red zork", "a blue zork", "a green zork", "a white zork")


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA that was trained a little, text encoder and all."""
    root = tmp_path_factory.mktemp("lora")
    run(root, max_train_epochs=4, text_encoder_lr=1e-2)
    return root / "loras/zork.safetensors"


def latents(count: int, key: str = "x") -> Tensor:
    return torch.stack([fixed_noise((4, 8, 8), key, i) for i in range(count)])


def bench(model: TinyModel) -> Bench:
    images = Pictures(latents(3, "images"), ("zork, one", "zork, two", "zork"), "images")
    return Bench(Probe(model), Material(Pictures(latents(4, "known"), KNOWN, "known"), ASKED, images))


def test_a_lora_at_strength_0_has_learned_nothing_and_harmed_nothing(lora: Path) -> None:
    cell = bench(TinyModel()).cell(lora, 0.0)
    for estimate in (cell.gain, cell.drift, cell.harm):
        assert estimate is not None
        assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_measuring_leaves_no_trace(lora: Path) -> None:
    model = TinyModel()
    before = {key: value.clone() for key, value in model.unet.state_dict().items()}
    state = torch.random.get_rng_state()
    first, second = (bench(model).cell(lora, 0.8) for _ in range(2))
    assert first == second and first.drift.value > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.unet.state_dict().items())
    assert not any(m._forward_hooks for m in [*model.unet.modules(), *model.text.modules()])


def test_gain_is_the_logarithm_of_the_ratio_of_errors(lora: Path) -> None:
    model = TinyModel()
    made = bench(model)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    images = made.material.images
    assert images is not None and made.images is not None

    def errors(strength: float) -> list[list[float]]:
        rows = []
        with made.probe.at(lora, strength):
            for i, text in enumerate(images.texts):
                row = []
                for t in (50, 200, 400, 600, 750, 900):
                    noise, x = fixed_noise((4, 8, 8), "images", i, t)[None], images.latents[i : i + 1]
                    noisy = scheduler.add_noise(x, noise, torch.tensor([t]))
                    made_of = model.encode_captions([text], 75, 1).context
                    output = model.unet(noisy, torch.tensor([t]), encoder_hidden_states=made_of).sample
                    row.append(float((output - noise).square().mean()))
                rows.append(row)
        return rows

    base, with_lora = np.array(errors(0.0)), np.array(errors(0.7))
    wanted = np.log(base.mean(0) / with_lora.mean(0))
    cell = made.cell(lora, 0.7)
    assert cell.gain is not None
    np.testing.assert_allclose(cell.bins, wanted, rtol=1e-3, atol=1e-5)
    assert cell.gain.value == pytest.approx(wanted.mean(), rel=1e-3) and cell.gain.low <= cell.gain.value


def test_drift_in_closed_form() -> None:
    base = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert drift(base, base + torch.tensor([[0.3, 0.4], [0.0, 1.0]])).tolist() == pytest.approx([0.1, 0.5])


def test_captions_are_read_with_the_loras_own_text_encoder(lora: Path) -> None:
    probe = Probe(TinyModel())
    plain = probe.encode(["zork"]).context
    with probe.at(lora, 1.0):
        changed = probe.encode(["zork"]).context
    assert not torch.equal(plain, changed) and torch.equal(probe.encode(["zork"]).context, plain)


def test_rows_hold_every_picture_at_every_timestep_with_noise_of_its_own() -> None:
    rows = Rows.of(Pictures(latents(2), ("one", "two"), "key"), (10, 20, 30))
    assert rows.timesteps.tolist() == [10, 20, 30] * 2 and rows.texts == ("one",) * 3 + ("two",) * 3
    assert len({tuple(noise.flatten().tolist()) for noise in rows.noise}) == 6
    assert torch.equal(rows.latents[3], latents(2)[1])


def test_a_picture_is_most_like_itself() -> None:
    probe = Probe(TinyModel())
    seen = features(probe, latents(4))
    scores = likeness(seen, seen)
    torch.testing.assert_close(scores.diagonal(), torch.ones(4))
    torch.testing.assert_close(scores, scores.T)
    assert (nearest(seen, seen, without_self=True) < 0.9999).all() and (nearest(seen, seen) > 0.9999).all()
    near = features(probe, latents(4) + 0.05 * latents(4, "other"))
    assert likeness(near, seen).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_sampling_finds_what_a_perfect_model_knows(kind: str) -> None:
    truth = latents(2, "truth")

    class Perfect:
        def __init__(self) -> None:
            model = TinyModel()
            self.schedule = Probe(model).schedule
            self.model = type("Model", (), {"info": type("Info", (), {"prediction_type": kind})()})()

        def predict(self, noisy: Tensor, timesteps: Tensor, texts: Any) -> Tensor:
            signal, spread_ = self.schedule.coefficients(timesteps, noisy)
            x0 = truth.repeat(len(noisy) // len(truth), 1, 1, 1)
            noise = (noisy - signal * x0) / spread_
            return noise if kind == "epsilon" else signal * noise - spread_ * x0

    made = sample(Perfect(), ["a", "b"], (4, 8, 8), "seed", steps=7, guidance=3.0)  # type: ignore[arg-type]
    torch.testing.assert_close(made, truth, atol=2e-3, rtol=1e-3)


def test_sameness_in_closed_form() -> None:
    one = torch.zeros(1, 1, 2, 2)
    assert spread(torch.cat([one, one + 2])) == pytest.approx(2.0) and spread(one) == 0.0
    image = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    assert nearest_distance(image.flip(-1), image).tolist() == [0.0]  # a mirrored copy is a copy
    assert nearest_distance(image + 3, image).tolist() == pytest.approx([3.0])


def test_intervals_cover_the_mean_and_are_the_same_every_time() -> None:
    rng, covered = np.random.default_rng(1), 0
    for _ in range(100):
        found = bootstrap(rng.normal(5.0, 1.0, 25), lambda part: float(part.mean()))
        covered += found.low <= 5.0 <= found.high
    assert 86 <= covered <= 99
    samples = rng.normal(size=9)
    assert bootstrap(samples, np.median) == bootstrap(samples, np.median)


def test_health_of_weights_in_float64_and_what_is_dead(lora: Path, tmp_path: Path) -> None:
    probe = Probe(TinyModel())
    modules = probe.network(lora).modules
    shares = []
    for module in modules:
        weights = {name: value.double() for name, value in module.file_parts().items()}
        change = weights["lora_up.weight"].flatten(1) @ weights["lora_down.weight"].flatten(1)
        scale = float(weights["alpha"]) / len(weights["lora_down.weight"])
        shares.append(float(change.norm()) * scale / float(module.target.module.weight.double().norm()))
    found = health(modules)
    assert found.relative == pytest.approx(np.mean(shares), rel=1e-4) and not found.dead
    tensors = load_file(lora)
    name = min(name for name in tensors if name.endswith("lora_up.weight"))
    tensors[name] *= 0
    save_file(tensors, tmp_path / "sick.safetensors")
    assert health(probe.network(tmp_path / "sick.safetensors").modules).dead == (name.split(".")[0],)
