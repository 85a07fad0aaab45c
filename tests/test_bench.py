"""The bench: that it measures what it says, not how fast this machine is."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_checkpoints import write_checkpoint

from lora_trainer.bench import measure, steps, suite
from lora_trainer.bench.memory import peak_memory
from lora_trainer.bench.model import opened, random_unet
from lora_trainer.bench.plan import BenchPlan
from lora_trainer.cli import main
from lora_trainer.cli.benchmark import suite_table, table
from lora_trainer.config import RunConfig
from lora_trainer.training.memory_plan.figures import expected

TINY = BenchPlan(size="tiny", resolution=64, rank=2, steps=1)


def test_random_unet_of_the_default_size_is_sd15s() -> None:
    from diffusers import UNet2DConditionModel

    from lora_trainer.bench.model import CONTEXT_WIDTH, SIZES

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=CONTEXT_WIDTH, **SIZES["sd15"])
    assert sum(weight.numel() for weight in unet.parameters()) == 859_520_964


def test_random_weights_keep_activations_finite() -> None:
    unet = random_unet("tiny")
    out = unet(torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 768)).sample
    assert torch.isfinite(out).all() and 0.01 < out.std() < 100


def test_contestants_train_the_same_modules_and_no_base_weight() -> None:
    peft = pytest.importorskip("peft")
    with opened(TINY) as model:
        before = {name: weight.clone() for name, weight in model.unet.named_parameters()}
        trained: dict[str, list[torch.Tensor]] = {}
        optimizer = torch.optim.AdamW.step

        def noting(self: torch.optim.Optimizer, *args: Any, **more: Any) -> Any:
            trained[now] = [p for group in self.param_groups for p in group["params"]]
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained[now])
            return optimizer(self, *args, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", noting)
            for name, make in (("ours", steps.our_step), ("peer", steps.peer_step)):
                now = name
                make(model, TINY)(0)
        ours, peer = (sorted(tuple(p.flatten(1).shape) for p in trained[who]) for who in ("ours", "peer"))
        assert ours == peer and len(ours) == 2 * 192  # as many as in SD 1.5
        assert all(torch.equal(before[name], weight) for name, weight in model.unet.named_parameters())
        assert peft is not None


@pytest.mark.slow
def test_checkpoint_of_sdxl_is_measured_too(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    plan = replace(TINY, checkpoint=write_checkpoint("sdxl", tmp_path))
    with opened(plan) as model:
        for make in (steps.forward_step, steps.our_step, steps.peer_step):
            make(model, plan)(0)
        assert len(steps.targets(model, plan)) == 722


def test_shared_copy_costs_no_second_set_of_weights() -> None:
    from lora_trainer.bench.model import shared_copy

    unet = random_unet("tiny")
    copied = shared_copy(unet)
    assert all(a is b for a, b in zip(unet.parameters(), copied.parameters(), strict=True))
    assert copied.conv_in is not unet.conv_in


def test_peak_memory_sees_an_allocation_that_is_gone_again() -> None:
    with peak_memory(torch.device("cpu")) as peak:
        block = torch.ones(64 << 20, dtype=torch.uint8)
        block.add_(1)
        time.sleep(0.3)  # it is looked at every two milliseconds, on a busy machine less often
        del block
    assert 60 << 20 < peak[0] < 100 << 20


def result(**more: Any) -> dict[str, Any]:
    row = {"seconds": 2.0, "step_over_2_forward": 1.01, "peak_memory_mb": 800.4, "all": [2.0]}
    plan = {"checkpoint": "random sd15", "resolution": 256, "batch": 1, "rank": 16, "precision": "no", "steps": 3,
            "checkpointing": False}  # fmt: skip
    return {"plan": plan, "unet_parameters": 859_520_964, "modules": 192, "device": "cpu", "threads": 2, "torch": "2",
            "forward": {"seconds": 0.99, "all": [0.99]}, "ours": row, **more}  # fmt: skip


def test_table_shows_ratio_and_peer() -> None:
    peer = {"seconds": 2.1, "step_over_2_forward": 1.06, "peak_memory_mb": 900.0}
    text = "\n".join(table(result(peer=peer, ratio=0.95, memory_ratio=0.9)))
    for words in ("860 M", "step ÷ (2 × forward)", "1.010", "1.060", "800", "time 0.950", "memory 0.900"):
        assert words in text
    assert "diffusers" not in "\n".join(table(result()))


def test_ratios_are_medians_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"forward": [1.0, 1.0, 2.0], "ours": [2.0, 4.0, 4.0], "peer": [2.0, 1.0, 8.0]}
    monkeypatch.setattr(measure, "measure_times", lambda plan: (times, {}))
    monkeypatch.setattr(measure, "in_fresh_process", lambda plan, name: {"ours": 90, "peer": 100}[name] << 20)
    found = measure.run_bench(TINY)
    assert found["ours"]["step_over_2_forward"] == 1.0 and found["ratio"] == 1.0  # of 1, 2, 1 and of 1, 4, 0.5
    assert found["ours"]["peak_memory_mb"] == 90 and found["memory_ratio"] == 0.9


@pytest.mark.slow
def test_bench_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("peft")
    assert main(["bench", "--size", "tiny", "--resolution", "64", "--steps", "1", "--rank", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["modules"] == 192 and found["ratio"] > 0
    for name in ("ours", "peer"):
        assert found[name]["seconds"] > 0 and found[name]["peak_memory_mb"] > 0


@pytest.mark.parametrize(
    ("family", "size", "side"),
    [("sd1", "sd15", 512), ("sd2", "sd21", 768), pytest.param("sdxl", "sdxl", 1024, marks=pytest.mark.slow)],
)
def test_the_figures_that_the_page_shows_are_those_that_are_counted(family: Any, size: str, side: int) -> None:
    nothing, some, everything, in_8_bits, in_cpu, both = suite.counted(size, side)
    assert everything.step < some.step < nothing.step and 1 == nothing.work < some.work < everything.work < 1.5
    for checkpointing, one in ((False, nothing), (True, everything)):
        config = RunConfig().replace(
            resolution=side, network_dim=suite.RANK, network_train_unet_only=True, mixed_precision="fp16",
            gradient_checkpointing=checkpointing,
        )  # fmt: skip
        found = expected(family, config)
        assert found.training == pytest.approx(one.total, rel=0.03)
        assert found.least == pytest.approx(in_8_bits.total, rel=0.03)
    never = RunConfig().replace(
        resolution=side, network_dim=suite.RANK, network_train_unet_only=True, mixed_precision="fp16", base_8bit="never"
    )
    assert expected(family, never).least == pytest.approx(everything.total, rel=0.03)
    assert everything.total > in_8_bits.total > in_cpu.total > both.total - 0.1
    most = {"sd1": (3, 2, 1.5), "sd2": (5, 2, 1.5), "sdxl": (8, 5, 6)}[family]
    found_totals = (everything.total, in_8_bits.total, in_cpu.total)
    assert all(total <= limit for total, limit in zip(found_totals, most, strict=True))


def test_the_suite_counts_where_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "MODELS", (("tiny", 64),))
    monkeypatch.setattr(suite, "best_device", lambda: torch.device("cpu"))
    found = suite.run_suite(lambda text: None)
    lines = suite_table(json.loads(json.dumps(found)))
    assert sum(line.startswith("| tiny") for line in lines) == 6 and "nothing was measured" in lines[-1]


def test_the_unet_that_is_counted_is_the_one_that_is_measured() -> None:
    from lora_trainer.bench.counted import count_unet

    found = count_unet("tiny", 64, rank=2)
    with opened(TINY) as model:
        real = sum(weight.numel() for weight in model.unet.parameters())
        assert found.weights == 2 * real and len(found.cost.blocks) == len(model.blocks())
