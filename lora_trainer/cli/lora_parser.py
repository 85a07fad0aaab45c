"""The command ``lora``: tools for finished files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.cli.arguments import Parser, count, new_command

FORMATS = ("kohya", "diffusers", "peft")


def add_lora(commands: Any, common: Any) -> None:
    """``lora``"""
    tools = commands.add_parser(
        "lora", help="tools for LoRA files: merge, resize, extract, convert, bake, show",
        description="Tools for LoRA files. The files that are given stay as they are.",
    )  # fmt: skip
    actions = tools.add_subparsers(title="tools", metavar="TOOL", required=True)
    merged = new_command(actions, common, "merge", "lora.run_merge", "several LoRAs as one, each with its strength")
    merged.add_argument("loras", type=Path, nargs="+", metavar="LORA_FILE")
    merged.add_argument("--ratios", type=float, nargs="+", required=True, metavar="STRENGTH", help="one for each file")
    _rank(merged, "reduce the sum to this rank; without it nothing is lost and the ranks add up")
    resized = new_command(
        actions, common, "resize", "lora.run_resize", "fewer ranks, as close as they allow (LoHa and LoKr become LoRA)"
    )
    resized.add_argument("lora", type=Path, metavar="LORA_FILE")
    _rank(resized, "largest rank; without it that of the file")
    rules = resized.add_mutually_exclusive_group()
    rules.add_argument(
        "--sv_fro", type=float, metavar="SHARE", help="keep this share of each change's norm, such as 0.9"
    )
    rules.add_argument("--sv_ratio", type=float, metavar="RATIO", help="drop singular values below the largest / RATIO")
    rules.add_argument(
        "--sv_cumulative", type=float, metavar="SHARE", help="keep this share of the singular values' sum"
    )
    extracted = new_command(
        actions, common, "extract", "lora.run_extract", "a LoRA from two checkpoints: what the second has learned"
    )
    extracted.add_argument("base", type=Path, metavar="BASE_CHECKPOINT")
    extracted.add_argument("tuned", type=Path, metavar="TUNED_CHECKPOINT")
    extracted.add_argument("--rank", type=count, default=16, metavar="N", help="default: 16")
    extracted.add_argument("--conv_rank", type=count, metavar="N", help="also the 3x3 convolutions, at this rank")
    extracted.add_argument("--clamp_quantile", type=float, default=0.99, metavar="Q", help="default: 0.99; 1 for none")
    extracted.add_argument(
        "--min_diff", type=float, default=0.01, metavar="D",
        help="leave the text encoders out if no weight differs by more; default: 0.01",
    )  # fmt: skip
    converted = new_command(actions, common, "convert", "lora.run_convert", "other programs' keys")
    converted.add_argument("lora", type=Path, metavar="LORA_FILE")
    converted.add_argument("--to", choices=FORMATS, required=True)
    baked = new_command(actions, common, "bake", "lora.run_bake", "put a strength into the file, so that 1 means it")
    baked.add_argument("lora", type=Path, metavar="LORA_FILE")
    baked.add_argument("--strength", type=float, required=True)
    for command in (merged, resized, extracted, converted, baked):
        command.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
        command.add_argument(
            "--save_precision", choices=("fp16", "bf16", "float"), default="fp16", help="default: fp16"
        )
        command.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    shown = new_command(actions, common, "show", "lora.run_show", "type, ranks and metadata of a file")
    shown.add_argument("lora", type=Path, metavar="LORA_FILE")
    shown.add_argument("--json", action="store_true", help="print all as JSON")


def _rank(command: Parser, help: str) -> None:
    command.add_argument("--rank", type=count, metavar="N", help=help)
    command.add_argument(
        "--conv_rank", type=count, metavar="N", help="the same for 3x3 convolutions; default: as --rank"
    )
