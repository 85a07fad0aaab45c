"""The sweep against a host that draws what it was asked for, so that every picture tells which request made it."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

from lora_trainer.errors import ConfigError, FileError, LoraTrainerError, UnsupportedModelError
from lora_trainer.evaluation import sweep
from lora_trainer.evaluation.events import TestedImage, TestEvent, TestFinished
from lora_trainer.evaluation.plan import TestPlan
from lora_trainer.evaluation.prompts import Prompt
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest, ModelInfo
from lora_trainer.subjects import SUBJECTS
from lora_trainer.training.events import CancelToken, Notice


def write_lora(path: Path, **metadata: str) -> Path:
    """A safetensors file with one number and metadata, written by hand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": metadata}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<f", 1.0))
    return path


@dataclasses.dataclass
class DrawingHost:
    """Red grows with the strength, green is the seed; a LoRA without effect draws the same at every strength."""

    lora_dir: Path
    effect: float = 100.0
    size: int = 64
    name: str = "drawing"
    fails_after: int = 1000
    requests: list[GenerateRequest] = dataclasses.field(default_factory=list)
    refreshed: list[Path] = dataclasses.field(default_factory=list)

    def info(self) -> ModelInfo:
        return ModelInfo("sd1", "epsilon", "diffusers", "tiny.safetensors", "ab", "", "", "v", "t", self.size)

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        if len(self.requests) == self.fails_after:
            raise LoraTrainerError("The picture isn't finite.")
        self.requests.append(request)
        tag = re.search(r"<lora:([^:>]+):([\d.]+)>", request.prompt)
        assert tag and (self.lora_dir / f"{tag[1]}.safetensors").is_file(), request.prompt
        colour = (round(float(tag[2]) * self.effect), request.seed, 128)
        image = Image.new("RGB", (request.width, request.height), colour)
        return GeneratedImage(image, request, f"{request.prompt}\nSteps: {request.steps}, Seed: {request.seed}")

    def defaults(self) -> dict[str, str]:
        return {}

    def take(self, mixed_precision: str) -> NoReturn:
        raise UnsupportedModelError("Drawings can't be measured.")

    def check(self, request: GenerateRequest) -> None:
        assert not self.requests
        if request.sampler not in ("euler_a", "ddim"):
            raise ConfigError(f"There is no sampler {request.sampler!r}.")

    def refresh_loras(self, changed: tuple[Path, ...] = ()) -> None:
        self.refreshed += changed


@pytest.fixture
def host(tmp_path: Path) -> DrawingHost:
    write_lora(tmp_path / "lora" / "fox.safetensors", ss_output_name="fox")
    return DrawingHost(tmp_path / "lora")


def run(host: DrawingHost, output: Path, **plan: object) -> tuple[list[TestEvent], dict]:
    plan = {"trigger": "foxy", "seeds": (7, 8), "seeds_chosen": True, **plan}
    events = list(sweep.test_lora(host, "fox", TestPlan(**plan), output))
    return events, json.loads((output / "report.json").read_text())


def test_every_strength_and_seed_is_asked_through_the_tag(host: DrawingHost, tmp_path: Path) -> None:
    _, report = run(host, tmp_path / "out", strengths=(0.0, 0.4, 1.0))
    rows = [row for row in report["images"] if row["kind"] == "strength"]
    assert {(row["strength"], row["seed"]) for row in rows} == {(s, n) for s in (0.0, 0.4, 1.0) for n in (7, 8)}
    assert {row["prompt"] for row in rows} == {"<lora:fox:0> foxy", "<lora:fox:0.4> foxy", "<lora:fox:1.0> foxy"}
    for row in rows:
        with Image.open(tmp_path / "out" / row["path"]) as image:
            assert image.getpixel((0, 0)) == (round(row["strength"] * 100), row["seed"], 128)
            assert image.info["parameters"] == row["infotext"]


def test_base_model_is_always_part_of_the_sweep(host: DrawingHost, tmp_path: Path) -> None:
    _, report = run(host, tmp_path / "out", strengths=(0.8,))
    assert [row["strength"] for row in report["strengths"]] == [0.0, 0.8]


