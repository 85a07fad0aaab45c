"""The WebUI's own captioners: asked for the description alone, parked afterwards, and never downloaded by us."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from lora_trainer.errors import FileError, HostBusyError
from lora_trainer.training.events import CancelToken
from tests.support.fake_webui import WebUI

RED = Image.new("RGB", (8, 8), (255, 0, 0))


class Interrogator:
    """A1111's, in small: its CLIP must not be asked for."""

    def __init__(self) -> None:
        self.blip_model: Any = None
        self.running_on_cpu, self.dtype, self.parked = False, None, 0

    def load_blip_model(self) -> nn.Module:
        return nn.Linear(2, 2)

    def generate_caption(self, image: Image.Image) -> str:
        return f"a {image.getpixel((0, 0))} square in {self.dtype}"

    def send_blip_to_ram(self) -> None:
        self.parked += 1


class Booru:
    """Its DeepBooru."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.model = nn.Linear(1, 1)
        self.model.tags = ["rating:safe", "1girl", "long_hair", "unlikely"]
        self.model.forward = lambda x: torch.tensor([[0.9, float(x[..., 0].mean()) - 0.1, 0.95, 0.01]])

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def own(webui: WebUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(blip=Interrogator(), booru=Booru(), folder=tmp_path / "models")
    parts = {
        "paths": SimpleNamespace(models_path=str(found.folder)), "deepbooru": SimpleNamespace(model=found.booru),
        "interrogate": SimpleNamespace(), "lowvram": SimpleNamespace(send_everything_to_cpu=lambda: None),
        "images": SimpleNamespace(resize_image=lambda mode, image, width, height: image.resize((width, height))),
    }  # fmt: skip
    for name, content in parts.items():
        module = ModuleType(f"modules.{name}")
        module.__dict__.update(vars(content), __spec__=ModuleSpec(f"modules.{name}", None))
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
        monkeypatch.setattr(sys.modules["modules"], name, module, raising=False)
    webui.shared.interrogator, webui.shared.cmd_opts.no_half = found.blip, False
    webui.devices.device_interrogate, webui.devices.cpu = torch.device("cpu"), torch.device("cpu")
    for file in ("BLIP/model.pth", "torch_deepdanbooru/model.pt"):
        (found.folder / file).parent.mkdir(parents=True)
        (found.folder / file).write_bytes(b"")
    return found


def test_blip_describes_and_is_parked(host: Any, own: SimpleNamespace) -> None:
    with host.working("task(x)", CancelToken()):
        with host.captioner("blip") as captioner:
            assert captioner.describe(RED).sentence == "a (255, 0, 0) square in torch.float16"
        assert own.blip.parked == 1 and own.blip.blip_model is not None
        with pytest.raises(ZeroDivisionError), host.captioner("blip"):
            1 / 0  # noqa: B018
    assert own.blip.parked == 2


def test_deepbooru_gives_probabilities(host: Any, own: SimpleNamespace) -> None:
    with host.working("task(x)", CancelToken()), host.captioner("deepbooru") as captioner:
        tags = captioner.describe(RED).tags
    assert tags == (("long hair", pytest.approx(0.95)), ("1girl", pytest.approx(0.9)))
    assert own.booru.calls == ["start", "stop"]


def test_what_is_missing_is_told_and_not_downloaded(
    host: Any, own: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.captioners() == {"blip": "", "deepbooru": ""}
    (own.folder / "BLIP" / "model.pth").unlink()
    monkeypatch.delitem(sys.modules, "modules.deepbooru")
    problems = host.captioners()
    assert (
        "put model_base_caption_capfilt_large.pth into" in problems["blip"] and "neither BLIP" in problems["deepbooru"]
    )
    with (
        host.working("task(x)", CancelToken()),
        pytest.raises(FileError, match="isn't there yet"),
        host.captioner("blip"),
    ):
        raise AssertionError("opened")
    with pytest.raises(HostBusyError):
        host.captioner("blip")
