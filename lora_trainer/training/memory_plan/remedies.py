"""Where no set-up fits: the smallest change of the settings that would."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lora_trainer.config import MemoryConfig, RunConfig
from lora_trainer.memory import size_text
from lora_trainer.training.memory_plan.choosing import OWN
from lora_trainer.training.memory_plan.counting import StepCost
from lora_trainer.training.memory_plan.figures import state_bytes
from lora_trainer.training.memory_plan.storage import Storage

GB = 2**30
SMALLEST_RANK, SMALLEST_SIDE, STEP = 4, 256, 64


@dataclass(frozen=True)
class Need:
    """What a run needs with the most that can be done for it: every block recomputed, one image at a time, weights held
    in whatever way takes least."""

    config: RunConfig
    cost: StepCost
    cuda: bool  # whether the 8-bit optimiser would work
    fixed: int  # bytes of weights, LoRA, gradients and optimiser
    lora: int  # numbers
    text_encoders: int  # bytes
    bucket: tuple[int, int]
    storage: Storage = OWN  # the way that takes least
    chosen: bool = False  # whether the limit is the person's own, and more is free
    unused: tuple[tuple[str, Storage], ...] = ()  # ways that settings switch off: each with what switches it on

    @property
    def step(self) -> int:
        """Bytes of an image's step."""
        return self.cost.peak(range(len(self.cost.work))) // self.cost.images

    @property
    def least(self) -> int:
        """Bytes in all."""
        return self.fixed + self.of_weights(self.storage) + self.step

    def of_weights(self, storage: Storage) -> int:
        """Bytes that weights take beside those that the model has: fewer than none where they are elsewhere."""
        return storage.passing(range(len(self.cost.work))) - storage.saved


def switched_off(memory: MemoryConfig) -> Iterator[tuple[str, MemoryConfig]]:
    """Ways to hold the weights that settings switch off: each with what switches it, and those before it, on."""
    if memory.base_8bit == "never":
        memory = replace(memory, base_8bit="auto")
        yield "set base_8bit to auto", memory
    if memory.blocks_in_cpu_memory >= 0:
        memory = replace(memory, blocks_in_cpu_memory=-1)
        yield "set blocks_in_cpu_memory to -1", memory


def remedy(need: Need, limit: int) -> str:
    """One sentence: what is missing, and the first change of the settings that is enough."""
    done = "everything recomputed and one image at a time"
    ways = [" in 8 bits"] * need.storage.in_8_bits + [" in CPU memory"] * bool(need.storage.in_cpu)
    if ways:
        done += f", weights{''.join(ways)}"
    said = f"Training needs at least {size_text(need.least)}, with {done}, but may take {size_text(limit)}"
    for change, saved in _changes(need):
        if need.least - saved <= limit:
            return f"{said}: {change}."
    if need.chosen:
        enough = math.ceil(1000 * (need.least + 1) / GB) / 1000
        return f"{said}: set memory_limit_gb to {enough:g}, or choose a smaller model."
    return f"{said}: free {size_text(need.least - limit)} more, or choose a smaller model."


def _changes(need: Need) -> Iterator[tuple[str, int]]:
    """What can be changed, the least first, and the bytes that it saves together with all before it."""
    config, saved, settings = need.config, 0, list[str]()
    least = need.of_weights(need.storage)
    for change, storage in need.unused:
        saved = max(saved, least - need.of_weights(storage))
        settings.append(change)
        yield _listed(settings), saved
    if config.tunes_text and config.memory.cache_text_encoder_outputs:
        saved += need.text_encoders
        settings.append("switch network_train_unet_only on")
        yield _listed(settings), saved
    state = state_bytes(config.optimizer)
    if config.optimizer.optimizer_type == "AdamW" and need.cuda:
        before, state = state, state_bytes(replace(config.optimizer, optimizer_type="AdamW8bit"))
        saved += need.lora * (before - state)
        settings.append("choose the optimiser AdamW8bit")
        yield _listed(settings), saved
    rank = config.network.network_dim
    each = need.lora * (8 + state) / max(rank, 1)
    smaller = rank // 2
    while smaller >= SMALLEST_RANK:
        yield _listed([*settings, f"set network_dim to {smaller}"]), saved + round(each * (rank - smaller))
        smaller //= 2
    side = max(config.dataset.resolution) - STEP
    area = need.bucket[0] * need.bucket[1]
    while side >= SMALLEST_SIDE:
        yield _listed([*settings, f"set resolution to {side}"]), saved + round(need.step * (1 - side * side / area))
        side -= STEP


def _listed(settings: list[str]) -> str:
    return " and ".join(settings)