def test_integration_prompts_are_made_with_and_without(host: DrawingHost, tmp_path: Path) -> None:
    _, report = run(host, tmp_path / "out", seeds=(7,), strengths=(0.0,), subject=SUBJECTS["person"])
    prompts = [row["prompt"] for row in report["images"] if row["kind"] == "integration"]
    assert prompts[:4] == [
        "masterpiece, <lora:fox:0> foxy in a forest",
        "masterpiece, <lora:fox:0.8> foxy in a forest",
        "<lora:fox:0> foxy, cyberpunk style",
        "<lora:fox:0.7> foxy, cyberpunk style",
    ]


def test_prompt_lines_may_carry_their_own_settings(host: DrawingHost, tmp_path: Path) -> None:
    run(host, tmp_path / "out", integration=(Prompt("{lora} foxy --n blurry, ugly --s 9 --l 3.5"),))
    own = [request for request in host.requests if request.steps == 9]
    assert len(own) == 4
    assert {request.negative_prompt for request in own} == {"blurry, ugly"}
    assert {request.prompt for request in own} == {"<lora:fox:0> foxy", "<lora:fox:0.8> foxy"}
    assert {request.seed for request in own} == {7, 8}


def test_saved_files_are_compared_in_the_order_of_training(host: DrawingHost, tmp_path: Path) -> None:
    for stem in ("fox-000010", "fox-000002", "fox-step00000030", "fox-other", "foxy-000001"):
        write_lora(host.lora_dir / f"{stem}.safetensors")
    events, report = run(host, tmp_path / "out", seeds=(7,))
    assert [row["file"] for row in report["epochs"]] == [
        "fox-000002.safetensors",
        "fox-000010.safetensors",
        "fox-step00000030.safetensors",
        "fox.safetensors",
    ]
    shown = [row["prompt"] for row in report["images"] if row["kind"] == "epoch"]
    assert shown[:3] == [f"<lora:fox-000002:{strength}> foxy" for strength in ("0.6", "0.8", "1.0")]
    assert len(shown) == 12 and shown[-1] == "<lora:fox:1.0> foxy"
    assert (tmp_path / "out" / "epochs.png").is_file()
    assert {path.stem for path in host.refreshed} == {"fox", "fox-000002", "fox-000010", "fox-step00000030"}
    assert isinstance(events[-1], TestFinished)


def test_report_says_what_it_does_not_know(host: DrawingHost, tmp_path: Path) -> None:
    _, report = run(host, tmp_path / "out")
    assert report["verdict"] == "not enough evidence"
    assert (report["lora"], report["base_model"], report["trigger"]) == ("fox.safetensors", "tiny.safetensors", "foxy")
    for row in report["strengths"]:
        assert row["accuracy"] is None and row["flexibility"] is None and row["artifacts"] is None
        assert row["reason"] == ("not measured" if row["strength"] else "the base model itself")
    assert (report["recommended"]["strength"], report["recommended"]["sure"]) == (0.8, "a guess")
    assert report["missing"] == ["Not everything was measured: Drawings can't be measured."]
    assert report["evidence"] == ["Nothing was measured.", *report["missing"]]


def test_lora_without_effect_is_named(host: DrawingHost, tmp_path: Path) -> None:
    host.effect = 0.0
    _, report = run(host, tmp_path / "out")
    assert any("no effect" in line for line in report["evidence"])


