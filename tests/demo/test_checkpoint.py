"""The embedded checkpoint: its file, its loading, and (slow) what it draws."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from lora_trainer.demo import CHECKPOINT, CONFIG, TOKENIZER
from lora_trainer.demo.install import install


def shapes() -> dict[str, tuple[int, ...]]:
    with safe_open(CHECKPOINT, "pt") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def test_size() -> None:
    files = [CHECKPOINT, CONFIG, *TOKENIZER.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 14_000_000


def test_names_and_shapes_are_those_of_sd1() -> None:
    found = shapes()
    unet, text = "model.diffusion_model.", "cond_stage_model.transformer.text_model."
    assert found[unet + "input_blocks.0.0.weight"] == (64, 4, 3, 3)
    assert len(found[unet + "input_blocks.1.1.proj_in.weight"]) == 4  # a convolution, as in SD 1.x
    assert found[unet + "middle_block.1.transformer_blocks.0.attn2.to_k.weight"] == (64, 32)
    assert found[unet + "output_blocks.2.2.conv.weight"] == (64, 64, 3, 3)
    assert found[text + "embeddings.token_embedding.weight"] == (49408, 32)
    assert found["first_stage_model.decoder.mid.attn_1.q.weight"] == (64, 64, 1, 1)
    assert found["first_stage_model.quant_conv.weight"] == (8, 8, 1, 1)
    assert {key.split(".")[0] for key in found} == {"model", "first_stage_model", "cond_stage_model"}


def test_config() -> None:
    params = yaml.safe_load(CONFIG.read_text("utf-8"))["model"]["params"]
    assert params["scale_factor"] == 0.18215
    assert (params["linear_start"], params["linear_end"], params["timesteps"]) == (0.00085, 0.0120, 1000)
    assert params["unet_config"]["params"]["num_res_blocks"] == 2
    folder = params["cond_stage_config"]["params"]["version"]
    assert (CONFIG.parent / folder).resolve() == TOKENIZER


def test_install(tmp_path: Path) -> None:
    target = install(tmp_path / "models" / "Stable-diffusion")
    assert target.read_bytes() == CHECKPOINT.read_bytes()
    params = yaml.safe_load(target.with_suffix(".yaml").read_text("utf-8"))["model"]["params"]
    assert Path(params["cond_stage_config"]["params"]["version"]) == TOKENIZER
    before = target.stat().st_mtime_ns
    assert install(tmp_path / "models" / "Stable-diffusion").stat().st_mtime_ns == before
    assert not list(target.parent.glob("*.tmp"))


def test_tokenizer_is_clips() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(TOKENIZER)
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(tokenizer("zorbo").input_ids) > 2


def test_loads_in_diffusers_and_latents_are_standard() -> None:
    pytest.importorskip("diffusers")
    import numpy as np
    import torch

    from lora_trainer.demo import world
    from lora_trainer.demo.sample import Pieces

    pieces = Pieces.load(CHECKPOINT, TOKENIZER)
    rng = np.random.default_rng(3)
    pictures = np.stack([world.draw(world.random_scene(rng)) for _ in range(32)])
    pixels = torch.from_numpy(pictures.transpose(0, 3, 1, 2)).float() / 127.5 - 1
    with torch.no_grad():
        latents = pieces.vae.encode(pixels).latent_dist.mean
        back = pieces.vae.decode(latents).sample.clamp(-1, 1)
    scaled = latents * 0.18215
    assert scaled.mean((0, 2, 3)).abs().max() < 0.3
    assert (scaled.std((0, 2, 3)) - 1).abs().max() < 0.2
    assert (back - pixels).abs().mean() < 0.04
    states = pieces.embed(["a red circle"])
    assert states.mean().abs() > 1e-3  # A1111's emphasis divides by it
    assert math.isfinite(float(states.sum()))


@pytest.mark.slow
def test_pictures_show_what_was_asked() -> None:
    pytest.importorskip("diffusers")
    from lora_trainer.demo.sample import Pieces
    from tests.demo.accuracy import asked, prompt, score

    facts = asked(100)
    pictures = Pieces.load(CHECKPOINT, TOKENIZER).pictures([prompt(f) for f in facts], list(range(100)))
    right, wrong = score(facts, pictures)
    assert right["both"] >= 95, (right, wrong)
    assert right["background"] >= 95, right
    assert right["position"] >= 95, right
