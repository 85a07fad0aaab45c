"""A real WebUI for the tests of this folder; they are skipped, with a reason, where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.webui.checkpoints import make_checkpoint, make_true_size
from tests.webui.server import WebUI, kind_of

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("WEBUI_DIR"):
        return
    reason = pytest.mark.skip(
        reason="needs a WebUI: set WEBUI_DIR to an installation of AUTOMATIC1111 1.10.1 or of one of the forks"
    )
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(reason)


@pytest.fixture(scope="session")
def webui_dir() -> Path:
    """The installation."""
    root = Path(os.environ["WEBUI_DIR"])
    assert (root / "launch.py").is_file(), f"WEBUI_DIR {root} holds no launch.py"
    return root


@pytest.fixture(scope="session")
def demo_checkpoint(webui_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded SD 1.x checkpoint, made ready for a WebUI; where that isn't loaded, one of SD 1.5's true size.

    The variable ``WEBUI_CHECKPOINT`` names another one.
    """
    from lora_trainer.demo.install import install

    given = os.environ.get("WEBUI_CHECKPOINT")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("demo")
    return install(folder) if kind_of(webui_dir).tiny else make_true_size(folder)


@pytest.fixture(scope="session")
def architectures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text encoders' architectures that the WebUI has to know for the tiny checkpoints."""
    return tmp_path_factory.mktemp("arch")


@pytest.fixture(scope="session")
def more_checkpoints(
    webui_dir: Path, demo_checkpoint: Path, architectures: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Other families to train: those in the variable WEBUI_CHECKPOINTS (with their .yaml beside them), or tiny ones.

    Where tiny ones aren't loaded, the same weights under another name.
    """
    given = [Path(name) for name in os.environ.get("WEBUI_CHECKPOINTS", "").split(os.pathsep) if name]
    folder = tmp_path_factory.mktemp("checkpoints")
    if not given and not kind_of(webui_dir).tiny:
        (folder / "other.safetensors").symlink_to(demo_checkpoint)
        return [folder / "other.safetensors"]
    return given or [make_checkpoint(kind, folder, webui_dir, architectures) for kind in ("sdxl", "sd2v")]


@pytest.fixture(scope="session")
def webui(
    webui_dir: Path,
    demo_checkpoint: Path,
    more_checkpoints: list[Path],
    architectures: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WebUI]:
    """One WebUI for all tests that don't need a start of their own."""
    found = WebUI(webui_dir, tmp_path_factory.mktemp("webui"))
    found.install([demo_checkpoint, *more_checkpoints], architectures)
    with found:
        yield found


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small pictures in kohya's layout; their captions are full of prompt syntax."""
    folder = tmp_path_factory.mktemp("dataset") / "2_zorb"
    folder.mkdir()
    for number in range(4):
        image = Image.new("RGB", (64, 64), (60 * number, 90, 200 - 50 * number))
        ImageDraw.Draw(image).ellipse((10, 10, 40 + 5 * number, 50), fill=(255, 50 * number, 0))
        image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"zorb (ball:1.{number}), [a|b] BREAK")
    return folder.parent