def test_stopped_test_reports_what_there_is(host: DrawingHost, tmp_path: Path) -> None:
    token = CancelToken()
    plan = TestPlan("foxy", seeds=(1, 2), seeds_chosen=True)
    events = []
    for event in sweep.test_lora(host, "fox", plan, tmp_path / "out", token):
        events.append(event)
        if isinstance(event, TestedImage) and event.done == 3:  # the first of two that are made together
            token.cancel()
    finished = events[-1]
    assert isinstance(finished, TestFinished)
    assert finished.stopped and finished.images == 4 and len(host.requests) == 4
    report = json.loads(finished.report.read_text())
    assert report["stopped"] and len(report["images"]) == 4
    assert "was stopped" in finished.page.read_text()
    assert [grid.name for grid in finished.grids] == ["strength.png"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"integration": (Prompt("{lora} foxy"), Prompt("{lora} foxy --ss nonsense"))}, "nonsense"),
        ({"integration": (Prompt("{lora} foxy --s many"),)}, "many"),
        ({"request": GenerateRequest("", width=64, height=100)}, "height can't be 100"),
        ({"request": GenerateRequest("", width=32, height=64)}, "width can't be 32"),
    ],
)
def test_what_cannot_be_made_is_refused_before_the_first_picture(
    host: DrawingHost, tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        run(host, tmp_path / "out", **changes)
    assert not host.requests and not (tmp_path / "out").exists()


def test_failure_in_the_middle_leaves_a_report_of_what_there_is(host: DrawingHost, tmp_path: Path) -> None:
    host.fails_after = 3
    events: list[TestEvent] = []
    with pytest.raises(LoraTrainerError, match="isn't finite"):
        for event in sweep.test_lora(host, "fox", TestPlan("foxy", seeds=(1, 2)), tmp_path / "out"):
            events.append(event)  # noqa: PERF402  # those before the failure are looked at
    assert isinstance(events[-1], Notice) and "report.html" in events[-1].text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["stopped"] and len(report["images"]) == 3
    assert (tmp_path / "out" / "report.html").is_file() and (tmp_path / "out" / "strength.png").is_file()


def test_failure_at_the_first_picture_leaves_nothing(host: DrawingHost, tmp_path: Path) -> None:
    host.fails_after = 0
    with pytest.raises(LoraTrainerError, match="isn't finite"):
        list(sweep.test_lora(host, "fox", TestPlan("foxy"), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_lora_outside_the_folder_or_missing_is_refused(host: DrawingHost, tmp_path: Path) -> None:
    elsewhere = write_lora(tmp_path / "elsewhere" / "cat.safetensors")
    plan = TestPlan("x")
    missing = tmp_path / "lora" / "no.safetensors"
    for lora, words in ((elsewhere, "isn't in the LoRA"), ("nobody", "no LoRA named"), (missing, "doesn't exist")):
        with pytest.raises(FileError, match=words):
            list(sweep.test_lora(host, lora, plan, tmp_path / "out"))
    broken = host.lora_dir / "broken.safetensors"
    broken.write_bytes(b"not a LoRA at all")
    with pytest.raises(FileError, match=r"broken\.safetensors isn't a safetensors file"):
        list(sweep.test_lora(host, broken, plan, tmp_path / "out"))
    assert not host.requests and not (tmp_path / "out").exists()


def test_missing_trigger_is_said(host: DrawingHost, tmp_path: Path) -> None:
    events, report = run(host, tmp_path / "out", trigger="")
    assert any(isinstance(event, Notice) and "trigger" in event.text for event in events)
    assert report["images"][0]["prompt"] == "<lora:fox:0>"


class NarrowHost(DrawingHost):
    """Has no memory for several pictures at once, and never for the one of ``strength``."""

    strength = "0.4"
    together = 0

    def generate_many(self, requests: Sequence[GenerateRequest]) -> list[GeneratedImage]:
        self.together += 1
        if len(requests) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [self.generate(request) for request in requests]

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        if f":{self.strength}>" in request.prompt and request.seed == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().generate(request)


def test_without_memory_a_picture_is_left_out_and_the_test_goes_on(host: DrawingHost, tmp_path: Path) -> None:
    narrow = NarrowHost(host.lora_dir)
    plan = {"seeds": (1, 2), "strengths": (0.0, 0.4, 0.8)}
    events, report = run(narrow, tmp_path / "out", **plan)
    left_out = [event.text for event in events if isinstance(event, Notice) and "was left out" in event.text]
    assert len(left_out) == 1 and "There isn't enough memory" in left_out[0] and narrow.together
    shown = {(shot["strength"], shot["seed"]) for shot in report["images"] if shot["kind"] == "strength"}
    assert shown == {(0.0, 1), (0.0, 2), (0.4, 1), (0.8, 1), (0.8, 2)}
    assert report["stopped"], "so it can be continued"
    narrow.strength = ""
    narrow.requests.clear()
    whole = TestPlan(**{"trigger": "foxy", "seeds_chosen": True, **plan})
    again = list(sweep.test_lora(narrow, "fox", whole, tmp_path / "out", resume=True))
    assert isinstance(again[-1], TestFinished) and not again[-1].stopped
