"""``bench``"""

from __future__ import annotations

import argparse
import json
from typing import Any

from lora_trainer.bench.measure import run_bench
from lora_trainer.bench.plan import BenchPlan
from lora_trainer.bench.suite import run_suite
from lora_trainer.cli.terminal import say


def run_bench_command(args: argparse.Namespace) -> None:
    """Measure and show a table, or JSON."""
    tell = (lambda text: None) if args.json else (lambda text: say(f"{text} …"))
    if args.suite:
        found = run_suite(tell)
        say(json.dumps(found, indent=2) if args.json else "\n".join(suite_table(found)))
        return
    plan = BenchPlan(
        args.checkpoint, args.size, args.resolution, args.batch, args.rank, args.steps, args.precision,
        args.checkpointing, not args.no_peer,
    )  # fmt: skip
    result = run_bench(plan, tell)
    if args.json:
        say(json.dumps(result, indent=2))
        return
    for line in table(result):
        say(line)


def table(result: dict[str, Any]) -> list[str]:
    """The result for a person."""
    plan = result["plan"]
    recompute = ", gradient checkpointing" if plan["checkpointing"] else ""
    lines = [
        f"{plan['checkpoint']}, UNet of {result['unet_parameters'] / 1e6:.0f} M parameters, {plan['resolution']} px, "
        f"batch {plan['batch']}, rank {plan['rank']} on {result['modules']} modules, {plan['precision']}{recompute}",
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}; median of {plan['steps']} steps",
        "",
        f"{'':<24}{'seconds':>10}{'step ÷ (2 × forward)':>23}{'MB above weights':>19}",
        f"{'bare forward pass':<24}{result['forward']['seconds']:>10.3f}",
    ]
    for key, name in (("ours", "lora_trainer"), ("peer", "plain diffusers + peft")):
        if key in result:
            row = result[key]
            lines.append(
                f"{name:<24}{row['seconds']:>10.3f}{row['step_over_2_forward']:>23.3f}{row['peak_memory_mb']:>19.0f}"
            )
    if "ratio" in result:
        lines += [
            "",
            f"lora_trainer ÷ peer: time {result['ratio']:.3f} (median of pairs), memory {result['memory_ratio']:.3f}",
        ]
    return lines


def suite_table(found: dict[str, Any]) -> list[str]:
    """The suite for a person, as Markdown."""
    lines = [
        f"Batch 1, UNet only, torch {found['torch']}. GB are 2³⁰ bytes, counted for half precision and AdamW.", "",
        "| model | recomputed | blocks | blocks' weights | UNet | LoRA and AdamW | step | together | work |",
        "|---" * 9 + "|",
    ]  # fmt: skip
    lines += [
        f"| {model['size']}, {model['resolution']} px, rank {model['rank']} | {one['recomputed']} | {one['blocks']} "
        f"| {one['held']} | {one['weights']:.2f} | {one['lora']:.2f} | {one['step']:.2f} | {one['total']:.2f} "
        f"| {one['work']:.2f} |"
        for model in found["models"] for one in model["counted"]
    ]  # fmt: skip
    if found["card"] is None:
        return [*lines, "", "There is no CUDA GPU here, so nothing was measured."]
    lines += [
        "", f"Measured on {found['card']}, above the weights:", "",
        "| model | precision | recomputed | GB | peer's GB | seconds | peer's seconds |", "|---" * 7 + "|",
    ]  # fmt: skip
    for model in found["models"]:
        for one in model["measured"]:
            head = f"| {model['size']} | {one['precision']} | {one['recomputed']} "
            if "error" in one:
                lines.append(f"{head}| {one['error']} | | | |")
                continue
            peak, time = one["peak_gb"], one["seconds"]
            lines.append(f"{head}| {peak['ours']:.2f} | {peak['peer']:.2f} | {time['ours']:.4f} | {time['peer']:.4f} |")
    return lines
