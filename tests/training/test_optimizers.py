"""Optimisers: against independent implementations, resumed bit for bit, and refused in one sentence."""

from __future__ import annotations

import io
import logging
import sys
import types
from typing import Any

import pytest
import torch

from lora_trainer.config import OptimizerConfig
from lora_trainer.config.checks import finds_one_rate
from lora_trainer.errors import ConfigError
from lora_trainer.seeds import torch_generator
from lora_trainer.training.lion import Lion
from lora_trainer.training.optimizers import averaged_weights, create_optimizer, learning_rates
from lora_trainer.training.prodigy import Prodigy
from tests.support.optimizers import make, parameters


def gradients(params: list[torch.nn.Parameter], step: int) -> None:
    """Those of a noisy bowl around 1: they depend on the weights, so a wrong weight shows in all later steps."""
    for index, p in enumerate(params):
        noise = torch.randn(p.shape, generator=torch_generator("gradient", step, index))
        p.grad = (p.detach() - 1) * 0.05 + noise * 0.02


def run(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], start: int, stop: int) -> None:
    for step in range(start, stop):
        gradients(params, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize(
    ("arguments", "own", "rate"), [({}, True, 0.0), ({"relative_step": False, "scale_parameter": False}, False, 0.5)]
)
def test_adafactor_finds_its_own_rates_unless_told_otherwise(arguments: dict[str, Any], own: bool, rate: float) -> None:
    config = OptimizerConfig(optimizer_type="Adafactor", optimizer_args=arguments, learning_rate=0.5)
    group = create_optimizer([{"params": parameters()}], config).param_groups[0]
    assert (group["relative_step"], group["lr"]) == (own, rate)


@pytest.mark.parametrize(("rates", "warns"), [((1.0,), False), ((1.0, 1.0, 0.0), False), ((1.0, 0.5), True)])
def test_several_rates_for_one_that_is_found_are_told(
    rates: tuple[float, ...], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    groups = [{"params": [p], "lr": rate} for p, rate in zip(parameters() * 2, rates, strict=False)]
    made = create_optimizer(groups, OptimizerConfig(optimizer_type="Prodigy", learning_rate=1.0))
    assert ("only the first is used" in caplog.text) is warns
    assert [group["lr"] for group in made.param_groups] == [rate and 1.0 for rate in rates]


def test_lion_without_memory_of_the_last_gradient_is_the_sign_of_this_one() -> None:
    params = parameters()
    before = [p.detach().clone() for p in params]
    gradients(params, 0)
    signs = [p.grad.sign() for p in params if p.grad is not None]
    Lion(params, lr=0.25, betas=(0.0, 0.0)).step()
    for p, old, sign in zip(params, before, signs, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.25 * sign)


def distance(params: list[torch.nn.Parameter]) -> float:
    return sum(((p - 1) ** 2).sum().item() for p in params)


EIGHT_BIT = ["AdamW8bit", "PagedAdamW8bit", "Lion8bit", "SGDNesterov8bit", "bitsandbytes.optim.AdEMAMix8bit"]
PLAIN = ["AdamW", "Lion", "Prodigy", "SGDNesterov", "Adafactor", "RAdam", "torch.optim.NAdam"]
RATES = {"Prodigy": 1.0}


@pytest.mark.parametrize("name", PLAIN + EIGHT_BIT)
def test_every_optimiser_learns_and_resumes_bit_for_bit(name: str) -> None:
    if name in EIGHT_BIT:
        pytest.importorskip("bitsandbytes")
    arguments = {"d0": 1e-3} if name == "Prodigy" else {}  # so that it moves within these few steps
    whole = parameters()
    before = distance(whole)
    run(make(whole, name, RATES.get(name, 1e-2), **arguments), whole, 0, 12)
    assert distance(whole) < before

    halves = parameters()
    first = make(halves, name, RATES.get(name, 1e-2), **arguments)
    run(first, halves, 0, 6)
    file = io.BytesIO()
    torch.save({"optimizer": first.state_dict(), "weights": [p.detach() for p in halves]}, file)
    file.seek(0)
    state = torch.load(file, map_location="cpu", weights_only=True)
    resumed = [torch.nn.Parameter(weight) for weight in state["weights"]]
    second = make(resumed, name, RATES.get(name, 1e-2), **arguments)
    second.load_state_dict(state["optimizer"])
    run(second, resumed, 6, 12)
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a, b)


def test_adamw_is_torchs_with_a_rate_for_each_group() -> None:
    ours, peers = parameters(), parameters()
    groups = [{"params": ours[:1], "lr": 3e-3}, {"params": ours[1:]}]
    config = OptimizerConfig(optimizer_type="adamw", learning_rate=1e-2, optimizer_args={"weight_decay": 0.1})
    run(create_optimizer(groups, config), ours, 0, 10)
    one = torch.optim.AdamW(peers[:1], lr=3e-3, weight_decay=0.1, foreach=False)
    two = torch.optim.AdamW(peers[1:], lr=1e-2, weight_decay=0.1, foreach=False)
    for step in range(10):
        gradients(peers, step)
        one.step()
        two.step()
    for a, b in zip(ours, peers, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert groups[0].keys() == {"params", "lr"}  # the caller's groups are left as they were


def test_lion_is_that_of_bitsandbytes() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    ours, peers = parameters(), parameters()
    run(Lion(ours, lr=1e-3, betas=(0.8, 0.95), weight_decay=0.1), ours, 0, 15)
    run(bitsandbytes.optim.Lion(peers, lr=1e-3, betas=(0.8, 0.95), weight_decay=0.1), peers, 0, 15)
    for a, b in zip(ours, peers, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


def test_lion_by_hand() -> None:
    p = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = Lion([p], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    p.grad = torch.tensor([2.0, -3.0])
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([0.95 - 0.1, 0.95 + 0.1]))
    p.grad = torch.tensor([-0.1, 1.0])  # 0.9·0.02 − 0.1·0.1 > 0: momentum outvotes the gradient
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([0.85 * 0.95 - 0.1, 1.05 * 0.95 - 0.1]))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"weight_decay": 0.1, "use_bias_correction": True, "safeguard_warmup": True, "d_coef": 2.0},
        {"weight_decay": 0.1, "decouple": False, "betas": (0.9, 0.99), "beta3": 0.9},
        {"growth_rate": 1.5, "d0": 1e-4, "slice_p": 5, "betas": (0.5, 0.999)},
    ],
)
def test_prodigy_is_that_of_its_authors_package(arguments: dict[str, Any]) -> None:
    package = pytest.importorskip("prodigyopt")
    ours, peers = (
        [*parameters(), torch.nn.Parameter(torch.zeros(4, 8))],
        [*parameters(), torch.nn.Parameter(torch.zeros(4, 8))],
    )
    optimizer, peer = Prodigy(ours, **arguments), package.Prodigy(peers, **arguments)
    for step in range(60):
        for group in (*optimizer.param_groups, *peer.param_groups):
            group["lr"] = min(1.0, step / 5) * (1 if step < 40 else 0.3)  # a warm-up that begins at 0, and a decay
        for one, params in ((optimizer, ours), (peer, peers)):
            gradients(params, step)
            one.step()
        assert optimizer.param_groups[0]["d"] == pytest.approx(peer.param_groups[0]["d"], rel=1e-4), step
    assert optimizer.param_groups[0]["d"] > 10 * optimizer.param_groups[0]["d0"]
    for a, b in zip(ours, peers, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_adamw8bit_stores_bytes_and_follows_adamw() -> None:
    pytest.importorskip("bitsandbytes")
    ours, peers = parameters(), parameters()
    eight = make(ours, "AdamW8bit", 1e-3)
    run(eight, ours, 0, 20)
    run(make(peers, "AdamW", 1e-3), peers, 0, 20)
    assert eight.state[ours[0]]["state1"].dtype == torch.uint8
    moved, apart = (peers[0] - parameters()[0]).norm(), (ours[0] - peers[0]).norm()
    assert 0 < apart < 0.05 * moved


def test_adafactor_finds_its_own_rate_like_transformers() -> None:
    adafactor = pytest.importorskip("transformers.optimization").Adafactor
    ours, other_rate, peers = parameters(), parameters(), parameters()
    run(optimizer := make(ours, "AdaFactor", 1e-2), ours, 0, 8)
    run(make(other_rate, "Adafactor", 5.0), other_rate, 0, 8)
    run(adafactor(peers), peers, 0, 8)  # relative_step is its default
    for a, b, c in zip(ours, other_rate, peers, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert learning_rates(optimizer)["unet"] == pytest.approx(0.01 * ours[0].square().mean().sqrt().item(), rel=0.1)


def test_adafactor_with_fixed_steps_uses_the_rate() -> None:
    adafactor = pytest.importorskip("transformers.optimization").Adafactor
    ours, peers = parameters(), parameters()
    fixed = {"relative_step": False, "scale_parameter": False}
    optimizer = make(ours, "Adafactor", 3e-3, **fixed)
    run(optimizer, ours, 0, 8)
    run(adafactor(peers, lr=3e-3, **fixed), peers, 0, 8)
    assert all(torch.equal(a, b) for a, b in zip(ours, peers, strict=True))
    assert learning_rates(optimizer) == {"unet": 3e-3, "text_encoder": 3e-3}


def test_sgd_nesterov_has_momentum_unless_told_otherwise() -> None:
    assert make(parameters(), "sgdnesterov").defaults["momentum"] == 0.9
    assert make(parameters(), "SGDNesterov", momentum=0.5).defaults["momentum"] == 0.5
    assert make(parameters(), "SGDNesterov").defaults["nesterov"] is True


def test_the_found_rate_is_reported_with_prodigy() -> None:
    params = parameters()
    optimizer = make(params, "prodigy", 1.0)
    run(optimizer, params, 0, 3)
    assert learning_rates(optimizer)["unet"] == optimizer.param_groups[0]["d"] != 1.0


def test_prodigy_takes_the_first_of_several_rates_and_warns_of_small_ones(caplog: pytest.LogCaptureFixture) -> None:
    params = parameters()
    groups = [{"params": params[:1], "lr": 1.0}, {"params": params[1:], "lr": 16.0}]
    with caplog.at_level(logging.WARNING):
        optimizer = create_optimizer(groups, OptimizerConfig(optimizer_type="Prodigy"))
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0]
    assert "of 1.0, 16.0 only the first is used" in caplog.text
    with caplog.at_level(logging.WARNING):
        make(parameters(), "Prodigy", 1e-4)
    assert "1 is usual" in caplog.text


@pytest.mark.parametrize(
    ("name", "one"),
    [("Prodigy", True), ("prodigyopt.Prodigy", True), ("DAdaptAdan", True), ("dadaptation.DAdaptLion", True),
     ("prodigyplus.ProdigyPlusScheduleFree", False), ("AdamW", False)],
)  # fmt: skip
def test_which_optimisers_find_one_rate_for_everything(name: str, one: bool) -> None:
    assert finds_one_rate(name) is one


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("AdamV", {}, r"'AdamV'.*AdamW, Lion, Prodigy, AdamW8bit.*class path"),
        ("AdamW", {"wieght_decay": 0.1}, r"no argument 'wieght_decay'; it has .*weight_decay"),
        ("AdamW", {"lr": 0.1}, r"set learning_rate"),
        ("AdamW", {"betas": (2.0, 0.9)}, r"'betas': \(2\.0, 0\.9\).*don't suit AdamW"),
        ("Lion", {"betas": (0.9, 1.5)}, r"don't suit Lion"),
        ("Prodigy", {"d0": 0}, r"don't suit Prodigy"),
        ("AdamW", {"weight_decay": 10**400}, r"don't suit AdamW"),
        ("AdamW", {"betas": "xx"}, r"don't suit AdamW"),
        ("SGDNesterov", {"momentum": [1]}, r"don't suit SGDNesterov"),
        ("torch.optim.lr_scheduler.StepLR", {}, r"StepLR is something else; .*torch\.optim\.optimizer\.Optimizer"),
        ("torch.optim.Nothing", {}, r"torch\.optim\.Nothing can't be loaded"),
        ("lion_pytorch.Best", {}, r"can't be imported.*install lion_pytorch"),
        ("Optimizer", {}, r"can't be 'Optimizer'"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(name: str, arguments: dict[str, Any], message: str) -> None:
    config = OptimizerConfig(optimizer_type=name, optimizer_args=arguments)
    with pytest.raises(ConfigError, match=message) as error:
        create_optimizer([{"params": parameters()}], config)
    assert "\n" not in str(error.value)


class TwoModes(torch.optim.SGD):
    """Stands for a Schedule-Free optimiser: other weights in evaluation mode."""

    mode = "unset"

    def train(self) -> None:
        self.mode = "train"

    def eval(self) -> None:
        self.mode = "eval"


def test_schedule_free_optimisers_start_in_training_mode_and_return_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("schedulefree")
    module.AdamWScheduleFree = TwoModes  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "schedulefree", module)
    optimizer = make(parameters(), "adamwschedulefree")
    assert optimizer.mode == "train"  # type: ignore[attr-defined]
    with pytest.raises(KeyError), averaged_weights(optimizer):
        assert optimizer.mode == "eval"  # type: ignore[attr-defined]
        raise KeyError
    assert optimizer.mode == "train"  # type: ignore[attr-defined]
    with averaged_weights(make(parameters(), "AdamW")):
        pass


def test_adamw_is_fused_where_this_torch_can_and_obeys_optimizer_args() -> None:
    try:
        torch.optim.AdamW(parameters(), fused=True)
        fused = True
    except RuntimeError:  # before torch 2.4 on the CPU
        fused = False
    assert bool(make(parameters(), "AdamW").defaults["fused"]) is fused
    assert not make(parameters(), "AdamW", foreach=True).defaults["fused"]
