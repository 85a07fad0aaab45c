"""Learning-rate schedules step by step against transformers and diffusers."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from lora_trainer.config import OptimizerConfig, ScheduleConfig
from lora_trainer.errors import ConfigError
from lora_trainer.training.optimizers import create_optimizer
from lora_trainer.training.schedule import create_scheduler, steps_of

TOTAL = 50


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": lr} for lr in rates or (0.02,)]
    return torch.optim.SGD(groups, lr=groups[0]["lr"])


def rates(scheduler: LRScheduler, steps: int = TOTAL + 4) -> list[list[float]]:
    """The rate of each group at each step, as the optimiser sees it, also past the end."""
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


def ours(*group_rates: float, **options: Any) -> list[list[float]]:
    return rates(create_scheduler(optimizer(*group_rates), ScheduleConfig(**options), TOTAL))


PEERS: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"lr_scheduler": "constant"}, "get_constant_schedule", {}),
    ({"lr_scheduler": "constant_with_warmup"}, "get_constant_schedule_with_warmup", {}),
    ({"lr_scheduler": "linear"}, "get_linear_schedule_with_warmup", {"num_training_steps": TOTAL}),
    ({"lr_scheduler": "cosine"}, "get_cosine_schedule_with_warmup", {"num_training_steps": TOTAL}),
    (
        {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 3},
        "get_cosine_with_hard_restarts_schedule_with_warmup",
        {"num_training_steps": TOTAL, "num_cycles": 3},
    ),
    (
        {"lr_scheduler": "polynomial", "lr_scheduler_power": 2.5},
        "get_polynomial_decay_schedule_with_warmup",
        {"num_training_steps": TOTAL, "power": 2.5},
    ),
    (
        {"lr_scheduler": "polynomial", "lr_scheduler_args": {"lr_end": 0.001}},
        "get_polynomial_decay_schedule_with_warmup",
        {"num_training_steps": TOTAL, "lr_end": 0.001},
    ),
    (
        {"lr_scheduler": "cosine", "lr_scheduler_args": {"num_cycles": 1.5}},
        "get_cosine_schedule_with_warmup",
        {"num_training_steps": TOTAL, "num_cycles": 1.5},
    ),
    ({"lr_scheduler": "inverse_sqrt"}, "get_inverse_sqrt_schedule", {}),
    ({"lr_scheduler": "inverse_sqrt", "lr_scheduler_timescale": 7}, "get_inverse_sqrt_schedule", {"timescale": 7}),
    (  # sd-scripts passes half of its num_cycles, so that 1 is one fall
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_min_lr_ratio": 0.1, "lr_scheduler_num_cycles": 3},
        "get_cosine_with_min_lr_schedule_with_warmup",
        {"num_training_steps": TOTAL, "min_lr_rate": 0.1, "num_cycles": 1.5},
    ),
    (
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_args": {"min_lr": 0.003}},
        "get_cosine_with_min_lr_schedule_with_warmup",
        {"num_training_steps": TOTAL, "min_lr": 0.003},
    ),
    (
        {"lr_scheduler": "warmup_stable_decay", "lr_decay_steps": 20, "lr_scheduler_min_lr_ratio": 0.05},
        "get_wsd_schedule",
        {"num_training_steps": TOTAL, "num_decay_steps": 20, "min_lr_ratio": 0.05},
    ),
]


@pytest.mark.parametrize("warmup", [0, 8])
@pytest.mark.parametrize(
    ("options", "name", "arguments"), PEERS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_rates_are_those_of_transformers(
    options: dict[str, Any], name: str, arguments: dict[str, Any], warmup: int
) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    if not hasattr(optimization, name):
        pytest.skip(f"this transformers has no {name}")
    if name != "get_constant_schedule":
        arguments = {**arguments, "num_warmup_steps": warmup}
    elif warmup:
        pytest.skip("constant has no warm-up")
    try:
        expected = rates(getattr(optimization, name)(optimizer(), **arguments))
    except ZeroDivisionError:
        pytest.skip("this transformers divides by the warm-up")  # 4.30's inverse_sqrt without time scale
    got = ours(**options, lr_warmup_steps=warmup)
    assert [rate for (rate,) in got] == pytest.approx([rate for (rate,) in expected], rel=1e-9, abs=1e-18)
    assert len({rate for (rate,) in got}) > 1 or options["lr_scheduler"].startswith("constant")


def test_piecewise_constant_is_that_of_diffusers() -> None:
    optimization = pytest.importorskip("diffusers.optimization")
    rules = "1:10,0.1:20,0.01:30,0.005"
    expected = rates(optimization.get_piecewise_constant_schedule(optimizer(), rules))
    assert ours(lr_scheduler="piecewise_constant", lr_scheduler_args={"step_rules": rules}) == expected
    assert expected[9] == [0.02] != expected[10]


def test_every_group_keeps_its_own_rate() -> None:
    for name in ("cosine", "linear", "constant_with_warmup", "inverse_sqrt"):
        for first, second in ours(1e-4, 16e-4, lr_scheduler=name, lr_warmup_steps=5):
            assert second == pytest.approx(16 * first, abs=1e-15)
    last = ours(1e-4, 1e-2, lr_scheduler="polynomial")[TOTAL]
    assert last == pytest.approx([1e-7, 1e-7])  # each ends at the same absolute rate


def test_warm_up_and_decay_are_steps_or_shares() -> None:
    assert [steps_of(value, 200) for value in (0, 0.1, 0.999, 1, 10, 150)] == [0, 20, 199, 1, 10, 150]
    assert ours(lr_scheduler="cosine", lr_warmup_steps=0.2) == ours(lr_scheduler="cosine", lr_warmup_steps=10)
    assert ours(lr_scheduler="warmup_stable_decay", lr_decay_steps=0.4) == ours(
        lr_scheduler="warmup_stable_decay", lr_decay_steps=20
    )


def test_scheduler_classes_by_name_and_path() -> None:
    expected = rates(torch.optim.lr_scheduler.ExponentialLR(optimizer(), gamma=0.9))
    arguments = {"gamma": 0.9}
    assert ours(lr_scheduler_type="ExponentialLR", lr_scheduler_args=arguments) == expected
    assert ours(lr_scheduler_type="torch.optim.lr_scheduler.ExponentialLR", lr_scheduler_args=arguments) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_scheduler": "constant", "lr_warmup_steps": 10}, "constant has no warm-up; set lr_warmup_steps to 0"),
        ({"lr_scheduler": "piecewise_constant", "lr_warmup_steps": 0.1}, "has no warm-up"),
        ({"lr_scheduler_type": "StepLR", "lr_warmup_steps": 10}, "StepLR has no warm-up"),
        ({"lr_scheduler": "piecewise_constant"}, "step_rules"),
        ({"lr_scheduler": "piecewise_constant", "lr_scheduler_args": {"step_rules": "1:x,2"}}, "1:x,2"),
        (
            {"lr_scheduler": "piecewise_constant", "lr_scheduler_args": {"step_rules": "1:5,0.1", "steps": 3}},
            "remove steps",
        ),
        (
            {"lr_scheduler": "cosine", "lr_scheduler_args": {"gamma": 1}},
            "cosine has no gamma; it takes only num_cycles",
        ),
        ({"lr_scheduler": "linear", "lr_scheduler_args": {"gamma": 1}}, "linear has no gamma; it takes none"),
        ({"lr_scheduler": "constant", "lr_scheduler_args": {"gamma": 1}}, "constant has no gamma; it takes none"),
        ({"lr_scheduler": "cosine", "lr_scheduler_args": {"num_cycles": "x"}}, "num_cycles can't be 'x'"),
        (
            {
                "lr_scheduler": "cosine_with_min_lr",
                "lr_scheduler_args": {"min_lr": 0.1},
                "lr_scheduler_min_lr_ratio": 0.1,
            },
            "has min_lr, and lr_scheduler_min_lr_ratio is set",
        ),
        ({"lr_scheduler": "warmup_stable_decay"}, "needs lr_decay_steps"),
        ({"lr_scheduler": "adafactor"}, "needs optimizer_type Adafactor"),
        ({"lr_scheduler_type": "NoSuchLR"}, "NoSuchLR can't be loaded"),
        ({"lr_scheduler_type": "torch.optim.no_such.LR"}, "no_such.LR can't be imported"),
        ({"lr_scheduler_type": "ReduceLROnPlateau"}, "ReduceLROnPlateau needs more than the step count"),
        ({"lr_scheduler_type": "math.cos"}, "isn't in a known package"),
        ({"lr_scheduler_type": "torch.optim.AdamW"}, "AdamW is something else"),
        ({"lr_scheduler_type": "StepLR"}, "don't suit StepLR"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ours(**options)


@pytest.mark.parametrize(
    "options", [{}, {"lr_scheduler_type": "CosineAnnealingLR", "lr_scheduler_args": {"T_max": 50}}]
)
def test_a_resumed_schedule_goes_on_exactly(options: dict[str, Any]) -> None:
    config = ScheduleConfig(**options)
    whole = rates(create_scheduler(optimizer(), config, TOTAL), 30)
    first = create_scheduler(optimizer(), config, TOTAL)
    rates(first, 12)
    resumed = create_scheduler(optimizer(), config, TOTAL)
    resumed.optimizer.load_state_dict(first.optimizer.state_dict())
    resumed.load_state_dict(first.state_dict())
    assert rates(resumed, 18) == whole[12:]


def test_adafactor_with_its_own_rates_replaces_the_schedule() -> None:
    pytest.importorskip("transformers.optimization")
    p = torch.nn.Parameter(torch.full((4, 4), 0.5))
    made = create_optimizer([{"params": [p]}], OptimizerConfig(optimizer_type="Adafactor"))
    scheduler = create_scheduler(made, ScheduleConfig(lr_scheduler="cosine"), 10)
    for _ in range(20):  # beyond the ten steps after which a cosine would be 0
        p.grad = torch.full_like(p, 0.1)
        root_mean_square = p.detach().square().mean().sqrt().item()
        made.step()
        scheduler.step()
        assert scheduler.get_last_lr() == [pytest.approx(0.01 * root_mean_square, rel=1e-5)]
    with pytest.raises(ConfigError, match=r"Adafactor with relative_step has no warm-up.*relative_step=False"):
        create_scheduler(made, ScheduleConfig(lr_warmup_steps=0.1), 10)


def test_schedule_free_optimisers_get_a_constant_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    class Modes(torch.optim.SGD):
        def train(self) -> None:
            pass

        def eval(self) -> None:
            pass

    module = types.ModuleType("schedulefree")
    module.SGDScheduleFree = Modes  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "schedulefree", module)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))]}]
    made = create_optimizer(groups, OptimizerConfig(optimizer_type="SGDScheduleFree", learning_rate=0.3))
    assert set(map(tuple, rates(create_scheduler(made, ScheduleConfig(), TOTAL)))) == {(0.3,)}
    with pytest.raises(ConfigError, match="warmup_steps to optimizer_args"):
        create_scheduler(made, ScheduleConfig(lr_warmup_steps=10), TOTAL)
