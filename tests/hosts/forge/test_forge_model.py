"""The adapter for Forge's kind of WebUI: inference tensors, blocks that add in place, memory management, the pin."""

from __future__ import annotations

import copy
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.fake_forge import Forge, Loaded, Patcher, as_inference

pytest.importorskip("ldm", reason="needs the package stable-diffusion-sdkit, which make test installs")

from lora_trainer.errors import ConfigError, HostBusyError
from lora_trainer.frozen_weights.held import HeldWeight
from lora_trainer.hosts.base import GenerateRequest, Progress
from lora_trainer.training.events import CancelToken
from tests.support.gradients import gradients
from tests.support.held_weights import HeldModel


def condition(forge: Forge) -> dict[str, Any]:
    modules = [module for root in forge.model.roots for module in root.modules()]
    tensors = [tensor for module in modules for tensor in (*module._parameters.values(), *module._buffers.values())]
    return {
        "objects": [id(tensor) for tensor in tensors],
        "own": [sorted(vars(module)) for module in modules],
        "hooks": [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in modules],
        "training": [module.training for module in modules],
        "attention": forge.attention,
        "parallel": forge.shared.parallel_processing_allowed,
        "tiling": forge.model.tiling_enabled,
    }  # fmt: skip


@pytest.mark.parametrize("how", ["end", "exception"])
def test_the_very_tensors_are_put_back(forge: Forge, host: Any, how: str) -> None:
    forge.sd_models.forge_model_reload()
    forge.model.tiling_enabled = True
    before, values = condition(forge), [weight.clone() for weight in forge.model.parameters()]
    try:
        with host.working("task(x)", CancelToken()), host.take("no") as model:
            assert forge.attention == "fused" and not forge.model.tiling_enabled
            assert not any(weight.is_inference() for weight in model.unet.parameters())
            model.generate(GenerateRequest("x", width=64, height=64, steps=1))
            assert not any(weight.is_inference() for weight in model.unet.parameters())
            if how == "exception":
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert how == "exception"
    assert condition(forge) == before
    assert all(torch.equal(one, other) for one, other in zip(forge.model.parameters(), values, strict=True))


def test_recomputation_gives_the_same_gradients(taken: Any) -> None:
    plain, recomputed = gradients(taken, False), gradients(taken, True)
    assert all(torch.equal(one, other) for one, other in zip(plain, recomputed, strict=True))


def test_with_the_first_copy_alone_gradients_would_be_wrong(taken: Any) -> None:
    """Why the norms' copies stay: what the test above would find without them."""
    plain = gradients(taken, False)
    for module in taken.unet.modules():
        if type(module).__name__ == "BasicTransformerBlock":
            for norm in (module.norm1, module.norm2, module.norm3):
                norm._forward_pre_hooks.clear()
    wrong = gradients(taken, True)
    assert not all(torch.allclose(one, other, rtol=1e-3) for one, other in zip(plain, wrong, strict=True))


def test_captions_are_literal_and_clip_skip_holds(forge: Forge, taken: Any) -> None:
    engine = forge.model.text_processing_engine
    transformer = engine.text_encoder.transformer
    rows = torch.tensor([[300, *engine.tokenize(["(a:1.5)"])[0], *[301] * 69]])
    hidden = transformer(rows, output_hidden_states=True).hidden_states
    for skip in (1, 2):
        wanted = transformer.text_model.final_layer_norm(hidden[-skip])
        assert torch.equal(taken.encode_captions(["(a:1.5)"], 75, skip).context, wanted)
    assert engine.embeddings.fixes is None
    with pytest.raises(ConfigError, match="3 layers"):
        taken.encode_captions(["x"], 75, 4)


def test_embeddings_are_used_in_fp32_without_a_trace(forge: Forge, host: Any) -> None:
    forge.sd_models.forge_model_reload()
    table = forge.model.text_processing_engine.text_encoder.transformer.text_model.embeddings.half()
    as_inference(table)
    with host.working("task(x)", CancelToken()), host.take("no"):
        assert {weight.dtype for weight in table.parameters()} == {torch.float32}
    assert {weight.dtype for weight in table.parameters()} == {torch.float16}


def test_latents(forge: Forge, taken: Any) -> None:
    vae, pixels = forge.model.roots[2], torch.rand(2, 3, 64, 64) * 2 - 1
    mean, std = taken.encode_images(pixels)
    moments = vae.quant_conv(vae.encoder(pixels))
    assert torch.allclose(mean, (moments[:, :4] - 0.5) * 0.18215, atol=1e-6)
    assert torch.allclose(std, (0.5 * moments[:, 4:]).exp() * 0.18215, atol=1e-6)


