"""Bringing weights to a card, on a card that is only played: what is begun when, and what waits for what."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from lora_trainer.frozen_weights import bringing
from lora_trainer.frozen_weights.bringing import Bringer, Order, pinned

CARD = torch.device("cuda")


class Stream:
    def __init__(self, name: str, did: list[str]) -> None:
        self.name, self.did, self.events = name, did, 0

    def record_event(self) -> Any:
        self.events += 1
        return Event(f"{self.name} {self.events}", self.did)

    def wait_event(self, event: Event) -> None:
        self.did.append(f"{self.name} waits for {event.name}")


class Event:
    def __init__(self, name: str, did: list[str]) -> None:
        self.name, self.did = name, did

    def synchronize(self) -> None:
        self.did.append(f"Python waits for {self.name}")


class Weight:
    """Numbers of 100 bytes."""

    nbytes = 100

    def __init__(self, name: str, did: list[str]) -> None:
        self.name, self.did = name, did

    def to(self, device: torch.device, non_blocking: bool) -> Weight:
        assert device == CARD and non_blocking
        self.did.append(f"{self.name} comes")
        return Weight(self.name, self.did)

    def record_stream(self, stream: Stream) -> None:
        self.did.append(f"{self.name} is for {stream.name}")


@pytest.fixture
def did(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []
    computing, aside = Stream("computing", done), list[Stream]()

    @contextmanager
    def on(stream: Stream) -> Any:
        aside.append(stream)
        yield
        aside.pop()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("copying", done))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(torch.cuda, "stream", on)
    return done


def test_the_next_weight_is_on_its_way_before_it_is_asked_for(did: list[str]) -> None:
    bringer, weights = Bringer(CARD), [Weight(name, did) for name in "abc"]
    for _ in range(2):
        did.clear()
        assert [bringer.bring(weight).name for weight in weights] == ["a", "b", "c"]  # type: ignore[arg-type, attr-defined]
    coming = [did.index(f"{name} comes") for name in "bc"]
    used = [did.index(f"{name} is for computing") for name in "bc"]
    assert coming[0] < used[0] and coming[1] < used[1] and coming[1] < did.index("b is for computing") + 2
    assert all(did.count(f"{name} comes") == 1 for name in "bc"), "and once only"
    waits = [line for line in did if line.startswith("computing waits for copying")]
    assert len(waits) == 3, "nothing is computed with before it is there"


def test_python_waits_where_it_is_too_far_ahead(did: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bringing, "AHEAD", 250)
    bringer, weights = Bringer(CARD), [Weight(name, did) for name in "abcd"]
    for weight in weights:
        bringer.bring(weight)  # type: ignore[arg-type]
    waited = [line for line in did if line.startswith("Python")]
    assert waited == ["Python waits for computing 1", "Python waits for computing 2"]


def test_on_a_processor_nothing_is_copied() -> None:
    weight, processor = torch.ones(3), torch.device("cpu")
    assert Bringer(processor).bring(weight) is weight and pinned(weight, processor) is weight


def test_the_order_of_a_step_is_known_after_one_step() -> None:
    """Blocks of three layers: forwards in order; backwards block by block, each computed again in order."""
    blocks = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    step = [(key, False) for block in blocks for key in block]
    step += [(key, True) for block in reversed(blocks) for key in block]
    order = Order()
    guesses = [[order.after(*asked) for asked in step] for _ in range(2)]
    assert guesses[1][1:-1] == [key for key, _ in step[2:]]
