from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lora_trainer import noise_schedule
from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest
from lora_trainer.hosts.standalone.generation import Task, sample_latents
from lora_trainer.hosts.standalone.host import DiffusersHost
from lora_trainer.hosts.standalone.prompt import LoraTag, split_prompt
from lora_trainer.hosts.standalone.samplers import SAMPLERS, find_sampler, make_scheduler
from lora_trainer.network.network import LoraNetwork
from lora_trainer.seeds import torch_generator

Checkpoint = Callable[[str], Path]
REQUEST = GenerateRequest("a cat", "blurry", seed=5, steps=2, cfg_scale=4, width=64, height=64)


def request(prompt: str = "a cat", **changes: object) -> GenerateRequest:
    return GenerateRequest(**{**vars(REQUEST), "prompt": prompt, **changes})  # type: ignore[arg-type]


def same(first: GeneratedImage, second: GeneratedImage) -> bool:
    return bool(np.array_equal(np.asarray(first.image), np.asarray(second.image)))


@pytest.fixture(scope="module")
def host(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> DiffusersHost:
    host = DiffusersHost(tiny_checkpoint("sd1"), tmp_path_factory.mktemp("loras"), device="cpu")
    write_lora(host, "style", seed=1)
    return host


def write_lora(host: DiffusersHost, name: str, seed: int, only: str = "") -> Path:
    """A LoRA that changes a lot, written with kohya's names."""
    with host.take("no") as model:
        network = LoraNetwork.create(model.unet, model.text_encoders, model.info, RunConfig(), seed)
        g = torch.Generator().manual_seed(seed)
        for module in network.modules:
            module.up.data.normal_(0, 0.3, generator=g)
        tensors = {k: v for k, v in network.state_dict().items() if only in k}
    save_file(tensors, host.lora_dir / f"{name}.safetensors")
    return host.lora_dir / f"{name}.safetensors"


@pytest.mark.parametrize(("kind", "zero_snr"), [("sd1", False), ("sd2v", False), ("sd2v", True), ("sdxl", False)])
def test_pictures_are_those_of_diffusers_pipeline(
    tiny_checkpoint: Checkpoint, tmp_path: Path, kind: str, zero_snr: bool
) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    host = DiffusersHost(tiny_checkpoint(kind), tmp_path, device="cpu", zero_terminal_snr=zero_snr)
    wanted = request(sampler="ddim", steps=3, height=128)
    with host.take("no") as model, torch.no_grad():
        ours = sample_latents(model._denoiser(), [Task(wanted, wanted.prompt, ())])
        theirs = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, prediction_type=model.info.prediction_type, rescale_betas_zero_snr=zero_snr,
            timestep_spacing="trailing" if zero_snr else "leading", steps_offset=1,
        )  # fmt: skip
        rest = {"tokenizer": None, "text_encoder": None, "vae": model.parts.vae, "scheduler": theirs}
        with_text, without = (model.encode_captions([text], 75, 1) for text in (wanted.prompt, wanted.negative_prompt))
        arguments = {
            "prompt_embeds": with_text.context,
            "negative_prompt_embeds": without.context,
            "latents": torch.randn(1, 4, 16, 8, generator=torch_generator("picture", wanted.seed)),
        }
        if kind == "sdxl":
            pipeline = StableDiffusionXLPipeline(
                unet=model.unet, tokenizer_2=None, text_encoder_2=None, add_watermarker=False, **rest
            )
            arguments.update(pooled_prompt_embeds=with_text.pooled, negative_pooled_prompt_embeds=without.pooled)
        else:
            pipeline = StableDiffusionPipeline(
                unet=model.unet, safety_checker=None, feature_extractor=None, requires_safety_checker=False, **rest
            )
        pipeline.set_progress_bar_config(disable=True)
        expected = pipeline(
            width=64, height=128, num_inference_steps=3, guidance_scale=4.0, output_type="latent", **arguments
        ).images
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(ours, expected, atol=2e-3, rtol=1e-3)


