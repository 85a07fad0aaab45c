"""A run that is given little memory: what it does about it, and what it says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_trainer import memory
from lora_trainer.config import OptimizerConfig, RunConfig
from lora_trainer.errors import ConfigError
from lora_trainer.training.events import Event, Finished, Notice, Planned
from lora_trainer.training.memory_plan.counting import StepCost
from lora_trainer.training.memory_plan.figures import state_bytes
from lora_trainer.training.memory_plan.remedies import Need, remedy
from lora_trainer.training.optimizers import create_optimizer
from tests.support.runs import of, run, tensors
from tests.support.tiny_host import TinyHost

LORA = "loras/zork.safetensors"
OPTIONS: dict[str, Any] = {"train_batch_size": 2, "max_train_steps": 6}


def planned(root: Path, **options: Any) -> tuple[list[Planned], list[Event]]:
    _, events = run(root, **{**OPTIONS, **options})
    return of(events, Planned), events


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plain")
    assert not planned(root)[0], "on a processor nothing is planned unattended"
    return root


def test_less_memory_more_recomputation_the_same_result(tmp_path: Path, plain: Path) -> None:
    (first, after), _ = planned(tmp_path / "much", memory_limit_gb=1)
    assert "recomputed" not in first.text and first.limit_gb == 1
    assert [phase.name for phase in first.phases] == ["images", "captions", "training"]
    assert after.phases[:2] == first.phases[:2] and after.phases[2].measured_minutes is not None
    assert after.text.startswith(first.text) and "s a step" in after.text
    limit = round(first.phases[2].gb - 0.001, 6)
    (little, _), events = planned(tmp_path / "little", memory_limit_gb=limit)
    assert (found := re.search(r"(\d+) of 12 blocks are recomputed", little.text)) and 0 < int(found[1]) < 12
    assert little.phases[2].gb <= limit and of(events, Finished)[0].step == 6
    for root in (tmp_path / "much", tmp_path / "little"):
        found_weights, wanted = tensors(root / LORA), tensors(plain / LORA)
        assert all(torch.equal(found_weights[key], wanted[key]) for key in wanted), root


def test_where_recomputing_all_does_not_fit_weights_are_held_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device with memory of its own: 8 bits first, then blocks in CPU memory, as far as that is allowed."""
    monkeypatch.setattr("lora_trainer.training.memory_plan.planning.has_own_memory", lambda device: True)
    monkeypatch.setattr("lora_trainer.training.memory_plan.storage.AHEAD", 100_000)  # the model is small, too
    options = {"network_dim": 1, "train_batch_size": 1, "max_train_steps": 3}

    def text(name: str, limit: float, **more: Any) -> str:
        (plan,), events = planned(tmp_path / name, memory_limit_gb=limit, **options, **more)
        assert plan.phases[2].gb <= limit and of(events, Finished)[0].step == 3
        return plan.text

    text("plain", 1)
    assert text("8", 0.0027).endswith("may take. The blocks' weights are held in 8 bits."), "and nothing is recomputed"
    assert re.search(r"\d+ of 12 blocks have their weights in CPU mem", said := text("cpu", 0.0027, base_8bit="never"))
    assert "8 bits" not in said
    assert "in 8 bits. " in (said := text("both", 0.0021)) and "in CPU memory" in said
    with pytest.raises(ConfigError, match=r"one image at a time, weights in 8 bits in CPU memory, but"):
        text("neither", 0.001)
    off = {"base_8bit": "never", "blocks_in_cpu_memory": 0}
    for limit, change in ((0.0027, ""), (0.0021, " and set blocks_in_cpu_memory to -1")):
        with pytest.raises(ConfigError, match=rf": set base_8bit to auto{change}\.$"):
            text("off", limit, gradient_checkpointing=True, **off)
    with pytest.raises(ConfigError, match=r"one image at a time, but"):
        text("forbidden", 0.003, base_8bit="never", blocks_in_cpu_memory=0)
    usual, exact, near = (tensors(tmp_path / name / LORA) for name in ("plain", "cpu", "8"))
    assert all(torch.equal(exact[key], usual[key]) for key in usual), "bit for bit"
    change = torch.cat([near[key].flatten() - usual[key].flatten() for key in usual]).norm()
    assert 0 < change < 0.1 * torch.cat([usual[key].flatten() for key in usual if "alpha" not in key]).norm()


def test_what_is_asked_for_is_recomputed_however_much_room_there_is(tmp_path: Path) -> None:
    (first, _), _ = planned(tmp_path, memory_limit_gb=1, gradient_checkpointing=True)
    assert "All 12 blocks are recomputed" in first.text


