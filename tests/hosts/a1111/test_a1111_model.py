"""The adapter on the real ldm classes: what it computes, and that the model is afterwards as it was."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support.fake_webui import Model, WebUI

pytest.importorskip("ldm", reason="needs the package stable-diffusion-sdkit, which make test installs")

from lora_trainer.errors import ConfigError, HostBusyError
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest
from lora_trainer.training.events import CancelToken
from tests.support.gradients import gradients


def captured(taken: Any) -> Any:
    return taken.encode_captions(["zork, big", "a (red:1.5) [x]"], 75, 1)


def test_prediction_and_conditioning(webui: WebUI, taken: Any) -> None:
    conditioning = captured(taken)
    assert conditioning.context.shape == (2, 77, 16) and conditioning.context.dtype == torch.float32
    kept = conditioning.context.clone()
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([3, 900])
    predicted = taken.predict(x, t, conditioning, [])
    wanted = webui.model.model.diffusion_model(x, t, context=kept.half().float())
    assert torch.allclose(predicted, wanted, atol=1e-6) and predicted.dtype == torch.float32
    assert torch.equal(conditioning.context, kept), "the WebUI's casts don't reach the cache"
    assert taken.info.naming == "ldm" and taken.info.family == "sd1" and taken.info.resolution == 64
    assert torch.equal(taken.alphas_cumprod, webui.model.alphas_cumprod_original.float())


def test_captions_are_cut_where_the_webui_cuts_them(webui: WebUI, taken: Any) -> None:
    from lora_trainer.hosts.webui.tokens import rows_of

    encoder = webui.model.cond_stage_model
    text = "a" * 70 + "," + "b" * 30
    first, second = rows_of(encoder, text, 2, 20)
    assert len(first) == len(second) == 77 and first[0] == 300 and first[-1] == 301
    assert first[71] == 7 and first[72] == 301, "the row ends after its last comma"
    assert second[1:31] == encoder.tokenize(["b" * 30])[0] and second[31] == 301
    torn, _ = rows_of(encoder, text, 2, 0)
    assert torn[72:76] == encoder.tokenize(["bbbb"])[0]
    far, _ = rows_of(encoder, "a" * 40 + "," + "b" * 60, 2, 20)
    assert far[75] == encoder.tokenize(["b"])[0][0], "a comma that is too far back tears nothing"
    assert len(rows_of(encoder, "a" * 500, 1, 20)) == 1
    assert taken.encode_captions(["x", "a" * 200], 225, 1).context.shape == (2, 3 * 77, 16)


def test_clip_skip(webui: WebUI, taken: Any) -> None:
    transformer = webui.model.cond_stage_model.wrapped.transformer
    from lora_trainer.hosts.webui.tokens import token_rows

    rows = token_rows(webui.model.cond_stage_model, ["zork"], 75)[:, 0]
    hidden = transformer(input_ids=rows, output_hidden_states=True).hidden_states
    wanted = transformer.text_model.final_layer_norm(hidden[-2])
    assert torch.equal(taken.encode_captions(["zork"], 75, 2).context, wanted)
    webui.shared.opts.data["CLIP_stop_at_last_layers"] = 3
    assert torch.equal(taken.encode_captions(["zork"], 75, 2).context, wanted), "moving the slider changes nothing"
    with pytest.raises(ConfigError, match="3 layers"):
        taken.encode_captions(["zork"], 75, 4)


def test_the_suggested_clip_skip_is_the_one_that_pictures_have(webui: WebUI, host: Any) -> None:
    opts = webui.shared.opts
    opts.data.pop("CLIP_stop_at_last_layers", None)
    assert host.defaults()["clip_skip"] == 1
    opts.data_labels = {"CLIP_stop_at_last_layers": SimpleNamespace(default=2)}  # as Neo has it
    assert host.defaults()["clip_skip"] == 2, "nobody has set it"
    opts.data["CLIP_stop_at_last_layers"] = 3
    assert host.defaults()["clip_skip"] == 3


def test_latents(webui: WebUI, taken: Any) -> None:
    vae = webui.model.first_stage_model
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    mean, std = taken.encode_images(pixels)
    moments = vae.quant_conv(vae.encoder(pixels))
    assert torch.allclose(mean, moments[:, :4] * 0.18215, atol=1e-6)
    assert torch.allclose(std, (0.5 * moments[:, 4:]).exp() * 0.18215, atol=1e-6)
    assert mean.shape == (2, 4, 8, 8)


def test_a_vae_that_overflows_is_used_in_fp32(webui: WebUI, taken: Any) -> None:
    vae = webui.model.first_stage_model
    with torch.no_grad():
        vae.quant_conv.weight.mul_(3000)
    exact = taken.encode_images(torch.ones(1, 3, 64, 64))[0]
    vae.half()
    held = [(tensor.data_ptr(), tensor.clone()) for tensor in vae.parameters()]
    with torch.no_grad():
        hidden = vae.encoder(torch.ones(1, 3, 64, 64).half())
        vae.quant_conv.weight.fill_(60000)
        assert not torch.isfinite(vae.quant_conv(hidden)).all(), "the test's VAE really overflows"
    found = taken.encode_images(torch.ones(1, 3, 64, 64))[0]
    assert torch.isfinite(found).all() and exact.shape == found.shape
    for tensor, (pointer, _) in zip(vae.parameters(), held, strict=True):
        assert tensor.dtype == torch.float16 and tensor.data_ptr() == pointer


def test_gradients_with_and_without_recomputation(webui: WebUI, taken: Any) -> None:
    assert len(taken.blocks()) == sum(
        type(m).__name__ in ("BasicTransformerBlock", "ResBlock") for m in taken.unet.modules()
    )
    plain, recomputed = gradients(taken, False), gradients(taken, True)
    assert all(g is not None for g in plain)
    for one, other in zip(plain, recomputed, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert all(p.grad is None for p in webui.model.parameters())


def test_a_model_that_goes_away(webui: WebUI, host: Any) -> None:
    from lora_trainer.hosts.base import Progress

    with host.working("task(x)", CancelToken()), host.take("no") as taken:
        conditioning = captured(taken)
        webui.model.to("meta")
        with pytest.raises(HostBusyError, match="unloaded"):
            taken.predict(torch.ones(2, 4, 8, 8), torch.tensor([3, 900]), conditioning, [])
        with pytest.raises(HostBusyError, match="unloaded"):
            host.between_steps(Progress(1, 2))
    assert webui.shared.parallel_processing_allowed and not webui.call_queue.queue_lock._lock.locked()


def test_parts_that_are_away_come_when_they_are_needed(webui: WebUI, host: Any) -> None:
    moves: list[str] = []
    model = webui.model
    for name, part in (("vae", model.first_stage_model), ("text", model.cond_stage_model), ("unet", model.model)):
        part.to = lambda device, _name=name: moves.append(f"{_name} {device}")
    with host.working("task(x)", CancelToken()), host.take("no") as taken:
        taken.keep(["unet"])
        assert moves == [], "on a CPU there is nowhere to go"
        taken.device, taken.check = torch.device("cuda"), lambda: None  # as if there were a card
        taken.keep(["vae"])
        assert moves == ["unet cpu", "text cpu"]
        moves.clear()
        taken.keep(["text_encoders"])
        assert moves == ["vae cpu", "text cuda"], "first room is made"
        moves.clear()
        taken.keep(["unet"])
        assert moves == ["text cpu", "unet cuda"]
        moves.clear()
        taken.generate(GenerateRequest("x", width=64, height=64, steps=1))
        assert sorted(moves[:2]) == ["text cuda", "vae cuda"] and sorted(moves[2:]) == ["text cpu", "vae cpu"]
        moves.clear()
        with host.lent():
            assert sorted(moves) == ["text cuda", "vae cuda"]
            moves.clear()
        assert sorted(moves) == ["text cpu", "vae cpu"]
        moves.clear()
        taken.encode_images(torch.zeros(1, 3, 64, 64))
        assert moves == ["vae cuda"]
        moves.clear()
    assert moves == ["text cuda"]


def test_fingerprints_tell_weights_apart(webui: WebUI) -> None:
    from lora_trainer.hosts.a1111 import checkpoint

    first, same = checkpoint.describe(webui.model), checkpoint.describe(copy.deepcopy(webui.model))
    assert first == same
    with torch.no_grad():
        webui.model.first_stage_model.quant_conv.weight[0, 0] += 1
    other = checkpoint.describe(webui.model)
    assert other.vae_fingerprint != first.vae_fingerprint and other.text_fingerprint == first.text_fingerprint


def test_a_live_picture_sees_the_hooks(webui: WebUI, taken: Any) -> None:
    request = GenerateRequest("x <lora:y:1>", seed=4, width=64, height=64, steps=1, sampler="k_euler_a")
    plain: GeneratedImage = taken.generate(request)
    p = webui.made[-1]
    assert p.disable_extra_networks and p.do_not_save_samples and p.sampler_name == "Euler a"
    assert p.scripts.scripts == [], "none of other extensions"
    assert p.cached_c == [None, None] and type(p).cached_c == ["old", "old"]
    handle = taken.unet.register_forward_hook(lambda module, args, y: y * 3)
    changed = taken.generate(request)
    handle.remove()
    assert plain.image.getpixel((0, 0)) != changed.image.getpixel((0, 0))
    assert webui.shared.state.current_image is changed.image
    assert (webui.shared.state.job_no, webui.shared.state.current_latent) == (0, None)
    assert not webui.shared.cmd_opts.no_prompt_history
    with pytest.raises(ConfigError, match="DPM"):
        taken.generate(GenerateRequest("x", sampler="nonsense"))


def test_the_model_is_tiny_but_whole() -> None:
    model = Model()
    assert any(p.requires_grad for p in model.model.parameters()), "as the WebUI leaves its UNet"


def test_the_files_own_marks_are_known(webui: WebUI, host: Any, tmp_path: Path) -> None:
    model = webui.model
    assert "zero_terminal_snr" not in host.defaults()
    path = tmp_path / "noob.safetensors"
    save_file({"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, path)
    model.sd_checkpoint_info.filename = str(path)
    glance = host.glance()
    assert glance is not None and glance.marks.v_prediction and glance.marks.names[0] == "noob"
    assert host.defaults()["zero_terminal_snr"] is True