def test_a_vae_that_overflows_is_used_in_fp32(forge: Forge, taken: Any) -> None:
    vae = forge.model.roots[2].half()
    as_inference(vae)
    with torch.inference_mode():
        vae.quant_conv.weight.fill_(60000)
        hidden = vae.encoder(torch.ones(1, 3, 64, 64).half())
        assert not torch.isfinite(vae.quant_conv(hidden)).all(), "the test's VAE really overflows"
    held = [id(weight) for weight in vae.parameters()]
    assert torch.isfinite(taken.encode_images(torch.ones(1, 3, 64, 64))[0]).all()
    assert [id(weight) for weight in vae.parameters()] == held and vae.quant_conv.weight.dtype == torch.float16


def test_loras_are_out_of_the_weights_before_training_begins(forge: Forge, host: Any) -> None:
    forge.sd_models.forge_model_reload()
    unet = forge.model.forge_objects_original.unet
    lora, name = unet.clone(), "diffusion_model.out.2.weight"
    bare = unet.model.get_parameter(name)
    unet.backup[name] = bare
    with torch.inference_mode():
        unet.model.diffusion_model.out[2].weight = nn.Parameter(bare + 1, requires_grad=False)
    forge.model.forge_objects = SimpleNamespace(unet=lora)
    forge.model.current_lora_hash = "[one at 1.0]"
    forge.memory.current_loaded_models.append(Loaded(lora, forge.memory))
    with host.working("task(x)", CancelToken()), host.take("no"):
        assert torch.equal(unet.model.get_parameter(name), bare)
    assert unet.model.get_parameter(name) is bare and forge.model.forge_objects.unet is unet
    assert forge.model.current_lora_hash == "[]", "so that a rewritten file of the same name is read"


def test_a_projection_that_nothing_passes_through_may_hold_anything(forge: Forge, host: Any, taken: Any) -> None:
    from lora_trainer.hosts.forge import checkpoint
    from lora_trainer.training.watch.weights import broken_weights

    assert broken_weights(taken) == ""
    projection = forge.model.text_processing_engine.text_encoder.transformer.text_projection
    assert projection.weight.isinf().all() and not projection.weight.requires_grad
    before = checkpoint.describe(forge.model)
    with torch.inference_mode():
        projection.weight.zero_()
    assert checkpoint.describe(forge.model) == before, "captions that were encoded before are used again"


def test_an_unloaded_model_is_noticed(forge: Forge, host: Any) -> None:
    with host.working("task(x)", CancelToken()), host.take("no"):
        host.between_steps(Progress(1, 2))
        forge.memory.current_loaded_models.clear()
        with pytest.raises(HostBusyError, match="unloaded"):
            host.between_steps(Progress(1, 2))
        forge.choose_model(SimpleNamespace())  # Neo's stand-in
        with pytest.raises(HostBusyError, match="replaced or unloaded"):
            host.between_steps(Progress(1, 2))
    assert host.glance() is None


def test_parts_are_sent_away_by_the_webuis_own_hands(forge: Forge, taken: Any) -> None:
    def loaded() -> set[str]:
        return {type(one.model.model).__name__ for one in forge.memory.current_loaded_models}

    everything = loaded()
    taken.keep(["unet"])
    assert forge.memory.log == [], "on a CPU there is nowhere to go"
    taken.device = torch.device("cuda")  # as if there were a card
    taken.keep(["unet"])
    assert "unload Transformer" in forge.memory.log and "Transformer" not in loaded()
    assert loaded() == everything - {"Transformer"}
    taken.keep(["text_encoders"])
    assert loaded() == {"Transformer"}
    taken.device = torch.device("cpu")
    taken.keep(["unet"])
    taken.encode_captions(["x"], 75, 1)
    assert loaded() >= {"Transformer"}


def test_a_moved_tensor_stays_where_it_went() -> None:
    from lora_trainer.hosts.forge.tensors import ordinary_tensors

    layer = nn.Linear(2, 2)
    as_inference(layer)
    theirs, bias = layer.weight, layer.bias
    with ordinary_tensors([layer]):
        assert layer.weight.data_ptr() == theirs.data_ptr() and not layer.weight.is_inference()
        layer.bias.data = layer.bias.data + 1  # as module.to does
    assert layer.weight is theirs
    assert layer.bias is not bias and torch.equal(layer.bias, bias + 1)


