"""Time and memory at the true sizes of SD 1.5 and SDXL: measured where there is a CUDA card, and counted everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lora_trainer.bench.counted import CountedUnet, count_unet
from lora_trainer.bench.measure import in_fresh_process, measure_times
from lora_trainer.bench.plan import BenchPlan
from lora_trainer.errors import first_line, memory_problem
from lora_trainer.families import SDXL
from lora_trainer.hosts.standalone.host import best_device
from lora_trainer.training.memory_plan.choosing import choose, work
from lora_trainer.training.memory_plan.storage import Storage, storage

GB = 2**30
RANK = 16
MODELS = (("sd15", 512), ("sd21", 768), (SDXL, 1024))
PRECISIONS = ("fp16", "bf16")
NOTHING, SOME, EVERYTHING = "nothing", "half of what it frees", "everything"
OWN, EIGHT_BIT, IN_CPU, BOTH = "fp16", "8 bits", "fp16 in CPU memory", "8 bits in CPU memory"  # blocks' weights
STEPS = 5  # timed, each


@dataclass(frozen=True)
class Counted:
    """GiB of a step at one size."""

    recomputed: str
    blocks: int
    held: str  # how the blocks' weights are
    weights: float  # of the UNet, on the card
    lora: float  # with its gradients and AdamW's state
    step: float  # with what weights take for the moment
    work: float  # 1.0 where nothing is recomputed

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.lora + self.step


def run_suite(tell: Callable[[str], None]) -> dict[str, Any]:
    """Count and measure everything; ``tell`` gets a line before each part. JSON values."""
    device = best_device()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    models: list[dict[str, Any]] = []
    for size, resolution in MODELS:
        tell(f"Counting {size} at {resolution} pixels")
        row: dict[str, Any] = {"size": size, "resolution": resolution, "rank": RANK}
        row["counted"] = [{**vars(one), "total": one.total} for one in counted(size, resolution)]
        if card:
            row["measured"] = [
                _measured(BenchPlan(None, size, resolution, 1, RANK, STEPS, precision, checkpointing), tell)
                for precision in PRECISIONS for checkpointing in (False, True)
            ]  # fmt: skip
        models.append(row)
    return {"card": card, "torch": torch.__version__, "models": models}


def counted(size: str, resolution: int) -> list[Counted]:
    """What a step needs with nothing, some blocks and all blocks recomputed, and their weights held in every way."""
    unet = count_unet(size, resolution, rank=RANK)
    cost, all_of_them = unet.cost, tuple(range(len(unet.blocks)))
    halfway = choose(cost, 1, (cost.peak(()) + cost.peak(all_of_them)) // 2)
    assert halfway is not None
    rows = [_row(unet, NOTHING, (), OWN), _row(unet, SOME, halfway.recomputed, OWN)]
    for held in (OWN, EIGHT_BIT, IN_CPU, BOTH):
        away = all_of_them if held in (IN_CPU, BOTH) else ()
        rows.append(_row(unet, EVERYTHING, all_of_them, held, storage(unet.blocks, held in (EIGHT_BIT, BOTH), away)))
    return rows


def _row(unet: CountedUnet, name: str, recomputed: tuple[int, ...], held: str, way: Storage | None = None) -> Counted:
    way = way or Storage()
    step = unet.cost.peak(recomputed) + way.passing(recomputed)
    weights, lora = (unet.weights - way.saved) / GB, 16 * unet.lora / GB
    return Counted(name, len(recomputed), held, weights, lora, step / GB, work(unet.cost, recomputed))


def _measured(plan: BenchPlan, tell: Callable[[str], None]) -> dict[str, Any]:
    """Seconds and peak of our step and of the peer's; why not, if it can't be computed there."""
    recomputed = EVERYTHING if plan.checkpointing else NOTHING
    tell(f"Measuring {plan.size} at {plan.resolution} pixels in {plan.precision}, {recomputed} recomputed")
    row: dict[str, Any] = {"precision": plan.precision, "recomputed": recomputed}
    try:
        row["peak_gb"] = {name: in_fresh_process(plan, name) / GB for name in ("ours", "peer")}
        times, _ = measure_times(plan)
        row["seconds"] = {name: sorted(all_of)[len(all_of) // 2] for name, all_of in times.items()}
    except Exception as error:  # a small card can't do all of it
        row["error"] = memory_problem(error) or first_line(error)
    return row
