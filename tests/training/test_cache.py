"""Encoded captions: how many go to the text encoder at once, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.config import RunConfig
from lora_trainer.hosts.base import Conditioning
from lora_trainer.training.cache import FEW_CAPTIONS, CaptionCache
from lora_trainer.training.events import Notice
from lora_trainer.training.processes import Processes
from lora_trainer.training.store import TensorStore
from tests.support.tiny_host import TinyModel


class PooledModel(TinyModel):
    """Also gives pooled states, as SDXL's second encoder does; writes down how many captions came at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.groups: list[int] = []

    def encode_captions(self, captions: Sequence[str], max_token_length: int, clip_skip: int) -> Conditioning:
        self.groups.append(len(captions))
        made = super().encode_captions(captions, max_token_length, clip_skip)
        return Conditioning(made.context, made.context[:, 0].repeat(1, 4))


def filled(count: int, spill: Path) -> tuple[PooledModel, CaptionCache, list[str]]:
    model, texts = PooledModel(), [f"zork {number}" for number in range(count)]
    cache = CaptionCache(model, TensorStore(), RunConfig())
    told = [event.text for event in cache.fill(texts, Processes(), spill) if isinstance(event, Notice)]
    return model, cache, told


def test_what_other_processes_encode_is_shared(tmp_path: Path) -> None:
    class TwoProcesses(Processes):
        """The first of two; what the second one encodes is made up here."""

        def __init__(self) -> None:
            super().__init__()
            self.world, self.rank = 2, 0

        def gather(self, mine: list[Any]) -> list[Any]:
            assert [key for key, _ in mine] == [cache.key("zork 0"), cache.key("zork 2")]
            return [*mine, *((cache.key(f"zork {n}"), {"context": torch.full((2, 2), float(n))}) for n in (0, 1))]

    cache = CaptionCache(TinyModel(), TensorStore(), RunConfig())
    list(cache.fill(["zork 0", "zork 1", "zork 2"], TwoProcesses(), tmp_path))
    assert torch.equal(cache.store[cache.key("zork 1")]["context"], torch.ones(2, 2))
    assert cache.store[cache.key("zork 0")]["context"].shape != (2, 2), "its own stays"


def test_few_captions_are_encoded_one_by_one_and_many_in_groups(tmp_path: Path) -> None:
    assert filled(FEW_CAPTIONS, tmp_path)[0].groups == [1] * FEW_CAPTIONS
    assert filled(FEW_CAPTIONS + 3, tmp_path)[0].groups == [8] * 8 + [3]


def test_pooled_states_count_for_the_room_that_captions_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cache, told = filled(5, tmp_path)
    context, pooled = (part[0] for part in (cache.batch(["zork 0"]).context, cache.batch(["zork 0"]).pooled))
    assert pooled.shape == (64,) and torch.equal(pooled[:16], context[0])
    assert not told
    monkeypatch.setattr("lora_trainer.training.cache.LARGEST_IN_MEMORY", 5 * context.nbytes + 1)
    assert [text.split()[0] for text in filled(5, tmp_path / "spill")[2]] == ["5"]
