"""The parts of AUTOMATIC1111's ``modules`` that the adapter uses, in small, around the real ldm classes.

``install`` puts them into ``sys.modules``; the model is a tiny SD 1.x with ldm's own UNet and VAE encoder.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from tests.support.fake_sd import Model


class Lock:
    """A queue lock with the WebUI's inner names."""

    def __init__(self) -> None:
        self._lock, self._inner, self._pending_threads = threading.Lock(), threading.Lock(), deque()

    def acquire(self) -> bool:
        with self._inner:
            if self._lock.acquire(False):
                return True
            mine = threading.Event()
            self._pending_threads.append(mine)
        mine.wait()
        return self._lock.acquire()

    def release(self) -> None:
        with self._inner:
            if self._pending_threads:
                self._pending_threads.popleft().set()
            self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class State:
    """``shared.state``."""

    def __init__(self) -> None:
        self.interrupted = self.skipped = self.stopping_generation = False
        self.job, self.job_no, self.job_count, self.textinfo, self.time_start = "", 0, 0, None, None
        self.sampling_step = self.sampling_steps = 0
        self.current_latent = self.current_image = self.server_command = None

    def begin(self, job: str) -> None:
        self.__init__()  # type: ignore[misc]
        self.job, self.job_count, self.time_start = job, -1, time.time()

    def end(self) -> None:
        self.job, self.job_count = "", 0

    def interrupt(self) -> None:
        self.interrupted = True

    def request_restart(self) -> None:
        self.interrupt()
        self.server_command = "restart"

    def assign_current_image(self, image: Image.Image) -> None:
        self.current_image = image


