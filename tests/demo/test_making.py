"""The program that makes the checkpoint: its small mathematics, and (slow) all of it for a few steps."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")

from safetensors.torch import load_file

from lora_trainer.demo import TOKENIZER
from lora_trainer.demo.export import write_checkpoint
from lora_trainer.demo.fold import fold_epsilon, fold_scale
from lora_trainer.demo.make_checkpoint import main
from lora_trainer.demo.muon import Muon, orthogonalise
from lora_trainer.demo.sample import Pieces
from lora_trainer.demo.text import make_text_encoder
from lora_trainer.demo.unet import alphas_cumprod, make_unet
from lora_trainer.demo.vae import NOISE, SCALE, TRAIN_EPSILON, make_vae, set_epsilon


def random_vae():  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    vae = make_vae().eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    set_epsilon(vae, TRAIN_EPSILON)
    return vae


@torch.no_grad()
def test_folding_changes_no_picture() -> None:
    vae = random_vae()
    folded = copy.deepcopy(vae)
    mean, deviation = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([1.1, 0.9, 1.0, 0.6])
    fold_epsilon(folded)
    fold_scale(folded, mean, deviation)
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    z = vae.encode(pixels).latent_dist.mean
    posterior = folded.encode(pixels).latent_dist
    wanted = (z - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(posterior.mean * SCALE, wanted, atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(posterior.std[0, :, 0, 0] * SCALE, NOISE / deviation, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.decode(wanted / SCALE).sample, vae.decode(z).sample, atol=2e-3, rtol=2e-3)


@torch.no_grad()
def test_written_checkpoint_computes_the_same(tmp_path: Path) -> None:
    vae, unet, encoder = random_vae(), make_unet(0).eval(), make_text_encoder(0).eval()
    for part in (vae, unet, encoder):
        for parameter in part.parameters():
            parameter.copy_(parameter.half().float())
    path = write_checkpoint(tmp_path, vae, torch.zeros(4), torch.ones(4), unet, encoder)
    pieces = Pieces.load(path, TOKENIZER)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    tokens = torch.randint(0, 49408, (2, 77))
    states = encoder(tokens).last_hidden_state
    torch.testing.assert_close(pieces.encoder(tokens).last_hidden_state, states)
    torch.testing.assert_close(pieces.unet(x, t, states).sample, unet(x, t, states).sample)
    pixels = torch.rand(1, 3, 64, 64)
    got, wanted = pieces.vae.encode(pixels).latent_dist.mean * SCALE, vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(got, wanted, atol=0.02, rtol=0.02)  # the fold's scales do not fit fp16 exactly


def test_schedule_is_sd1s() -> None:
    alphas = alphas_cumprod()
    assert alphas.shape == (1000,)
    assert float(alphas[0]) == pytest.approx(1 - 0.00085)
    assert float(alphas[-1]) == pytest.approx(0.0047, abs=1e-4)


def test_orthogonalise_gives_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 16, 48)))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_muon_fits_a_linear_map() -> None:
    torch.manual_seed(0)
    layer, target, x = torch.nn.Linear(8, 16, bias=False), torch.randn(16, 8) * 0.3, torch.randn(64, 8)
    optimizer = Muon(layer.parameters(), lr=0.05, decay=0.0)
    losses = []
    for _ in range(60):
        loss = (layer(x) - x @ target.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] * 0.1


@pytest.mark.slow
def test_whole_program_in_small(tmp_path: Path) -> None:
    counts = ["--vae-steps", "2", "--encoder-steps", "1", "--word-steps", "2", "--unet-steps", "2", "--drawings", "1"]
    folders = ["--output", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main([*folders, *counts, "--processes", "2"]) == 0
    first = load_file(tmp_path / "out" / "tiny-world.safetensors")
    assert main([*folders, *counts, "--processes", "2"]) == 0  # goes on from the stages' files, same result
    second = load_file(tmp_path / "out" / "tiny-world.safetensors")  # the order of the file's metadata is not fixed
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    Pieces.load(tmp_path / "out" / "tiny-world.safetensors", TOKENIZER)
