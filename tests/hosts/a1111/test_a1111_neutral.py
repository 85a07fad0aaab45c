"""Taking the WebUI's model: what is refused, what is neutralised, and that everything is put back on every path."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.fake_webui import WebUI
from tests.support.held_weights import HeldModel

pytest.importorskip("ldm", reason="needs the package stable-diffusion-sdkit, which make test installs")

from lora_trainer.errors import ConfigError, FileError, UnsupportedModelError
from lora_trainer.hosts.base import GenerateRequest
from lora_trainer.training.events import CancelToken


def state_of(webui: WebUI) -> dict[str, Any]:
    model = webui.model
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "training": [module.training for module in model.modules()],
        "own": [sorted(vars(module)) for module in model.modules()],
        "padding": [getattr(module, "padding_mode", None) for module in model.modules()],
        "parallel": webui.shared.parallel_processing_allowed,
        "hypernetworks": webui.shared.loaded_hypernetworks,
        "merging": getattr(model, "applied_token_merged_ratio", 0),
        "unet": webui.sd_unet.current_unet_option and webui.sd_unet.current_unet_option.label,
        "attention": webui.sd_hijack.current_optimizer.name,
        "rng": torch.get_rng_state(),
    }


def assert_equal(now: dict[str, Any], before: dict[str, Any]) -> None:
    for name, tensor in before.pop("weights").items():
        assert torch.equal(now["weights"][name], tensor), name
    now.pop("weights")
    assert torch.equal(now.pop("rng"), before.pop("rng"))
    assert now == before


@pytest.mark.parametrize("how", ["end", "exception"])
def test_everything_is_put_back(webui: WebUI, host: Any, how: str) -> None:
    networks = [object()]
    webui.shared.loaded_hypernetworks = networks
    webui.sd_hijack.model_hijack.apply_circular(True)
    webui.sd_unet.current_unet_option = SimpleNamespace(label="engine")
    webui.model.applied_token_merged_ratio = 0.5
    webui.model.model.diffusion_model.out[0].training = True
    before = state_of(webui)
    try:
        with host.working("task(x)", CancelToken()), host.take("no") as taken:
            assert webui.shared.loaded_hypernetworks == [] and not webui.shared.parallel_processing_allowed
            assert webui.sd_unet.current_unet_option is None and webui.model.applied_token_merged_ratio == 0
            assert not any(p.requires_grad for p in webui.model.parameters())
            assert not any(getattr(m, "padding_mode", "") == "circular" for m in webui.model.modules())
            assert not any(m.training for m in webui.model.modules())
            taken.generate(GenerateRequest("x", width=64, height=64, steps=1))
            if how == "exception":
                raise RuntimeError("in the middle")
    except RuntimeError:
        assert how == "exception"
    assert_equal(state_of(webui), before)
    assert webui.shared.loaded_hypernetworks is networks
    assert not webui.call_queue.queue_lock._lock.locked() and webui.progress.finished == ["task(x)"]


def test_attention_without_gradients_is_replaced(webui: WebUI, host: Any) -> None:
    unet = webui.model.model.diffusion_model
    attention: list[nn.Module] = [m for m in unet.modules() if hasattr(m, "to_q")]
    for module in attention:
        plain = module.forward
        module.forward = lambda *a, _plain=plain, **k: _plain(*a, **k).detach()
    webui.sd_hijack.current_optimizer = SimpleNamespace(name="xformers", title=lambda: "xformers")
    with host.working("task(x)", CancelToken()), host.take("no"):
        assert webui.sd_hijack.current_optimizer.name == "sdp"
    assert webui.applied == ["sdp - scaled dot product", "xformers"]


def test_fused_attention_with_gradients_stays(webui: WebUI, taken: Any) -> None:
    assert webui.applied == []


def test_attention_that_keeps_every_weight_is_replaced_and_put_back(webui: WebUI, host: Any) -> None:
    for chosen in ("Doggettx", None):
        named = chosen and SimpleNamespace(name=chosen, title=lambda: "Doggettx - 10% faster")
        webui.sd_hijack.current_optimizer = named
        with host.working("task(x)", CancelToken()), host.take("no"):
            assert webui.sd_hijack.current_optimizer.name == "sdp"
    assert webui.applied == [
        "sdp - scaled dot product", "Doggettx - 10% faster", "sdp - scaled dot product", "None",
    ]  # fmt: skip
    webui.applied.clear()
    webui.sd_hijack.optimizers = []  # a torch that has no such attention
    with host.working("task(x)", CancelToken()), host.take("no"):
        assert webui.applied == []


def spoil(change: Callable[[WebUI], Any]) -> Callable[[WebUI], Any]:
    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (spoil(lambda w: setattr(w.shared.cmd_opts, "lowvram", True)), "--medvram"),
        (spoil(lambda w: setattr(w.model, "is_sd3", True)), "SD 3"),
        (spoil(lambda w: setattr(w.model, "is_ssd", True)), "SSD-1B"),
        (spoil(lambda w: setattr(w.model, "cond_stage_key", "edit")), "edit"),
        (spoil(lambda w: setattr(w.model, "is_sdxl_inpaint", True)), "inpainting"),
        (spoil(lambda w: setattr(w.model.model, "conditioning_key", "hybrid")), "depth"),
        (spoil(lambda w: setattr(w.devices, "fp8", True)), "FP8"),
        (spoil(lambda w: setattr(w.model.cond_stage_model, "wrapped", nn.Linear(1, 1))), "text encoders"),
        (spoil(lambda w: w.choose_model(None)), "No checkpoint"),
        (spoil(lambda w: w.model.to("meta")), "unloaded"),
    ],
)
def test_refusals(webui: WebUI, host: Any, change: Callable[[WebUI], Any], word: str) -> None:
    change(webui)
    with pytest.raises(UnsupportedModelError, match=word) as error, host.working("task(x)", CancelToken()):
        raise AssertionError("not refused")
    assert str(error.value).count(". ") == 0 and str(error.value).endswith(".")
    assert not webui.call_queue.queue_lock._lock.locked()


@pytest.mark.parametrize(("package", "name"), [("modules_forge", "an unknown"), ("ldm_patched", "an unknown")])
def test_forks_are_refused_before_an_adapter_is_imported(
    webui: WebUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str
) -> None:
    from lora_trainer.hosts.webui.which import webui_host

    (tmp_path / "forge" / package).mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "forge")
    monkeypatch.delitem(sys.modules, "modules.sd_hijack")  # Neo has none: importing the adapter would fail
    with pytest.raises(UnsupportedModelError, match=name):
        webui_host()
    assert "lora_trainer.hosts.a1111.host" not in sys.modules


def test_the_webui_itself_is_found_out(webui: WebUI) -> None:
    from lora_trainer.hosts.webui.which import webui_host

    assert webui_host().name == "a1111"


@pytest.mark.parametrize("where", ["describe", "restore_base"])
def test_a_failure_while_taking_leaves_nothing_held(
    webui: WebUI, host: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_trainer.hosts.a1111 import checkpoint, merged

    def fail(*anything: Any) -> None:
        raise ZeroDivisionError

    before = state_of(webui)
    monkeypatch.setattr({"describe": checkpoint, "restore_base": merged}[where], where, fail)
    with pytest.raises(ZeroDivisionError), host.working("task(x)", CancelToken()), host.take("no"):
        pass
    monkeypatch.undo()
    assert_equal(state_of(webui), before)
    assert not webui.call_queue.queue_lock._lock.locked() and not vars(webui.shared.state).get("request_restart")
    assert webui.sd_models.reload_model_weights.__name__ == "reload_model_weights"


def test_weights_in_fp16_need_a_precision(webui: WebUI, host: Any) -> None:
    webui.model.half()
    with host.working("task(x)", CancelToken()):
        with pytest.raises(ConfigError, match="--no-half"), host.take("no"):
            pass
        assert host.defaults()["mixed_precision"] == "fp16"
    assert webui.shared.parallel_processing_allowed


def test_medvram_trains_the_unet_only(webui: WebUI, host: Any) -> None:
    webui.model.lowvram = True
    brought: list[nn.Module] = []
    for module in (webui.model.model, webui.model.first_stage_model, webui.model.cond_stage_model):
        module.register_forward_pre_hook(lambda module, _: brought.append(module))
    with host.working("task(x)", CancelToken()), host.take("no") as taken:
        assert brought[-1] is webui.model.model
        taken.encode_images(torch.zeros(1, 3, 64, 64))
        assert brought[-1] is webui.model.first_stage_model, "the hook that moves the VAE ran"
        with torch.no_grad():
            taken.encode_captions(["x"], 75, 1)
        assert brought[-1] is webui.model.cond_stage_model
        assert taken.apart, "which the run refuses where text encoders are to be trained"


def test_under_medvram_weights_are_held_only_while_the_unet_is_there(webui: WebUI, host: Any) -> None:
    webui.model.lowvram = True
    before = state_of(webui)
    brought: list[nn.Module] = []

    def swap(module: nn.Module, _: object) -> None:
        brought.append(module)

    parts = (webui.model.model, webui.model.first_stage_model, webui.model.cond_stage_model)
    hooks = [module.register_forward_pre_hook(swap) for module in parts]
    with host.working("task(x)", CancelToken()), host.take("no") as taken:
        model = HeldModel(taken)
        taken.keep(["vae"])
        assert brought[-1] is parts[1]
        assert model.has_its_own(), "the WebUI moves the model's own weights, and only those"
        taken.encode_images(torch.zeros(1, 3, 64, 64))
        assert torch.equal(model.predicted(), model.coarse) and brought[-1] is parts[0]
        taken.encode_captions(["x"], 75, 1)
        taken.keep(["unet"])
        assert torch.equal(model.predicted(), model.coarse)
    for hook in hooks:
        hook.remove()
    after = state_of(webui)
    for state in (before, after):  # transformers marks a text encoder that was used
        state["own"] = [
            [name for name in names if name != "_output_capturing_hooks_installed"] for names in state["own"]
        ]
    assert_equal(after, before)


def test_pictures_that_cannot_be_made_are_refused_beforehand(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = SimpleNamespace(available_networks={"file": 1}, available_network_aliases={"file": 1, "alias": 1})
    monkeypatch.setitem(sys.modules, "networks", known)
    host.check(GenerateRequest("a <lora:file:0.5> <lora:alias:1:0.5> <hypernet:other:1>", sampler="k_euler_a"))
    with pytest.raises(ConfigError, match="no sampler 'nonsense'"):
        host.check(GenerateRequest("a", sampler="nonsense"))
    with pytest.raises(FileError, match="'other'"):
        host.check(GenerateRequest("a <lora:file:0.5> <lora:other:1>"))