def test_where_nothing_fits_the_smallest_change_is_named(tmp_path: Path) -> None:
    options = {"memory_limit_gb": 0.006, "network_dim": 64, "optimizer_type": "Lion"}
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, **options)
    assert not (tmp_path / LORA).exists()
    found = re.fullmatch(r"Training needs at least \d+ MB.*: set network_dim to (\d+)\.", str(error.value))
    assert found, error.value
    assert planned(tmp_path / "then", **{**options, "network_dim": int(found[1])})[0], "and it is enough"


def test_a_limit_that_nothing_meets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the person's own, so that nothing is gained by freeing memory."""
    with pytest.raises(ConfigError, match=r"set memory_limit_gb to [\d.]+, or choose a smaller model") as error:
        planned(tmp_path, memory_limit_gb=0.001)
    found = re.search(r"memory_limit_gb to ([\d.]+),", str(error.value))
    assert found and planned(tmp_path / "then", memory_limit_gb=float(found[1]))[0], "and it is enough"
    monkeypatch.setattr("lora_trainer.training.memory_plan.planning.free_bytes", lambda device: 2**28)
    with pytest.raises(ConfigError, match=r"free \d+ MB more, or choose a smaller model"):
        planned(tmp_path / "full", memory_limit_gb=1)


def test_a_limit_above_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory_limit_gb is 100000, but there are"):
        planned(tmp_path, memory_limit_gb=100_000)


def test_a_limit_above_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_trainer.training.memory_plan.planning.free_bytes", lambda device: 2**30)
    (first, _), _ = planned(tmp_path, memory_limit_gb=1.5)
    assert first.limit_gb < 1 and "Of the 1.5 GB that it may take" in first.text


def test_a_plan_that_fails_costs_nothing_but_the_plan(tmp_path: Path, plain: Path) -> None:
    class Host(TinyHost):
        def __init__(self, lora_dir: Path) -> None:
            super().__init__(lora_dir)
            encode, self.first = self.model.encode_images, True

            def once(pixels: torch.Tensor, tile: int = 0) -> Any:
                if self.first:
                    self.first = False
                    raise RuntimeError("what nobody thought of")
                return encode(pixels, tile)

            self.model.encode_images = once  # type: ignore[method-assign]

    _, events = run(tmp_path, host=Host(tmp_path / "loras"), memory_limit_gb=1, **OPTIONS)
    assert any("what nobody thought of" in notice.text for notice in of(events, Notice)) and not of(events, Planned)
    one, other = tensors(tmp_path / LORA), tensors(plain / LORA)
    assert all(torch.equal(one[key], other[key]) for key in other)


@pytest.mark.parametrize("name", ["AdamW", "Lion", "Prodigy", "SGDNesterov", "Adafactor"])
def test_an_optimisers_state_is_as_large_as_is_said(name: str) -> None:
    config = OptimizerConfig(optimizer_type=name, learning_rate=1.0 if name == "Prodigy" else 1e-3)
    weight = torch.nn.Parameter(torch.ones(64, 512))
    optimizer = create_optimizer([{"params": [weight]}], config)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor)]
    size = sum(value.nbytes for value in kept) / weight.numel()
    assert size <= state_bytes(config) + 0.1 and state_bytes(config) - size <= 1


def test_a_card_is_given_the_limit_and_has_it_taken_off_again(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[float] = []
    properties = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * 2**30)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: set_to.append(share))
    card = torch.device("cuda")
    with pytest.raises(RuntimeError, match="broken"), memory.no_more_than(card, 2**31):
        assert set_to == [0.5]
        raise RuntimeError("broken")
    assert set_to == [0.5, 1.0]
    with memory.no_more_than(card, None), memory.no_more_than(torch.device("cpu"), 1):
        assert set_to == [0.5, 1.0]


def test_the_limit_is_an_option_like_any_other() -> None:
    with pytest.raises(ConfigError, match="memory_limit_gb"):
        RunConfig().replace(memory_limit_gb=-1)


def test_what_an_8_bit_optimiser_saves_is_not_counted_twice() -> None:
    config = RunConfig().replace(network_dim=64, network_train_unet_only=True)
    cost = StepCost(1, (), (), (), 0, 0)
    whole = 64 * 1000
    on_card = Need(config, cost, True, 16 * whole, whole, 0, (512, 512))
    enough = 10 * whole // 2  # half the rank, with 8-bit states: 8 bytes of weights and gradients, and 2 of states
    assert remedy(on_card, enough).endswith("choose the optimiser AdamW8bit and set network_dim to 32.")
    assert remedy(on_card, enough - 1).endswith("choose the optimiser AdamW8bit and set network_dim to 16.")
    assert "8bit" not in remedy(replace(on_card, cuda=False), 8 * whole), "which a processor hasn't"
