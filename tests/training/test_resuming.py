"""Stopping and resuming a run: the same bytes as without the break."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.config.checks import finds_one_rate
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.training.events import Finished, Started, StepDone
from lora_trainer.training.folder import RunFolder, previous
from lora_trainer.training.optimizers import NAMES
from lora_trainer.training.state import apply_rates
from tests.support.runs import of, run, tensors


@pytest.mark.parametrize(
    ("optimizer", "stop_at"),
    [
        ("AdamW", 3),
        ("AdamW", 10),
        ("Lion", 13),
        ("Prodigy", 3),
        ("Adafactor", 13),
    ],  # in an epoch, at its end, in the next
)
def test_resumed_equals_uninterrupted(tmp_path: Path, optimizer: str, stop_at: int) -> None:
    options = {
        "optimizer_type": optimizer, "shuffle_caption": True, "network_dropout": 0.1, "lr_scheduler": "cosine",
        "noise_offset": 0.1, "save_every_n_epochs": 1, "optimizer_args": {},
    }  # fmt: skip
    if optimizer == "Prodigy":
        options["learning_rate"] = 1.0
    if optimizer == "Adafactor":
        options |= {"optimizer_args": {"relative_step": False, "scale_parameter": False}}
    run(tmp_path / "whole", **options)
    _, events = run(tmp_path / "cut", stop_at=stop_at, **options)
    finished = of(events, Finished)[0]
    assert finished.stopped and finished.step <= stop_at + 2
    _, events = run(tmp_path / "cut", resume=True, **options)
    assert of(events, Started)[0].step == finished.step and not of(events, Finished)[0].stopped
    for name in ("zork.safetensors", "zork-000001.safetensors"):
        whole, cut = ((tmp_path / place / "loras" / name).read_bytes() for place in ("whole", "cut"))
        assert whole == cut, name
    log = [json.loads(line)["step"] for line in (tmp_path / "cut/out/zork/log.jsonl").read_text().splitlines()]
    assert log == list(range(1, 21))
    before = of(events, Started)[0].before
    assert [step for step, _ in before.losses] == list(range(1, finished.step + 1))
    saved = ["zork-000001.safetensors"] if finished.step >= 10 else []
    assert [path.name for path in before.saved if path.name != "zork.safetensors"] == saved


@pytest.mark.parametrize(
    "network",
    [{"algo": "loha"}, {"algo": "lokr", "decompose_both": True}, {"dora_wd": True}, {"algo": "lora_fa"},
     {"algo": "ia3", "learning_rate": 0.01}, {"train_norm": True, "conv_dim": 2, "use_tucker": True}],
    ids=["loha", "lokr", "dora", "lora_fa", "ia3", "norm and tucker"],
)  # fmt: skip
def test_every_network_type_goes_on_with_the_very_same_bits(tmp_path: Path, network: dict[str, Any]) -> None:
    options = {"max_train_steps": 6, "rank_dropout": 0.2, "module_dropout": 0.1, "scale_weight_norms": 1.0, **network}
    run(tmp_path / "whole", **options)
    run(tmp_path / "cut", stop_at=3, **options)
    run(tmp_path / "cut", resume=True, **options)
    whole, cut = ((tmp_path / place / "loras/zork.safetensors").read_bytes() for place in ("whole", "cut"))
    assert whole == cut
    assert any(bool(tensor.any()) for tensor in tensors(tmp_path / "cut/loras/zork.safetensors").values())


TORCHS = ("Adadelta", "Adagrad", "Adam", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.5, "centered": True}, "Adam": {"amsgrad": True},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [*NAMES, *TORCHS])
def test_every_optimiser_goes_on_with_the_very_same_bits(tmp_path: Path, optimizer: str) -> None:
    options = {
        "optimizer_type": optimizer, "max_train_steps": 9, "network_dim": 8, "loraplus_lr_ratio": 4.0,
        "optimizer_args": ARGUMENTS.get(optimizer, {}),
    }  # fmt: skip
    if finds_one_rate(optimizer):
        options |= {"learning_rate": 1.0, "loraplus_lr_ratio": None}
    if optimizer == "RMSprop":  # its first step is ten times the rate: at 1e-2 it diverges, see docs/watch.md
        options |= {"learning_rate": 1e-3}
    try:
        run(tmp_path / "whole", **options)
    except ConfigError as error:
        pytest.skip(str(error))  # its package isn't installed, or doesn't work without a GPU
    run(tmp_path / "cut", stop_at=2, **options)
    run(tmp_path / "cut", stop_at=6, resume=True, **options)
    run(tmp_path / "cut", resume=True, **options)
    whole, cut = ((tmp_path / place / "loras/zork.safetensors").read_bytes() for place in ("whole", "cut"))
    assert whole == cut
    moved = [tensor for key, tensor in tensors(tmp_path / "cut/loras/zork.safetensors").items() if "lora_up" in key]
    assert any(bool(tensor.any()) for tensor in moved)


def test_resume_refuses_what_would_change_the_result(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nothing to resume"):
        run(tmp_path, resume=True)
    run(tmp_path, stop_at=3)
    with pytest.raises(ConfigError, match=r"network_alpha was 4.0, now 2.0"):
        run(tmp_path, resume=True, network_alpha=2)
    (tmp_path / "data/2_zork/0.txt").write_text("another caption")
    with pytest.raises(ConfigError, match=r"1 caption changed \(2_zork/0.png\)"):
        run(tmp_path, resume=True)
    state = RunFolder(tmp_path / "out", "zork").state
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(FileError, match="damaged"):
        run(tmp_path, resume=True)


def test_the_remedy_for_nan_can_be_applied_on_resuming(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    _, events = run(tmp_path, resume=True, learning_rate=1e-3)
    rates = [step.lr["unet"] for step in of(events, StepDone)]
    _, whole = run(tmp_path / "whole")
    usual = [step.lr["unet"] for step in of(whole, StepDone)][5:]
    assert rates == pytest.approx([rate / 10 for rate in usual])


def test_a_state_is_read_as_numbers_and_never_as_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "run by the state",)

    run(tmp_path, stop_at=5)
    state = RunFolder(tmp_path / "out", "zork").state
    torch.save({"position": Evil()}, state)
    previous(state).unlink(missing_ok=True)
    with pytest.raises(FileError, match="damaged"):
        run(tmp_path, resume=True)
    assert not (tmp_path / "run by the state").exists()


def test_a_new_rate_is_the_one_that_schedulers_begin_from() -> None:
    """Some of torch's own look at ``initial_lr`` of the group, not at ``base_lrs``."""
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weight], "lr": 0.1} for weight in weights])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    apply_rates(optimizer, scheduler, [0.1, 0.1], [0.4, 0.1])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.05])
    assert [group["initial_lr"] for group in optimizer.param_groups] == scheduler.base_lrs == [0.4, 0.1]


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "loras/zork.safetensors").read_bytes()
    run(tmp_path, resume=True)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == before


def test_a_run_is_not_resumed_to_fewer_steps_than_it_has_done(tmp_path: Path) -> None:
    """It would be called finished, with all of so few steps, and its LoRA be written anew."""
    run(tmp_path, max_train_steps=4)
    before = {path: path.read_bytes() for path in (tmp_path / "out/zork").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"4 steps are done already, and with max_train_steps 2 the run has 2"):
        run(tmp_path, resume=True, max_train_steps=2)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_torn_log_line_does_not_block_resuming(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    log = tmp_path / "out/zork/log.jsonl"
    log.write_text(log.read_text() + '{"step": 6, "lr": {"unet": 0.1}')
    run(tmp_path, resume=True)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 21))
