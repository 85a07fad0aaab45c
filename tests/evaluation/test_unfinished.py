"""A test that was stopped or failed anywhere is continued: the same report as without, and nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.errors import ConfigError, FileError, LoraTrainerError
from lora_trainer.evaluation.events import Measuring, TestedImage, TestEvent, TestPlanned
from lora_trainer.evaluation.measuring import Bench
from lora_trainer.evaluation.plan import TestPlan, plan_of
from lora_trainer.evaluation.sweep import test_lora as begin
from lora_trainer.evaluation.unfinished import asked_before
from lora_trainer.training.events import CancelToken
from tests.evaluation.test_sweep import DrawingHost, write_lora
from tests.support.office import OfficeHost
from tests.support.runs import of, run

PLAN = TestPlan("zork", strengths=(0.0, 0.7, 1.0), seeds=(1, 2), seeds_chosen=True)


class CountingHost(OfficeHost):
    """Measures and makes pictures; notes the prompt and seed of each."""

    def __init__(self, lora_dir: Path) -> None:
        super().__init__(lora_dir)
        self.made: list[tuple[str, int]] = []
        self.fails_at = 0

    def generate(self, request: Any) -> Any:
        if self.fails_at and len(self.made) + 1 == self.fails_at:
            raise LoraTrainerError("The picture isn't finite.")
        self.made.append((request.prompt, request.seed))
        return super().generate(request)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    run(root, max_train_epochs=2, save_every_n_epochs=1)
    return root


@pytest.fixture(scope="module")
def whole(trained: Path) -> tuple[dict[str, Any], int, int]:
    """The report of a test that wasn't stopped; how many measurements and pictures that took."""
    host, report, events = outcome(trained, trained / "out/whole")
    return report, len(of(events, Measuring)), len(host.made)


