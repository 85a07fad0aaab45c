from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lora_trainer.errors import ConfigError, HostBusyError, LoraTrainerError
from lora_trainer.hosts.base import Conditioning, GenerateRequest, SizeConditioning
from lora_trainer.hosts.standalone.host import DiffusersHost
from lora_trainer.hosts.standalone.model import DiffusersModel

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module")
def host(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> DiffusersHost:
    return DiffusersHost(tiny_checkpoint("sd1"), tmp_path_factory.mktemp("loras"), device="cpu")


def snapshot(model: DiffusersModel) -> list[tuple[int, torch.dtype, bool, Tensor]]:
    weights = [w for group in model.parts.modules.values() for m in group for w in m.parameters()]
    return [(w.data_ptr(), w.dtype, w.requires_grad, w.detach().clone()) for w in weights]


def same(
    before: list[tuple[int, torch.dtype, bool, Tensor]], after: list[tuple[int, torch.dtype, bool, Tensor]]
) -> bool:
    return all(a[:3] == b[:3] and torch.equal(a[3], b[3]) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_take_gives_the_very_tensors_back(host: DiffusersHost, precision: str) -> None:
    host.info()
    assert host._model is not None
    before = snapshot(host._model)
    with pytest.raises(KeyError, match="on the way"), host.take(precision) as model:
        dtype = {"no": torch.float32, "bf16": torch.bfloat16}[precision]
        assert {w.dtype for w in model.unet.parameters()} == {dtype}
        conditioning = model.encode_captions(["a"], 75, 1)
        assert {w.dtype for w in model.text_encoders[0].module.parameters()} == {dtype}
        model.encode_images(torch.zeros(1, 3, 64, 64))
        noisy, times = torch.ones(1, 4, 8, 8), torch.tensor([5])
        with torch.no_grad():
            usual = model.predict(noisy, times, conditioning, [])
            model.hold((), model.blocks())
            assert torch.equal(model.predict(noisy, times, conditioning, []), usual), "from CPU memory"
            model.hold(model.blocks(), model.blocks()[:2])
            near = model.predict(noisy, times, conditioning, [])
        assert 0 < torch.linalg.norm(near - usual) < 0.1 * torch.linalg.norm(usual), "in 8 bits"
        next(model.unet.parameters()).requires_grad_(True)  # what a careless user might leave behind
        model.unet.train()
        raise KeyError("on the way")
    assert same(before, snapshot(host._model))
    assert not any(part.training for part in host._model.unet.modules())
    assert {entry[1] for entry in before} == {torch.float16}  # the file's format, not the training's


def test_only_one_can_take(host: DiffusersHost) -> None:
    with host.take("no"):
        with pytest.raises(HostBusyError, match="in use"), host.take("no"):
            pass
        with pytest.raises(HostBusyError):
            host.generate(GenerateRequest("a", width=64, height=64))
    with host.take("no"):
        pass


def test_precision_that_cannot_be(host: DiffusersHost) -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"), host.take("fp16"):
        pass
    with pytest.raises(ConfigError, match=r"'int8'.*no, fp16, bf16"), host.take("int8"):
        pass
    with host.take("no"):  # a refusal doesn't leave it lent
        pass


def test_info(host: DiffusersHost, tiny_checkpoint: Checkpoint) -> None:
    import hashlib

    info = host.info()
    assert (info.family, info.prediction_type, info.naming, info.resolution) == ("sd1", "epsilon", "diffusers", 512)
    assert info.checkpoint == "tiny-sd1.safetensors" and (info.vae, info.vae_sha256) == ("", "")
    assert info.checkpoint_sha256 == hashlib.sha256(tiny_checkpoint("sd1").read_bytes()).hexdigest()


def test_glance_reads_no_weights(tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = DiffusersHost(tiny_checkpoint("sdxl"), tmp_path, device="cpu")
    monkeypatch.setattr("lora_trainer.hosts.standalone.host.build_parts", None)
    seen = host.glance()
    assert seen is not None and (seen.checkpoint, seen.family, seen.resolution) == (
        "tiny-sdxl.safetensors",
        "sdxl",
        1024,
    )
    missing = DiffusersHost(tmp_path / "later.safetensors", tmp_path, device="cpu")
    first = missing.glance()
    assert first is not None and "doesn't exist" in first.refusal
    (tmp_path / "later.safetensors").write_bytes(tiny_checkpoint("sd1").read_bytes())
    second = missing.glance()
    assert second is not None and (second.family, second.refusal) == ("sd1", "")


def test_noise_schedule_is_diffusers(host: DiffusersHost) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    with host.take("no") as model:
        assert model.alphas_cumprod.shape == (1000,) and model.alphas_cumprod.dtype == torch.float32
        torch.testing.assert_close(model.alphas_cumprod, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_blocks_come_in_forward_order(tiny_checkpoint: Checkpoint, tmp_path: Path, kind: str) -> None:
    with DiffusersHost(tiny_checkpoint(kind), tmp_path, device="cpu").take("no") as model, torch.no_grad():
        blocks = model.blocks()
        known = {id(block) for block in blocks}
        ran: list[nn.Module] = []
        names = {"BasicTransformerBlock", "ResnetBlock2D"}
        for module in model.unet.modules():
            if type(module).__name__ in names:
                assert id(module) in known
                module.register_forward_hook(lambda module, args, output: ran.append(module))
        width = 64 if kind == "sdxl" else 32
        pooled = torch.zeros(1, 32) if kind == "sdxl" else None
        context = Conditioning(torch.zeros(1, 77, width), pooled)
        sizes = [SizeConditioning((64, 64), (0, 0), (64, 64))]
        model.predict(torch.zeros(1, 4, 8, 8), torch.tensor([1]), context, sizes)
    assert [id(m) for m in ran] == [id(m) for m in blocks]
    assert len(blocks) == {"sd1": 16 + 22, "sdxl": 70 + 17}[kind]


def test_gradients_flow_to_the_input_and_not_to_weights(host: DiffusersHost) -> None:
    with host.take("no") as model:
        conditioning = model.encode_captions(["a cat"], 75, 1)
        noisy = torch.zeros(1, 4, 8, 8, requires_grad=True)
        model.predict(noisy, torch.tensor([500]), conditioning, []).square().sum().backward()
        assert noisy.grad is not None and float(noisy.grad.abs().sum()) > 0
        assert all(w.grad is None for w in model.unet.parameters())


def test_bf16_is_close(host: DiffusersHost) -> None:
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    results = []
    for precision in ("no", "bf16"):
        with host.take(precision) as model, torch.no_grad():
            conditioning = model.encode_captions(["a cat"], 75, 1)
            results.append(model.predict(noisy, torch.tensor([500]), conditioning, []))
    assert results[1].dtype == torch.float32
    difference = float((results[0] - results[1]).abs().max())
    assert 0 < difference < 0.1 * float(results[0].abs().max())


def test_parked_parts_come_back_when_needed(host: DiffusersHost) -> None:
    pixels = torch.zeros(1, 3, 64, 64)
    with host.take("no") as model:
        first = model.encode_images(pixels)
        captions = model.encode_captions(["a"], 75, 1)
        model.keep(["unet"])
        assert {w.dtype for w in model.parts.vae.parameters()} == {torch.float16}  # only the originals are left
        assert {w.dtype for w in model.parts.text_encoders[0].parameters()} == {torch.float16}
        model.generate(GenerateRequest("a", steps=1, width=64, height=64))
        assert {w.dtype for w in model.parts.vae.parameters()} == {torch.float16}
        again = model.encode_images(pixels)
        torch.testing.assert_close(first, again, rtol=0, atol=0)
        torch.testing.assert_close(captions.context, model.encode_captions(["a"], 75, 1).context, rtol=0, atol=0)


def test_nan_of_the_vae_is_a_sentence(host: DiffusersHost) -> None:
    with host.take("no") as model, pytest.raises(LoraTrainerError, match="NaN for these images"):
        model.encode_images(torch.full((1, 3, 64, 64), float("nan")))


def test_half_precision_vae_falls_back_to_fp32(host: DiffusersHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA the VAE begins in fp16; where that overflows it stays in fp32. (bf16 stands in for fp16 on the CPU.)"""
    half = property(lambda self: torch.float32 if self._vae_needs_fp32 else torch.bfloat16)
    monkeypatch.setattr(DiffusersModel, "_vae_dtype", half)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with host.take("no") as model:
        monkeypatch.setattr(model, "_vae_needs_fp32", True)
        expected = model.encode_images(pixels)
        monkeypatch.setattr(model, "_vae_needs_fp32", False)

        def overflow(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output if output.dtype == torch.float32 else output * float("inf")

        handle = model.parts.vae.encoder.conv_in.register_forward_hook(overflow)
        try:
            got = model.encode_images(pixels)
        finally:
            handle.remove()
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
        assert model._vae_needs_fp32


def test_generating_in_training_sees_live_hooks_and_disturbs_nothing(host: DiffusersHost) -> None:
    request = GenerateRequest("a cat", steps=2, width=64, height=64, seed=3)
    with host.take("no") as model:
        plain = model.generate(request)
        handle = model.unet.conv_out.register_forward_hook(lambda module, args, output: output + 0.5)
        state = torch.get_rng_state()
        live = model.generate(request)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.is_grad_enabled()
        handle.remove()
        assert pixels_of(model.generate(request)) == pixels_of(plain) != pixels_of(live)
    assert pixels_of(host.generate(request)) == pixels_of(plain)


def pixels_of(generated: object) -> bytes:
    return np.asarray(generated.image).tobytes()  # type: ignore[attr-defined]
