"""Faults at every place of a run: nothing is lost, and the model is as it was, bit by bit."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.errors import FileError, LoraTrainerError, TrainingDivergedError
from lora_trainer.training.events import Finished
from lora_trainer.training.state_file import is_intact
from tests.support.faults import OPTIONS, continued, fingerprint, undisturbed
from tests.support.runs import of, run
from tests.support.tiny_host import TinyHost


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return undisturbed(tmp_path_factory.mktemp("whole"), **OPTIONS)


class Spoiler:
    """Raises in the nth call of a function, or lets something happen there."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, act: Callable[[], None]
    ) -> None:
        original, self.calls = getattr(owner, name), 0

        def spoilt(*args: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls == at:
                act()
            return original(*args, **more)

        monkeypatch.setattr(owner, name, spoilt)


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


PLACES = {
    "taking the images": ("lora_trainer.training.feed.Feed", "inputs", 14),
    "the backward pass": ("lora_trainer.training.step.Update", "backward", 14),
    "clipping": ("lora_trainer.training.step.Update", "clip", 14),
    "the optimiser": ("torch.optim.AdamW", "step", 14),
    "the schedule": ("torch.optim.lr_scheduler.LambdaLR", "step", 15),
    "the log": ("lora_trainer.training.folder.RunFolder", "append_log", 14),
    "the base model's loss": ("lora_trainer.training.session.Session", "base_loss", 5),
    "the watch": ("lora_trainer.training.watch.health.Watch", "look", 14),
    "the snapshot of a state": ("lora_trainer.network.network.LoraNetwork", "state_dict", 3),
    "the sampler": ("lora_trainer.training.sampling.Sampler", "make", 2),
}
KINDS = [KeyboardInterrupt, SystemExit, MemoryError, RuntimeError, ZeroDivisionError, OSError, GeneratorExit]


def found(path: str) -> Any:
    import importlib

    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("place", PLACES)
def test_any_exception_anywhere_loses_nothing_and_leaves_the_model_as_it_was(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    owner, name, at = PLACES[place]
    kind = KINDS[sorted(PLACES).index(place) % len(KINDS)]
    host = TinyHost(tmp_path / "loras")
    before = fingerprint(host)
    with monkeypatch.context() as patch:
        Spoiler(patch, found(owner), name, at, raising(kind("enough")))
        try:
            run(tmp_path, host=host, **OPTIONS)
        except kind:
            pass
        except LoraTrainerError as error:
            assert isinstance(error.__cause__, MemoryError), "it says what would help"
        else:  # it was told, and the run went on
            assert issubclass(kind, Exception)
    assert fingerprint(host) == before
    states = list((tmp_path / "out/zork/state").glob("*.pt"))
    assert states and all(map(is_intact, states))
    continued(tmp_path, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_exception_in_the_optimiser(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """The worst place: weights, moments and position belong together."""
    with monkeypatch.context() as patch:
        Spoiler(patch, torch.optim.AdamW, "step", 14, raising(kind("enough")))
        with pytest.raises(kind):
            run(tmp_path, **OPTIONS)
    continued(tmp_path, whole)


def writes(monkeypatch: pytest.MonkeyPatch, full: Callable[[int, Path], bool]) -> list[Path]:
    """Every file that is written, in order; those for which ``full`` holds find no room."""
    written: list[Path] = []
    replace = Path.replace

    def counted(source: Path, target: Any) -> Path:
        if source.name.endswith(".tmp"):
            written.append(Path(target))
            if full(len(written), Path(target)):
                raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", counted)
    return written


@pytest.mark.parametrize("at", range(1, 20))
def test_a_disk_that_is_full_at_one_write(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    """It ends the run with a sentence, or is told at its end, or is made good by the next try at the same file."""
    with monkeypatch.context() as patch:
        written = writes(patch, lambda number, path: number == at)
        try:
            _, events = run(tmp_path, **OPTIONS)
        except FileError as error:
            assert "No space left on device" in str(error)
        else:
            told = " ".join([*of(events, Finished)[0].notices, caplog.text])
            assert "No space left" in told or len(written) < at or written[at - 1] == written[at]
    if at == 1:
        kinds = {path.name.split("-")[0].split("_")[0] for path in written} | {path.suffix for path in written}
        assert {"log.jsonl"} <= kinds
    continued(tmp_path, whole)


def test_the_writes_above_are_all_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = writes(monkeypatch, lambda number, path: False)
    run(tmp_path, **OPTIONS)
    assert {path.suffix for path in written} == {".json", ".jsonl", ".pt", ".png", ".safetensors"}
    assert 12 <= len(written) < 20


def test_a_disk_that_stays_full(tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        writes(patch, lambda number, path: number > 8)
        with pytest.raises(FileError, match="No space left on device"):
            run(tmp_path, **OPTIONS)
    continued(tmp_path, whole)


def nan_in(where: str, step: int, host: TinyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN or infinity in the given place, in one step."""
    predict, calls = host.model.predict, [0]

    def predicting(*args: Any) -> torch.Tensor:
        calls[0] += torch.is_grad_enabled()
        now = calls[0] == step
        if now and where == "gradient" and torch.is_grad_enabled():
            made = predict(*args)
            made.register_hook(lambda gradient: gradient * float("inf"))
            return made
        bad = now and (where == "loss" or (where == "LoRA's loss" and torch.is_grad_enabled()))
        return predict(*args) * (float("nan") if bad else 1.0)

    host.model.predict = predicting  # type: ignore[method-assign]
    if where == "weights":
        apply, done = torch.optim.AdamW.step, [0]

        def spoiling(self: torch.optim.Optimizer, *args: Any, **more: Any) -> Any:
            result = apply(self, *args, **more)
            done[0] += 1
            if done[0] == step:
                self.param_groups[0]["params"][3].data.view(-1)[0] = float("nan")
            return result

        monkeypatch.setattr(torch.optim.AdamW, "step", spoiling)


@pytest.mark.parametrize("where", ["loss", "LoRA's loss", "gradient", "weights"])
@pytest.mark.parametrize("seed", [1, 2])
def test_nan_at_random_steps(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, where: str, seed: int
) -> None:
    host = TinyHost(tmp_path / "loras")
    before = fingerprint(host)
    with monkeypatch.context() as patch:
        nan_in(where, random.Random(f"{where} {seed}").randint(2, 28), host, patch)
        with pytest.raises(TrainingDivergedError):
            run(tmp_path, host=host, **OPTIONS)
        del host.model.predict
    assert fingerprint(host) == before
    for path in (tmp_path / "loras").glob("zork.safetensors"):
        assert path.stat().st_size
    continued(tmp_path, whole)