class WebUI:
    """The fakes, and what tests ask of them."""

    def __init__(self, folder: Path) -> None:
        self.model = Model()
        self.made: list[Any] = []
        self.loaded: list[str] = []
        self.applied: list[str | None] = []
        self.interrupt_next = False
        (folder / "Lora").mkdir(parents=True, exist_ok=True)
        made, state = self.made, State()

        class Processing:
            cached_c, cached_uc, cached_hr_c, cached_hr_uc = (["old", "old"] for _ in range(4))

            def __init__(self, **values: Any) -> None:
                self.__dict__.update(values)

            def close(self) -> None:
                pass

        def process_images(p: Any) -> Any:
            self.modules["sd_models"].reload_model_weights()
            made.append(p)
            state.job_no, state.sampling_steps, state.current_latent = 99, p.steps, "latent"
            torch.manual_seed(int(p.seed))
            if self.interrupt_next:
                self.interrupt_next, state.interrupted = False, True
                return SimpleNamespace(images=[], infotexts=[], comments="")
            x = torch.randn(1, 4, 8, 8)
            with torch.no_grad():
                y = self.model.apply_model(x, torch.tensor([500]), {"c_crossattn": [torch.ones(1, 77, 16)]})
            shade = int(y.abs().mean() * 1e6) % 256
            image = Image.new("RGB", (p.width, p.height), (shade, 0, 0))
            return SimpleNamespace(images=[image], infotexts=[f"{p.prompt}\nSteps: {p.steps}"], comments="")

        def reload_model_weights(sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> Any:
            wanted = info or self.modules["sd_models"].select_checkpoint()
            if wanted.filename != self.model.sd_checkpoint_info.filename:
                self.loaded.append(wanted.name)
                self.choose_model(Model(wanted.name))
            return self.model

        opts = SimpleNamespace(data={"sd_model_checkpoint": "tiny", "sd_vae": "Automatic"}, comma_padding_backtrack=20)
        hijack = SimpleNamespace(circular_enabled=False, fixes=None)
        hijack.apply_circular = lambda on: self._set_circular(on)
        hijack.apply_optimizations = lambda option=None: self._attention(option)
        sd_hijack = types.ModuleType("modules.sd_hijack")
        sd_hijack.model_hijack = hijack
        sd_hijack.current_optimizer = SimpleNamespace(name="sdp", title=lambda: "sdp - scaled dot product")
        sd_hijack.optimizers = [sd_hijack.current_optimizer]
        unet = types.ModuleType("modules.sd_unet")
        unet.current_unet_option = None
        unet.apply_unet = lambda option=None: self._unet(option)
        self.modules: dict[str, Any] = {
            "shared": SimpleNamespace(
                sd_model=self.model, opts=opts, state=state, loaded_hypernetworks=[], parallel_processing_allowed=True,
                device=torch.device("cpu"), total_tqdm=SimpleNamespace(clear=lambda: None),
                cmd_opts=SimpleNamespace(
                    lowvram=False, lora_dir=str(folder / "Lora"), freeze_settings=False, no_prompt_history=False
                ),
            ),
            "devices": SimpleNamespace(
                device=torch.device("cpu"), fp8=False, autocast=contextlib.nullcontext, torch_gc=lambda: None
            ),
            "sd_models": SimpleNamespace(
                reload_model_weights=reload_model_weights,
                select_checkpoint=lambda: SimpleNamespace(
                    name=opts.data["sd_model_checkpoint"],
                    filename=f"/models/{opts.data['sd_model_checkpoint']}.safetensors",
                ),
                model_data=SimpleNamespace(sd_model=self.model),
                apply_token_merging=merge_tokens,
            ),
            "sd_vae": SimpleNamespace(loaded_vae_file=None, unspecified=object(), reload_vae_weights=lambda *a: None),
            "sd_hijack": sd_hijack,
            "sd_unet": unet,
            "sd_samplers": SimpleNamespace(
                all_samplers=[
                    SimpleNamespace(name=name, aliases=aliases)
                    for name, aliases in (
                        ("Euler a", ["k_euler_a"]), ("Euler", ["k_euler"]), ("DPM++ 2M", ["k_dpmpp_2m"]),
                    )
                ]
            ),
            "processing": SimpleNamespace(
                StableDiffusionProcessing=Processing, StableDiffusionProcessingTxt2Img=Processing,
                process_images=process_images,
            ),
            "scripts": SimpleNamespace(ScriptRunner=lambda: SimpleNamespace(scripts=[])),
            "call_queue": SimpleNamespace(queue_lock=Lock()),
            "progress": Tasks(),
            "hashes": SimpleNamespace(sha256=lambda file, title: "cd" * 32),
        }  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["modules"][name]
        except KeyError:
            raise AttributeError(name) from None

    def choose_model(self, model: Any) -> None:
        """Another model is loaded."""
        self.model = self.shared.sd_model = self.sd_models.model_data.sd_model = model

    def _set_circular(self, on: bool) -> None:
        self.sd_hijack.model_hijack.circular_enabled = on
        for module in self.model.modules():
            if type(module) is nn.Conv2d:
                module.padding_mode = "circular" if on else "zeros"

    def _attention(self, option: str | None) -> None:
        self.applied.append(option)
        for module in self.model.model.diffusion_model.modules():
            module.__dict__.pop("forward", None)
        name = (option or "sdp - scaled dot product").split(" - ")[0]
        self.sd_hijack.current_optimizer = SimpleNamespace(name=name, title=lambda: option)

    def _unet(self, option: str | None) -> None:
        self.applied.append(option)
        self.sd_unet.current_unet_option = None if option == "None" else SimpleNamespace(label=option)


def merge_tokens(model: Any, ratio: float) -> None:
    if getattr(model, "applied_token_merged_ratio", 0) != ratio:
        model.applied_token_merged_ratio = ratio


class Tasks:
    """``modules.progress``."""

    def __init__(self) -> None:
        self.current_task: str | None = None
        self.pending: list[str] = []
        self.finished: list[str] = []

    def add_task_to_queue(self, task: str) -> None:
        self.pending.append(task)

    def start_task(self, task: str) -> None:
        self.current_task = task
        if task in self.pending:
            self.pending.remove(task)

    def finish_task(self, task: str) -> None:
        self.current_task = None
        self.finished.append(task)


ADAPTERS = ("lora_trainer.hosts.a1111", "lora_trainer.hosts.forge", "lora_trainer.hosts.webui")


@contextlib.contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebUI]:
    """The fakes as the package ``modules``, and the adapter imported on top of them."""
    webui = WebUI(folder)
    with replaced_packages(webui, monkeypatch):
        yield webui


@contextlib.contextmanager
def replaced_packages(webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``modules`` from a fake; adapters are imported anew, before and after."""
    for name in [name for name in sys.modules if name.startswith(ADAPTERS)]:
        monkeypatch.delitem(sys.modules, name)
    package = types.ModuleType("modules")
    package.__path__ = []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules", package)
    for name, module in webui.modules.items():
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
        setattr(package, name, module)
    monkeypatch.delitem(sys.modules, "networks", raising=False)
    yield
    for name in [name for name in sys.modules if name.startswith(ADAPTERS)]:
        sys.modules.pop(name, None)
