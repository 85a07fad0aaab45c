"""The adapter among others in the queue: turns for those who wait, Interrupt, Reload UI, and the pinned checkpoint."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.fake_webui import Model, WebUI
from tests.support.tiny_host import make_dataset

pytest.importorskip("ldm", reason="needs the package stable-diffusion-sdkit, which make test installs")

from lora_trainer.errors import HostBusyError
from lora_trainer.hosts.base import GenerateRequest, Progress
from lora_trainer.training.events import CancelToken
from lora_trainer.ui.job import Job


def weights(webui: WebUI) -> str:
    digest = hashlib.sha256()
    for tensor in webui.model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def our_hooks(webui: WebUI) -> int:
    """Hooks of ours on the model; transformers has some of its own."""
    hooks = [hook for module in webui.model.modules() for hook in module._forward_hooks.values()]
    return sum("lora_trainer" in getattr(hook, "__module__", "") for hook in hooks)


class Visitor(threading.Thread):
    """Waits in the queue for a turn and looks around."""

    def __init__(self, webui: WebUI, act: Callable[[], Any] = lambda: None) -> None:
        super().__init__(daemon=True)
        self.webui, self.act = webui, act
        self.saw: dict[str, Any] = {}
        self.result: Any = None
        before = len(webui.call_queue.queue_lock._pending_threads)
        self.start()
        while len(webui.call_queue.queue_lock._pending_threads) == before and self.is_alive():
            time.sleep(0.001)

    def run(self) -> None:
        with self.webui.call_queue.queue_lock:
            shared = self.webui.shared
            shared.state.begin("visitor")
            self.saw = {
                "parallel": shared.parallel_processing_allowed,
                "gradients": any(p.requires_grad for p in self.webui.model.parameters()),
                "weights": weights(self.webui),
                "hooks": our_hooks(self.webui),
                "task": self.webui.progress.current_task,
            }
            try:
                self.result = self.act()
            except Exception as error:
                self.result = error
            shared.state.job_no = 17
            shared.state.interrupted = True
            shared.state.end()


def test_those_who_wait_get_the_model_back(webui: WebUI, host: Any) -> None:
    base, token = weights(webui), CancelToken()
    with host.working("task(a)", token), host.take("no"):
        host.between_steps(Progress(3, 10, "Step 3"))
        state = webui.shared.state
        began = state.time_start
        visitors = [Visitor(webui) for _ in range(5)]
        host.between_steps(Progress(4, 10, "Step 4"))
        for visitor in visitors:
            visitor.join(10)
            assert visitor.saw == {"parallel": True, "gradients": True, "weights": base, "hooks": 0, "task": None}
        assert not webui.shared.parallel_processing_allowed and not any(
            p.requires_grad for p in webui.model.parameters()
        )
        assert (state.job, state.job_no, state.job_count, state.textinfo) == ("task(a)", 4, 10, "Step 4")
        assert webui.progress.current_task == "task(a)" and abs(state.time_start - began) < 5
        assert not token.cancelled, "their Interrupt isn't ours"
    assert webui.progress.finished == ["task(a)"] and webui.progress.pending == []


def test_they_wait_where_the_setting_is_off(webui: WebUI, host: Any) -> None:
    webui.shared.opts.data["lora_trainer_serve_generation"] = False
    with host.working("task(a)", CancelToken()), host.take("no"):
        visitor = Visitor(webui)
        host.between_steps(Progress(4, 10))
        assert visitor.is_alive() and not visitor.saw
    visitor.join(10)
    assert visitor.saw["parallel"]


def test_a_paused_job_lends_until_it_goes_on(webui: WebUI, host: Any) -> None:
    with host.working("task(a)", CancelToken()), host.take("no"):
        with host.lent():
            for _ in range(2):
                visitor = Visitor(webui)
                visitor.join(10)
                assert visitor.saw["parallel"] and visitor.saw["gradients"]
            assert "task(a)" in webui.progress.pending
        assert not webui.shared.parallel_processing_allowed and webui.call_queue.queue_lock._lock.locked()


def test_interrupt_stops_the_job(webui: WebUI, host: Any) -> None:
    token = CancelToken()
    with host.working("task(a)", token), host.take("no") as taken:
        webui.shared.state.interrupt()
        host.between_steps(Progress(1, 10))
        assert token.cancelled and not webui.shared.state.interrupted
    token = CancelToken()
    with host.working("task(b)", token), host.take("no") as taken:
        webui.interrupt_next = True
        assert taken.generate(GenerateRequest("x", width=64, height=64, steps=1)).image is not None
        assert token.cancelled, "an interrupted sample picture is made again, and the job ends"


def test_reload_ui_is_no_interrupt(webui: WebUI, host: Any) -> None:
    token = CancelToken()
    with host.working("task(a)", token), host.take("no"):
        webui.shared.state.request_restart()
        host.between_steps(Progress(1, 10))
        assert not token.cancelled and webui.shared.state.server_command == "restart"
    webui.shared.state.request_restart()
    assert webui.shared.state.interrupted, "as before"


def test_a_checkpoint_chosen_meanwhile(webui: WebUI, host: Any) -> None:
    model = webui.model
    with host.working("task(a)", CancelToken()), host.take("no") as taken:
        webui.shared.opts.data["sd_model_checkpoint"] = "other"
        change = Visitor(webui, lambda: webui.sd_models.reload_model_weights())
        host.between_steps(Progress(1, 10))
        assert change.is_alive(), "the choice waits, and with it what it is chosen for"
        taken.generate(GenerateRequest("x", width=64, height=64, steps=1))
        assert webui.shared.sd_model is model and webui.loaded == []
        assert webui.shared.opts.data["sd_model_checkpoint"] == "other"
    change.join(10)
    assert webui.loaded == ["other"] and webui.shared.sd_model is not model


def test_a_choice_that_comes_while_the_model_is_lent(webui: WebUI, host: Any) -> None:
    model = webui.model

    def choose() -> Any:
        webui.shared.opts.data["sd_model_checkpoint"] = "other"
        return webui.sd_models.reload_model_weights()

    with host.working("task(a)", CancelToken()), host.take("no"):
        change = Visitor(webui, choose)
        host.between_steps(Progress(1, 10))
        change.join(10)
        assert change.result is model and webui.loaded == []
    assert webui.loaded == ["other"], "carried out at the end"


def test_a_request_for_another_checkpoint_is_refused(webui: WebUI, host: Any) -> None:
    def ask() -> Any:
        before, webui.shared.opts.data["sd_model_checkpoint"] = webui.shared.opts.data["sd_model_checkpoint"], "other"
        try:
            return webui.processing.process_images(SimpleNamespace(seed=1, steps=1, width=8, height=8, prompt=""))
        finally:
            webui.shared.opts.data["sd_model_checkpoint"] = before

    with host.working("task(a)", CancelToken()), host.take("no"):
        visitor = Visitor(webui, ask)
        host.between_steps(Progress(1, 10))
        visitor.join(10)
        assert isinstance(visitor.result, HostBusyError) and "other" in str(visitor.result)
    assert webui.loaded == []
    original = webui.sd_models.reload_model_weights
    assert original.__name__ == "reload_model_weights", "the WebUI's own function is back"


def test_the_chosen_checkpoint_is_loaded_before_training(webui: WebUI, host: Any) -> None:
    webui.shared.opts.data["sd_model_checkpoint"] = "other"
    with host.working("task(a)", CancelToken()):
        assert webui.loaded == ["other"] and host.info().checkpoint == "other.safetensors"


def test_a_replaced_model_is_noticed(webui: WebUI, host: Any) -> None:
    with host.working("task(a)", CancelToken()), host.take("no"):
        webui.choose_model(Model("another"))
        with pytest.raises(HostBusyError, match="replaced"):
            host.between_steps(Progress(1, 2))


def test_a_whole_run_in_the_fake_webui(webui: WebUI, host: Any, tmp_path: Path) -> None:
    base = weights(webui)
    config = {
        "resolution": 64, "network_dim": 2, "max_train_steps": 4, "seed": 7, "save_every_n_epochs": 0,
        "sample_every_n_steps": 2, "sample_prompts": "zork --w 64 --h 64 --s 1", "gradient_checkpointing": True,
    }  # fmt: skip
    job = Job(lambda: host, lambda: tmp_path / "out")
    rng = torch.get_rng_state()

    def run(name: str, visits: int) -> dict[str, Any]:
        job.start({"name": name, "dataset": str(data), "config": config})
        visitors = [Visitor(webui) for _ in range(visits)]
        job.wait(120)
        for visitor in visitors:
            visitor.join(10)
            assert visitor.saw["weights"] == base and visitor.saw["hooks"] == 0
        return job.status()

    data = make_dataset(tmp_path / "data")
    status = run("alone", 0)
    assert status["state"] == "done" and len(status["samples"]) == 3, status
    assert run("visited", 4)["state"] == "done"
    assert weights(webui) == base and torch.equal(torch.get_rng_state(), rng)
    alone, visited = (load_file(tmp_path / "Lora" / f"{name}.safetensors") for name in ("alone", "visited"))
    assert sorted(alone) == sorted(visited) and all(torch.equal(alone[key], visited[key]) for key in alone)
    assert any(key.startswith("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q") for key in alone)
    assert any(key.startswith("lora_te_text_model_encoder_layers_0_self_attn_q_proj") for key in alone)
    run_json = json.loads((tmp_path / "out" / "alone" / "run.json").read_text())
    assert run_json["base_model"]["name"] == "tiny.safetensors"
    assert all(p.grad is None for p in webui.model.parameters())