def outcome(
    root: Path, folder: Path, stop_at: tuple[type, int] | None = None, resume: bool = False, plan: TestPlan = PLAN,
    fails_at: int = 0,
) -> tuple[CountingHost, dict[str, Any], list[TestEvent]]:  # fmt: skip
    """Test until so many events of a kind have come; the report without what tells when it was written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_bytes((root / "out/zork/run.json").read_bytes())
    host, token, events = CountingHost(root / "loras"), CancelToken(), list[TestEvent]()
    host.fails_at = fails_at
    try:
        for event in begin(host, "zork", plan, folder, token, resume=resume):
            events.append(event)
            if stop_at and len(of(events, stop_at[0])) == stop_at[1]:
                token.cancel()
    except LoraTrainerError:
        if not fails_at:
            raise
    report = json.loads((folder / "report.json").read_text())
    return host, {**report, "created": ""}, events


@pytest.mark.parametrize("kind", [Measuring, TestedImage])
def test_stopped_anywhere_and_continued_it_is_the_same_test(
    trained: Path, whole: tuple[dict[str, Any], int, int], tmp_path: Path, kind: type
) -> None:
    report, measurements, pictures = whole
    for stop in range(1, (measurements if kind is Measuring else pictures), 3):
        folder = tmp_path / str(stop)
        first, half, before = outcome(trained, folder, (kind, stop))
        assert half["stopped"] and (folder / "test.jsonl").is_file()
        second, found, after = outcome(trained, folder, resume=True)
        assert found == report, "to the last digit"
        assert len(of([*before, *after], Measuring)) == measurements, "each measured once"
        assert len(first.made) + len(second.made) == pictures, "each made once"
        assert [event.done for event in of(after, TestedImage)] == list(range(1, pictures + 1))
        assert not (folder / "test.jsonl").exists()
        planned = of(after, TestPlanned)[0]
        assert (planned.before > 0) == (kind is TestedImage) == ("goes on where it was" in planned.sentence)


def test_a_test_that_failed_is_continued(trained: Path, whole: tuple[dict[str, Any], int, int], tmp_path: Path) -> None:
    first, half, _ = outcome(trained, tmp_path, fails_at=8)
    assert half["stopped"] and len(first.made) == 7
    second, found, _ = outcome(trained, tmp_path, resume=True)
    assert found == whole[0] and len(second.made) == whole[2] - 7


def test_what_is_spoilt_is_done_again(trained: Path, whole: tuple[dict[str, Any], int, int], tmp_path: Path) -> None:
    outcome(trained, tmp_path, (TestedImage, 6))
    lines = (tmp_path / "test.jsonl").read_text().splitlines()
    assert '"cell"' in lines[1] and '"picture"' in lines[-1]
    lines[1], lines[-1] = '{"cell": {"file": 3}}', lines[-1][: len(lines[-1]) // 2]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    gone, cut = sorted((tmp_path / "images").iterdir())[:2]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:50])
    second, found, _ = outcome(trained, tmp_path, resume=True)
    assert len(second.made) == whole[2] - 6 + 3
    assert {row["path"]: row["infotext"] for row in found["images"]} == {
        row["path"]: row["infotext"] for row in whole[0]["images"]
    }
    for row in found["images"]:
        Image.open(tmp_path / row["path"]).load()


def test_measuring_is_not_begun_again_when_all_is_measured(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(trained, tmp_path, (TestedImage, 2))
    monkeypatch.setattr(Bench, "__init__", lambda *_: pytest.fail("measures again"))
    outcome(trained, tmp_path, resume=True)


@pytest.fixture
def drawn(tmp_path: Path) -> DrawingHost:
    write_lora(tmp_path / "lora" / "fox.safetensors", ss_output_name="fox")
    return DrawingHost(tmp_path / "lora")


def half(host: DrawingHost, folder: Path, **values: Any) -> TestPlan:
    token, plan = CancelToken(), plan_of({"strengths": "0,1", **values}, "fox", "foxy", (64, 64))
    for event in begin(host, "fox", plan, folder, token):
        if isinstance(event, TestedImage):
            token.cancel()
    host.requests.clear()
    return plan


def again(host: DrawingHost, folder: Path, plan: TestPlan) -> None:
    list(begin(host, "fox", plan, folder, resume=True))


def test_it_is_continued_as_it_was_asked_for(drawn: DrawingHost, tmp_path: Path) -> None:
    half(drawn, tmp_path / "fox", prompts="{lora} a {trigger} on the moon", seeds="5", subject="object")
    asked = asked_before(tmp_path / "fox")
    assert asked["prompts"] == "{lora} a {trigger} on the moon" and asked["seeds"] == "5"
    again(drawn, tmp_path / "fox", plan_of(asked, "fox", "foxy", (64, 64)))
    assert "a foxy on the moon" in drawn.requests[-1].prompt and {request.seed for request in drawn.requests} == {5}
    with pytest.raises(FileError, match="no unfinished test of fox"):
        asked_before(tmp_path / "fox")


def test_what_changed_since_is_named(drawn: DrawingHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = half(drawn, tmp_path / "fox")
    with pytest.raises(ConfigError, match="what it tests has changed since"):
        again(drawn, tmp_path / "fox", plan_of({"strengths": "0,0.5"}, "fox", "foxy", (64, 64)))
    info = drawn.info()
    with monkeypatch.context() as other:
        other.setattr(DrawingHost, "info", lambda self: type(info)(**{**vars(info), "vae_fingerprint": "w"}))
        with pytest.raises(ConfigError, match="the base model has changed since"):
            again(drawn, tmp_path / "fox", plan)
    write_lora(tmp_path / "lora" / "fox.safetensors", ss_output_name="fox", ss_steps="9")
    with pytest.raises(ConfigError, match="the LoRA or one of its saved files has changed since"):
        again(drawn, tmp_path / "fox", plan)
    assert (tmp_path / "fox/test.jsonl").is_file() and not drawn.requests, "nothing is lost by asking"


def test_there_must_be_something_to_be_continued(drawn: DrawingHost, tmp_path: Path) -> None:
    plan = plan_of({}, "fox", "foxy", (64, 64))
    with pytest.raises(FileError, match="There is no unfinished test of fox to be continued"):
        again(drawn, tmp_path / "fox", plan)


def test_the_report_grows_while_the_test_runs(
    drawn: DrawingHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_trainer.evaluation.sweep.FRESH", 0.0)
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox/report.html").write_text("an earlier test's")
    plan, seen = plan_of({"strengths": "0,1", "seeds": "1"}, "fox", "foxy", (64, 64)), []
    for event in begin(drawn, "fox", plan, tmp_path / "fox"):
        if isinstance(event, TestedImage):
            report = json.loads((tmp_path / "fox/report.json").read_text())
            seen.append((len(report["images"]), report["stopped"], (tmp_path / "fox/report.html").exists()))
    assert seen == [(count, True, False) for count in range(1, len(seen) + 1)]
    assert not json.loads((tmp_path / "fox/report.json").read_text())["stopped"]