def test_a_tensor_that_is_let_go_leaves_its_memory() -> None:
    from lora_trainer.hosts.forge.tensors import ordinary_tensors

    layer = nn.Linear(2, 2)
    as_inference(layer)
    content, theirs = layer.weight.clone(), weakref.ref(layer.weight)
    with ordinary_tensors([layer], let_go=[layer.weight]):
        assert theirs() is None, "nothing else holds the memory that the weight has on a card"
        layer.weight.data = content.clone()
        address = layer.weight.data_ptr()
    assert torch.equal(layer.weight, content) and not layer.weight.requires_grad
    assert layer.weight.is_inference() and layer.weight.data_ptr() == address, "the whole UNet isn't there twice"


def no_memory(*anything: Any) -> None:
    raise torch.cuda.OutOfMemoryError


@pytest.mark.parametrize("card", [False, True])
def test_weights_are_held_in_another_way_while_the_webui_is_not_at_work(
    forge: Forge, host: Any, card: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_trainer.hosts.forge.model.has_own_memory", lambda device: card)
    forge.sd_models.forge_model_reload()
    before = [weight.clone() for weight in forge.model.parameters()]
    with host.working("task(x)", CancelToken()), host.take("no") as taken:
        model = HeldModel(taken)
        own: list[bool] = []

        def picture(request: GenerateRequest) -> None:
            with torch.inference_mode():
                own.append(model.has_its_own())

        monkeypatch.setattr(taken, "_picture", picture)
        taken.generate(GenerateRequest("x"))
        assert own == [True], "a picture is made with the model's own weights"
        assert torch.equal(model.predicted(), model.coarse)
        with monkeypatch.context() as full:
            full.setattr(HeldWeight, "put_back", no_memory)
            with pytest.raises(torch.cuda.OutOfMemoryError):
                taken.generate(GenerateRequest("x"))
        assert torch.equal(model.predicted(), model.coarse), "a picture that found no memory changes nothing"
    assert all(torch.equal(one, other) for one, other in zip(forge.model.parameters(), before, strict=True))


def test_the_checkpoint_stays_while_a_run_has_it(forge: Forge, host: Any) -> None:
    answers: list[Any] = []

    def others_picture() -> None:
        try:
            answers.append(forge.processing.forge_model_reload())
        except HostBusyError as error:
            answers.append(str(error))

    def ask() -> Any:
        thread = threading.Thread(target=others_picture)
        thread.start()
        thread.join()
        return answers[-1]

    load = forge.processing.forge_model_reload
    with host.working("task(x)", CancelToken()), host.take("no"):
        model = forge.model
        assert ask() == (model, False)
        forge.sd_models.model_data.forge_loading_parameters = {"checkpoint_info": "other"}
        assert "is training tiny" in ask()
        assert forge.sd_models.forge_model_reload() == (model, False), "a sample's picture"
    assert forge.processing.forge_model_reload is load and forge.sd_models.forge_model_reload is load
    assert ask()[0].sd_checkpoint_info.name == "other", "the choice isn't lost"


def test_zero_snr_comes_from_the_checkpoint(forge: Forge, host: Any) -> None:
    assert "zero_terminal_snr" not in host.defaults()
    forge.sd_models.forge_model_reload()
    assert "zero_terminal_snr" not in host.defaults() and host.defaults()["mixed_precision"] == "no"
    forge.model.model_config.ztsnr = True
    assert host.defaults()["zero_terminal_snr"] is True


def test_matched_modules_and_names(forge: Forge, host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[str] = []
    read = SimpleNamespace(cache_clear=lambda: cleared.append("files"))
    networks = SimpleNamespace(
        available_networks={"mine": SimpleNamespace(filename=str(tmp_path / "mine.safetensors"))},
        loaded_networks=["old"], list_available_networks=lambda: cleared.append("list"), load_lora_state_dict=read,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "networks", networks)
    with host.working("task(x)", CancelToken()):
        assert host.lora_modules(tmp_path / "mine.safetensors") == 3
        assert host.lora_modules(tmp_path / "other.safetensors") is None
        forge.model.current_lora_hash = "[mine]"
        host.refresh_loras([tmp_path / "mine.safetensors"])
        assert cleared == ["files", "list"] and forge.model.current_lora_hash == "[]" and networks.loaded_networks == []


def test_what_the_model_is(forge: Forge, host: Any, taken: Any) -> None:
    forge.shared.opts.data["forge_additional_modules"] = ["/text/clip.safetensors", "/vae/nice.safetensors"]
    info = host.describe(forge.model)
    assert info.vae == "nice.safetensors" and info.vae_sha256 == "cd" * 32 and info.naming == "ldm"
    assert info.text_fingerprint == taken.info.text_fingerprint, "the same before, while and after it is taken"
    assert copy.copy(taken.alphas_cumprod).shape == (1000,) and not taken.alphas_cumprod.is_inference()
    assert isinstance(forge.model.forge_objects_original.unet, Patcher)
