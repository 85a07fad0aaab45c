"""Class paths in settings: a preset must not run code of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lora_trainer.cli import main
from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError
from lora_trainer.training.classes import PACKAGES, check_paths, load_class

OPTIMISER = """
from pathlib import Path
Path(__file__).with_name("it-ran").touch()
from torch.optim import SGD
class Best(SGD):
    pass
"""


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, on Python's path, with a module and a package that would leave a trace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(OPTIMISER)
    (tmp_path / "lion_pytorch").mkdir()
    (tmp_path / "lion_pytorch" / "__init__.py").write_text(OPTIMISER)
    (tmp_path / "came_pytorch.py").write_text(OPTIMISER)
    (tmp_path / "dadaptation").mkdir()
    (tmp_path / "dadaptation" / "space.py").write_text(OPTIMISER)
    yield tmp_path
    for name in ("evil", "lion_pytorch", "came_pytorch", "dadaptation", "dadaptation.space"):
        sys.modules.pop(name, None)


def ran(folder: Path) -> bool:
    return any(folder.rglob("it-ran"))


@pytest.mark.parametrize("option", ["optimizer_type", "lr_scheduler_type"])
@pytest.mark.parametrize(
    "path",
    [
        "evil.Best", "unittest.__main__.X", "os.system", "torch.hub.load", "torch.utils.bottleneck.__main__.main",
        "torch.optim.__main__.X", "transformers.__main__.X", "bitsandbytes.__main__.X", "torch.nn.Module",
        "transformers.trainer.Trainer", "torch.optimizer_of_mine.Best", ".evil.Best", "..Best", "a.b.",
    ],
)  # fmt: skip
def test_other_packages_are_not_touched(option: str, path: str, evil: Path) -> None:
    before = set(sys.modules)
    kind: Any = Optimizer if option == "optimizer_type" else LRScheduler
    with pytest.raises(ConfigError):
        load_class(option, path, kind)
    with pytest.raises(ConfigError, match=option):
        check_paths(RunConfig.from_dict({option: path}))
    assert not ran(evil) and not {"evil", "torch.hub", "unittest.__main__"} & (set(sys.modules) - before)


@pytest.mark.parametrize("path", ["lion_pytorch.Best", "came_pytorch.Best", "dadaptation.space.Best"])
def test_a_known_name_in_the_current_folder_is_not_taken(path: str, evil: Path) -> None:
    check_paths(RunConfig.from_dict({"optimizer_type": path}))
    with pytest.raises(ConfigError, match="lies in the current folder"):
        load_class("optimizer_type", path, Optimizer)
    assert not ran(evil)


@pytest.mark.parametrize(
    "content", ["raise SystemExit(0)", "1 / 0", "raise RecursionError", "import nothing_of_the_kind"]
)
def test_a_module_that_fails_is_one_sentence(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "came_pytorch.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "came_pytorch", raising=False)
    with pytest.raises(ConfigError, match=r"came_pytorch\.CAME can't be (loaded|imported)"):
        load_class("optimizer_type", "came_pytorch.CAME", Optimizer)


def test_what_was_typed_on_the_command_line_is_used_and_said(evil: Path) -> None:
    config = RunConfig.from_dict({"optimizer_type": "evil.Best"})
    assert "because you gave it" in check_paths(config, {"evil.Best"})[0]
    assert load_class("optimizer_type", "evil.Best", Optimizer, {"evil.Best"}).__name__ == "Best"
    assert ran(evil)
    with pytest.raises(ConfigError, match="is something else"):
        load_class("lr_scheduler_type", "evil.Best", LRScheduler, {"evil.Best"})
    assert not check_paths(RunConfig.from_dict({"optimizer_type": "prodigyopt.Prodigy"}))
    assert all(not check_paths(RunConfig.from_dict({"optimizer_type": f"{name}.Best"})) for name in PACKAGES)


def test_only_typing_counts_on_the_command_line(evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lora_trainer import demo
    from lora_trainer.demo.dataset import write_dataset

    write_dataset(evil / "data", count=4)
    (evil / "preset.json").write_text('{"version": 1, "optimizer_type": "evil.Best", "resolution": 64}')
    train = [
        "train", "--checkpoint", str(demo.CHECKPOINT), "--dataset", str(evil / "data"), "--name", "x", "--config",
        "preset.json",
    ]  # fmt: skip
    assert main(train) == 2
    told = capsys.readouterr().err
    assert "--set optimizer_type=evil.Best" in told and not ran(evil)
    settings = ["max_train_epochs=0", "max_train_steps=1", "learning_rate=1e-4"]
    assert main([*train, "--set", "optimizer_type=evil.Best", *settings]) == 0
    assert "because you gave it on the command line" in capsys.readouterr().out and ran(evil)
