"""Running the contestants and comparing them."""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import Any

import torch

from lora_trainer.bench.memory import peak_memory, synchronise
from lora_trainer.bench.model import opened
from lora_trainer.bench.plan import WARM_UP, BenchPlan
from lora_trainer.bench.steps import Step, forward_step, our_step, peer_step, targets
from lora_trainer.hosts.standalone.host import best_device
from lora_trainer.training.precision import check_precision


def run_bench(plan: BenchPlan, tell: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measure everything; ``tell`` gets a line before each part.

    Returns:
        JSON values: ``forward``, ``ours`` and ``peer`` with ``seconds`` (median) and, for the steps,
        ``step_over_2_forward`` and ``peak_memory_mb`` (above the weights); ``ratio``, the median of the paired ratios
        of times ours ÷ peer; and what was measured on.
    """
    check_precision(best_device(), plan.precision)
    contestants = ["ours", *(["peer"] if plan.peer else [])]
    tell("Measuring time")
    times, info = measure_times(plan)
    memory = {}
    for name in contestants:
        tell(f"Measuring memory of {'lora_trainer' if name == 'ours' else 'diffusers + peft'}")
        memory[name] = in_fresh_process(plan, name)
    forward = statistics.median(times["forward"])
    result: dict[str, Any] = {
        "plan": {**asdict(plan), "checkpoint": str(plan.checkpoint or f"random {plan.size}")},
        **info,
        "forward": {"seconds": forward, "all": times["forward"]},
    }
    for name in contestants:
        pairs = [step / (2 * bare) for step, bare in zip(times[name], times["forward"], strict=True)]
        result[name] = {
            "seconds": statistics.median(times[name]),
            "step_over_2_forward": statistics.median(pairs),
            "peak_memory_mb": round(memory[name] / 2**20, 1),
            "all": times[name],
        }
    if plan.peer:
        pairs = [ours / peer for ours, peer in zip(times["ours"], times["peer"], strict=True)]
        result["ratio"] = statistics.median(pairs)
        result["memory_ratio"] = memory["ours"] / max(1, memory["peer"])
    return result


def measure_times(plan: BenchPlan) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each contestant's steps, taking turns; and what they were measured on."""
    with opened(plan) as model:
        steps: dict[str, Step] = {"forward": forward_step(model, plan)}
        if plan.peer:
            steps["peer"] = peer_step(model, plan)
        steps["ours"] = our_step(model, plan)  # last: its network names the modules that the peer trains, too
        times: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(WARM_UP + plan.steps):
            order = list(steps) if number % 2 else list(reversed(steps))
            for name in order:
                synchronise(model.device)
                started = time.perf_counter()
                steps[name](number)
                synchronise(model.device)
                if number >= WARM_UP:
                    times[name].append(time.perf_counter() - started)
        info = {
            "device": str(model.device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "unet_parameters": sum(weight.numel() for weight in model.unet.parameters()),
            "modules": len(targets(model, plan)),
        }
    return times, info


def in_fresh_process(plan: BenchPlan, name: str) -> int:
    """Peak bytes above the weights of a contestant's steps, measured in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_memory, plan, name).result()


def measure_memory(plan: BenchPlan, name: str) -> int:
    """Peak bytes above the weights over a few steps, LoRA and optimiser included; call it in a fresh process."""
    if name == "peer":
        import peft  # noqa: F401  (its code is no memory of the step)
    with opened(plan) as model:
        forward_step(model, plan)(0)  # kernels and thread pools are no memory of the step either
        gc.collect()
        with peak_memory(model.device) as peak:
            step = (our_step if name == "ours" else peer_step)(model, plan)
            for number in range(WARM_UP + 2):
                step(number)
        return peak[0]
