from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.hosts.base import Conditioning, SizeConditioning
from lora_trainer.hosts.standalone.detect import detect
from lora_trainer.hosts.standalone.host import DiffusersHost
from lora_trainer.hosts.standalone.parts import build_parts, fingerprint
from tests.support.tiny_checkpoints import KINDS, ldm_vae, make_modules, make_vae

Checkpoint = Callable[[str], Path]


@pytest.mark.parametrize("kind", KINDS)
def test_unet_and_vae_compute_what_made_the_file(tiny_checkpoint: Checkpoint, tmp_path: Path, kind: str) -> None:
    modules = make_modules(kind)
    g = torch.Generator().manual_seed(1)
    noisy, t = torch.randn(2, 4, 8, 16, generator=g), torch.tensor([3, 901])
    context = torch.randn(2, 77, 64 if kind == "sdxl" else 32, generator=g)
    pooled, added = None, None
    sizes = [SizeConditioning((512, 768), (0, 16), (1024, 1536)), SizeConditioning((100, 200), (3, 4), (8, 9))]
    if kind == "sdxl":
        pooled = torch.randn(2, 32, generator=g)
        time_ids = torch.tensor([[512.0, 768, 0, 16, 1024, 1536], [100, 200, 3, 4, 8, 9]])
        added = {"text_embeds": pooled, "time_ids": time_ids}
    pixels = torch.rand(2, 3, 64, 128, generator=g) * 2 - 1
    with torch.no_grad():
        expected = modules.unet(noisy, t, encoder_hidden_states=context, added_cond_kwargs=added).sample
        posterior = modules.vae.encode(pixels).latent_dist
    scale = 0.13025 if kind == "sdxl" else 0.18215
    with DiffusersHost(tiny_checkpoint(kind), tmp_path, device="cpu").take("no") as model, torch.no_grad():
        got = model.predict(noisy, t, Conditioning(context, pooled), sizes)
        mean, std = model.encode_images(pixels)
        decoded = model._decode(mean)
        torch.testing.assert_close(decoded, modules.vae.decode(mean / scale).sample, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mean, posterior.mean * scale, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(std, posterior.std * scale, atol=1e-6, rtol=1e-4)
    assert got.dtype == mean.dtype == std.dtype == torch.float32 and mean.shape == (2, 4, 8, 16)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_weights_are_where_diffusers_own_reader_puts_them(tiny_checkpoint: Checkpoint, kind: str) -> None:
    from diffusers.loaders import single_file_utils as theirs

    path = tiny_checkpoint(kind)
    ours = build_parts(detect(path))
    file, config = load_file(path), yaml.safe_load(path.with_suffix(".yaml").read_text())
    unet_config = theirs.create_unet_diffusers_config_from_ldm(config, file)
    vae_config = theirs.create_vae_diffusers_config_from_ldm(config, file)
    for module, state in (
        (ours.unet, theirs.convert_ldm_unet_checkpoint(dict(file), unet_config)),
        (ours.vae, theirs.convert_ldm_vae_checkpoint(dict(file), vae_config)),
    ):
        mine = module.state_dict()
        assert mine.keys() == state.keys()
        assert all(torch.equal(mine[name], state[name]) for name in mine)


def test_building_draws_nothing_and_keeps_the_format(tiny_checkpoint: Checkpoint) -> None:
    before = torch.get_rng_state()
    parts = build_parts(detect(tiny_checkpoint("sdxl")))
    assert torch.equal(torch.get_rng_state(), before)
    for module in [m for group in parts.modules.values() for m in group]:
        assert {weight.dtype for weight in module.parameters()} == {torch.float16}
        assert not any(weight.requires_grad or weight.is_meta for weight in module.parameters())
        assert not any(buffer.is_meta for buffer in module.buffers())
        assert not any(part.training for part in module.modules())


def edited(checkpoint: Path, folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy of a checkpoint, with its config, whose weights were changed."""
    shutil.copytree(checkpoint.parent, folder, dirs_exist_ok=True)
    weights = load_file(checkpoint)
    edit(weights)
    save_file(weights, folder / checkpoint.name)
    return folder / checkpoint.name


def test_sd2_that_says_nothing_is_run_to_tell(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    def lower(weights: dict[str, torch.Tensor]) -> None:
        weights["model.diffusion_model.out.2.bias"] -= 1.6  # an answer far below the input, as v models give

    path = tiny_checkpoint("sd2")
    assert build_parts(replace(detect(path), prediction_type=None)).prediction_type == "epsilon"
    path = edited(path, tmp_path, lower)
    found = replace(detect(path), prediction_type=None)
    assert build_parts(found).prediction_type == "v_prediction"
    assert build_parts(found, prediction_type="epsilon").prediction_type == "epsilon"


def test_unusual_widths_need_their_config(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = edited(tiny_checkpoint("sd1"), tmp_path, lambda weights: None)
    path.with_suffix(".yaml").unlink()
    with pytest.raises(UnsupportedModelError, match=r"tiny-sd1\.safetensors has unusual widths.*tiny-sd1\.yaml"):
        build_parts(detect(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.diffusion_model.output_blocks.3.1.proj_out.weight", "UNet isn't laid out"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", "text encoder isn't laid out"),
        ("first_stage_model.encoder.mid.attn_1.q.bias", "VAE isn't laid out"),
    ],
)
def test_a_missing_tensor_is_named(tiny_checkpoint: Checkpoint, tmp_path: Path, name: str, words: str) -> None:
    path = edited(tiny_checkpoint("sd1"), tmp_path, lambda weights: weights.pop(name))
    with pytest.raises(UnsupportedModelError, match=rf"tiny-sd1\.safetensors's {words}.* is missing"):
        build_parts(detect(path))


def test_weights_that_no_part_uses_are_left_out(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    more = {
        "model.diffusion_model.extra.weight": torch.zeros(2),
        "cond_stage_model.transformer.text_projection.weight": torch.eye(32),  # as merging programs leave it
        "cond_stage_model.logit_scale": torch.tensor(4.6),
        "first_stage_model.encoder.mid.extra.weight": torch.zeros(2),
    }
    plain, path = tiny_checkpoint("sd1"), edited(tiny_checkpoint("sd1"), tmp_path, lambda w: w.update(more))
    ours, theirs = build_parts(detect(path)), build_parts(detect(plain))
    assert fingerprint(ours.unet, ours.vae, *ours.text_encoders) == fingerprint(
        theirs.unet, theirs.vae, *theirs.text_encoders
    )


def test_a_unet_without_the_models_prefix(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    def rename(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if name.startswith("model.diffusion_model.")]:
            weights[name.removeprefix("model.")] = weights.pop(name)

    plain, path = tiny_checkpoint("sdxl"), edited(tiny_checkpoint("sdxl"), tmp_path, rename)
    assert detect(path).family == "sdxl"
    assert fingerprint(build_parts(detect(path)).unet) == fingerprint(build_parts(detect(plain)).unet)
    torch.save(load_file(path), path.with_suffix(".ckpt"))
    assert fingerprint(build_parts(detect(path.with_suffix(".ckpt"))).unet) == fingerprint(
        build_parts(detect(plain)).unet
    )


@pytest.mark.parametrize("old", [False, True], ids=["today", "before 2023"])
def test_a_vae_in_diffusers_names(tiny_checkpoint: Checkpoint, tmp_path: Path, old: bool) -> None:
    theirs = make_vae(seed=7)
    state = {name: weight.contiguous() for name, weight in theirs.state_dict().items()}
    if old:
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for name in [name for name in state if ".attentions." in name and "group_norm" not in name]:
            new = next(name.replace(a, b) for a, b in names.items() if a in name)
            state[new] = state.pop(name)
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    parts = build_parts(detect(tiny_checkpoint("sd1")), tmp_path / "diffusion_pytorch_model.safetensors")
    ours = parts.vae.state_dict()
    assert ours.keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.state_dict().items())


def test_tensors_of_strange_shapes_are_named(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    other = {"model.diffusion_model.out.2.weight": torch.zeros(4, 16, 3, 3)}
    path = edited(tiny_checkpoint("sd1"), tmp_path, lambda weights: weights.update(other))
    with pytest.raises(UnsupportedModelError, match=r"unexpected shape \(conv_out\.weight\)"):
        build_parts(detect(path))


def test_a_vae_from_another_file(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    theirs = make_vae(seed=7)
    save_file({k: v.contiguous() for k, v in ldm_vae(theirs).items()}, tmp_path / "new.vae.safetensors")
    plain = DiffusersHost(tiny_checkpoint("sd1"), tmp_path, device="cpu").info()
    host = DiffusersHost(tiny_checkpoint("sd1"), tmp_path, device="cpu", vae=tmp_path / "new.vae.safetensors")
    info = host.info()
    assert info.vae == "new.vae.safetensors" and len(info.vae_sha256) == 64
    assert info.vae_fingerprint != plain.vae_fingerprint and info.text_fingerprint == plain.text_fingerprint
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with host.take("no") as model, torch.no_grad():
        expected = theirs.encode(pixels).latent_dist.mean * 0.18215
        torch.testing.assert_close(model.encode_images(pixels)[0], expected, atol=1e-6, rtol=1e-4)
    with pytest.raises(UnsupportedModelError, match=r"VAE in tiny-sd1\.yaml|\.yaml isn't a \.safetensors or"):
        DiffusersHost(tiny_checkpoint("sd1"), tmp_path, vae=tiny_checkpoint("sd1").with_suffix(".yaml")).info()


def test_fingerprints_see_every_tensor(tiny_checkpoint: Checkpoint) -> None:
    part = build_parts(detect(tiny_checkpoint("sd1"))).vae.encoder.mid_block
    seen = {fingerprint(part)}
    assert fingerprint(part) in seen and fingerprint(part, settings="other") not in seen
    for weight in part.parameters():
        last = weight.data.flatten()[-1:]
        last += 1
        assert fingerprint(part) not in seen
        seen.add(fingerprint(part))
        last -= 1
    assert len(seen) == 1 + len(list(part.parameters()))