def test_zero_snr_schedule_is_diffusers() -> None:
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0).float()
    ours = noise_schedule.rescale_zero_terminal_snr(noise_schedule.linear_in_root(0.00085, 0.012)).float()
    assert float(ours[-1]) == 0
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("name", [*SAMPLERS, "dpm++_2m_karras"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_every_sampler_finds_the_only_picture_that_there_is(name: str, zero_snr: bool) -> None:
    """Given a model that always predicts the same x0 (as v), each sampler ends there."""
    alphas = noise_schedule.linear_in_root(0.00085, 0.012)
    alphas = noise_schedule.rescale_zero_terminal_snr(alphas).float() if zero_snr else alphas
    scheduler = make_scheduler(find_sampler(name), alphas, "v_prediction")
    scheduler.set_timesteps(12)
    goal = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    g = torch_generator(name)
    x = torch.randn(1, 1, 4, 4, generator=g) * scheduler.init_noise_sigma
    assert zero_snr is False or float(scheduler.timesteps[0]) >= 998 or "spacing" not in str(scheduler.config)
    takes_generator = "generator" in __import__("inspect").signature(scheduler.step).parameters
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        a = float(np.interp(float(t), np.arange(1000), alphas.double().clamp(min=2**-24).numpy()))
        # x_t = √ᾱ·x0 + √(1−ᾱ)·ε and v = √ᾱ·ε − √(1−ᾱ)·x0
        noise = (scaled - a**0.5 * goal) / (1 - a) ** 0.5
        output = a**0.5 * noise - (1 - a) ** 0.5 * goal
        x = scheduler.step(output, t, x, **({"generator": g} if takes_generator else {})).prev_sample
    assert float((x - goal).abs().max()) < (0.25 if name == "pndm" else 0.06)


SD_SCRIPTS = (  # all that its sample_sampler may be
    "ddim", "pndm", "lms", "euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "dpmsolver", "dpmsolver++", "dpmsingle",
    "k_lms", "k_euler", "k_euler_a", "k_dpm_2", "k_dpm_2_a",
)  # fmt: skip


def test_sampler_names() -> None:
    for name, label in (
        ("k_euler_a", "Euler a"), ("Euler a", "Euler a"), ("dpmpp_2m", "DPM++ 2M"), ("DPM++ 2M", "DPM++ 2M"),
        ("k_dpm_2_a", "DPM2 a"), ("dpmsolver++", "DPM++ 2M"), ("DDIM", "DDIM"), ("plms", "PLMS"), ("UniPC", "UniPC"),
    ):  # fmt: skip
        assert find_sampler(name).label == label and not find_sampler(name).karras
    for name in SD_SCRIPTS:
        make_scheduler(find_sampler(name), noise_schedule.linear_in_root(0.00085, 0.012).float(), "epsilon")
    assert find_sampler("DPM++ 2M Karras").karras
    for wrong in ("eulr", "", "ddim_karras"):
        with pytest.raises(ConfigError, match=r"euler_a, euler, .*ddim"):
            find_sampler(wrong)


def test_same_seed_same_picture(host: DiffusersHost) -> None:
    first = host.generate(REQUEST)
    assert first.image.size == (64, 64) and same(first, host.generate(REQUEST))
    assert not same(first, host.generate(request(seed=6)))
    assert not same(first, host.generate(request("a dog")))
    assert not same(first, host.generate(request(negative_prompt="sharp")))


def test_many_are_each_as_alone(host: DiffusersHost) -> None:
    wanted = [
        request(seed=1), request("a dog", seed=2), request("a bird <lora:style:0.7>"), request(seed=3, steps=3),
        request("word " * 90), request("a cat <lora:style:0.7>", seed=9), request(width=128),
    ]  # fmt: skip
    together = host.generate_many(wanted, batch_size=2)
    for one, made in zip(wanted, together, strict=True):
        alone = host.generate(one)
        assert made.request == one and made.infotext == alone.infotext and made.image.size == (one.width, one.height)
        difference = np.asarray(made.image).astype(int) - np.asarray(alone.image).astype(int)
        assert abs(difference).max() <= 2


def test_lora_strengths(host: DiffusersHost) -> None:
    base = host.generate(REQUEST)
    assert same(base, host.generate(request("a cat<lora:style:0>")))
    full = host.generate(request("a cat<lora:style:1>"))
    assert not same(base, full)
    assert same(full, host.generate(request("a cat<lora:style>")))
    assert same(full, host.generate(request("<lora:style:0.5>a cat<lora:style:0.5>")))
    half = host.generate(request("a cat<lora:style:0.5>"))
    assert not same(full, half) and not same(base, half)
    assert same(base, host.generate(REQUEST))  # nothing stays attached
    text_only = host.generate(request("a cat<lora:style:1:0>"))
    unet_only = host.generate(request("a cat<lora:style:te=0:unet=1>"))
    assert len({g.image.tobytes() for g in (base, full, text_only, unet_only)}) == 4
    write_lora(host, "text-part", 1, only="lora_te_")
    assert same(text_only, host.generate(request("a cat<lora:text-part>")))
    assert host.lora_modules(host.lora_dir / "style.safetensors") == 192 + 72
    assert host.lora_modules(host.lora_dir / "text-part.safetensors") == 72


def test_rewritten_lora_is_read_anew(host: DiffusersHost) -> None:
    path = write_lora(host, "changing", seed=2)
    first = host.generate(request("a cat<lora:changing>"))
    times = path.stat()
    write_lora(host, "changing", seed=3)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # even a file system with coarse times
    host.refresh_loras([path])
    assert not same(first, host.generate(request("a cat<lora:changing>")))


def test_unknown_lora_names_the_nearest(host: DiffusersHost) -> None:
    with pytest.raises(FileError, match=r"no LoRA named 'stile' in .*did you mean style\?"):
        host.generate(request("a cat<lora:stile:1>"))
    for refuse in (host.check, host.generate):
        with pytest.raises(FileError, match=r"no LoRA named 'zzzzzz'"):
            refuse(request("a cat<lora:style:1><lora:zzzzzz:0>"))
    host.check(request("a cat<lora:style:1>"))
    with pytest.raises(ConfigError, match=r"<lora:style:strong>.*0\.8"):
        host.generate(request("a cat<lora:style:strong>"))


def test_split_prompt() -> None:
    text, tags = split_prompt("a <lora:One two:0.8>cat, <lora:x:0.5:1><lyco:y> <b> <lora:z:te=0.1:unet=-2>")
    assert text == "a cat,  <b> "
    assert tags == (
        LoraTag("One two", 0.8, 0.8), LoraTag("x", 0.5, 1.0), LoraTag("y", 1.0, 1.0), LoraTag("z", 0.1, -2.0),
    )  # fmt: skip


def test_infotext_is_automatic1111s(host: DiffusersHost) -> None:
    sha256 = host.info().checkpoint_sha256
    prompt = "a cat<lora:style:0.5>"
    made = host.generate(request(prompt, sampler="dpmpp_2m_karras", cfg_scale=4.5, seed=2**32 - 1))
    assert made.infotext == (
        f"{prompt}\nNegative prompt: blurry\n"
        "Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4.5, Seed: 4294967295, Size: 64x64, "
        f"Model hash: {sha256[:10]}, Model: tiny-sd1"
    )
    skipping = DiffusersHost(host.checkpoint, host.lora_dir, device="cpu", clip_skip=2)
    plain = skipping.generate(request(negative_prompt="", seed=1, sampler="euler"))
    assert plain.infotext.startswith("a cat\nSteps: 2, Sampler: Euler, CFG scale: 4, Seed: 1,")
    assert plain.infotext.endswith(", Clip skip: 2")
    assert not same(plain, host.generate(request(negative_prompt="", seed=1, sampler="euler")))


def test_sdxl_uses_zeros_for_no_negative(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    host = DiffusersHost(tiny_checkpoint("sdxl"), tmp_path, device="cpu")
    seen: list[torch.Tensor] = []
    with host.take("no") as model:
        model.unet.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
        )
        for negative in ("", "blurry"):
            model.generate(request(negative_prompt=negative, steps=1, sampler="euler"))
    assert float(seen[0][0].abs().max()) == 0 < float(seen[0][1].abs().max())
    assert float(seen[1][0].abs().max()) > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 60}, "width can't be 60"),
        ({"height": 32}, "height can't be 32"),
        ({"steps": 0}, "steps can't be 0"),
        ({"cfg_scale": float("nan")}, "cfg_scale can't be nan"),
        ({"sampler": "none"}, "no sampler 'none'"),
    ],
)
def test_impossible_requests(host: DiffusersHost, changes: dict[str, object], words: str) -> None:
    for refuse in (host.check, host.generate):
        with pytest.raises(ConfigError, match=words):
            refuse(request(**changes))
