"""What the tab's buttons do with settings: remembered ones, presets, files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer import fitting
from lora_trainer.checkpoint_marks import Marks
from lora_trainer.config import OPTIONS, RunConfig
from lora_trainer.config.presets import PRESETS
from lora_trainer.dataset.buckets import place
from lora_trainer.fitting import PRACTICE, fitted, presets_for
from lora_trainer.hosts.base import Glance
from lora_trainer.kohya import load_config
from lora_trainer.ui import remembered, views
from lora_trainer.ui.actions import files, images, settings, start
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.estimate import Paces
from lora_trainer.ui.forms import CUSTOM
from tests.support.tab import SD1, FakeJob, page


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dataset": "", "name": "x"}, "Which images?"),
        ({"dataset": "/d", "name": " "}, "has no name"),
        ({"dataset": "/d", "name": "x", "options": {"network_dim": "-3"}}, "network_dim can&#x27;t be -3"),
        ({"dataset": "/d", "name": "x", "options": {"learning_rate": "fast"}}, "it must be a number"),
    ],
)
def test_bad_values_give_sentences(desk: Desk, job: FakeJob, values: dict[str, Any], sentence: str) -> None:
    answer = start.start(desk, page(desk, **values))
    assert "lt-problem" in answer.html["message"] and sentence in answer.html["message"]
    assert job.asked == []


def test_last_settings_come_back_and_go(desk: Desk, job: FakeJob, dataset: Path) -> None:
    settings.changed(
        desk, page(desk, dataset=str(dataset), name="cat", options={"network_dim": "5", "learning_rate": "3e-05"})
    )
    other = Desk(job)  # type: ignore[arg-type]
    back = settings.restore(other, other.page({}))
    assert back.values["dataset"] == str(dataset) and back.values["name"] == "cat"
    assert back.options["network_dim"] == "5" and back.options["learning_rate"] == "3e-05"
    assert set(back.options) == set(OPTIONS)
    fresh = settings.reset(desk, page(desk, name="cat"))
    assert fresh.values["name"] == "" and fresh.options["network_dim"] == PRESETS[0].config().network.network_dim
    assert remembered.recall(job.output) == ({}, {})


def test_an_event_brings_only_what_it_is_about(desk: Desk, job: FakeJob, dataset: Path) -> None:
    images.check(desk, page(desk, dataset=str(dataset)))
    answer = settings.changed(desk, desk.page({"max_train_epochs": "3"}))
    assert "45 in 3 epochs" in answer.html["plan"], "the folder and all other options are known from before"
    values, options = remembered.recall(job.output)
    assert values["dataset"] == str(dataset) and options["max_train_epochs"] == "3"


def test_a_page_that_is_only_looked_at_changes_nothing(desk: Desk, job: FakeJob, dataset: Path) -> None:
    settings.changed(desk, page(desk, name="new"))
    kept = (job.output / remembered.FILE).read_bytes()
    old = Desk(job)  # type: ignore[arg-type]
    assert settings.look(old, old.page({})).html["plan"]
    assert (job.output / remembered.FILE).read_bytes() == kept


def test_settings_that_an_older_version_remembered_come_back(desk: Desk, job: FakeJob) -> None:
    remembered.remember(job.output, {"name": "cat", "existing": "replace it"}, {"network_dim": "5"})
    back = settings.restore(desk, page(desk))
    assert back.values["name"] == "cat" and "existing" not in back.values, "nothing is replaced because it once was"


def test_a_preset_chosen_by_mistake_can_be_undone(desk: Desk, job: FakeJob) -> None:
    settings.restore(desk, desk.page({}))
    mine = {"network_dim": "77", "learning_rate": "oops"}
    settings.changed(desk, desk.page({**mine, "name": "cat"}))
    answer = settings.choose_preset(desk, desk.page({"preset": "style"}))
    assert "your changes to" in answer.html["plan"] and "network_dim" in answer.html["plan"]
    assert 'data-choice="undo"' in answer.html["plan"] and answer.options["network_dim"] != "77"
    back = settings.undo(desk, desk.page({}))
    assert mine.items() <= back.options.items() and back.values == {"preset": "starter"}
    values, options = remembered.recall(job.output)
    assert values["name"] == "cat" and mine.items() <= options.items()
    assert settings.undo(desk, desk.page({})).options == {}, "once"
    settings.choose_preset(desk, desk.page({"preset": "style"}))
    plain = settings.choose_preset(desk, desk.page({"preset": "starter"}))
    assert "data-choice" not in plain.html["plan"], "nothing of the user's own was lost"


def test_resetting_everything_asks_first(desk: Desk, job: FakeJob) -> None:
    settings.changed(desk, page(desk, name="cat"))
    kept = (job.output / remembered.FILE).read_bytes()
    asked = settings.ask_reset(desk, desk.page({}))
    assert set(asked.html) == {"reset_question"} and asked.values == asked.options == {}
    assert re.findall('data-choice="([^"]+)"', asked.html["reset_question"]) == ["reset", "keep"]
    assert (job.output / remembered.FILE).read_bytes() == kept
    assert settings.reset(desk, desk.page({})).html["reset_question"] == ""


def test_damaged_last_settings_are_no_obstacle(desk: Desk, job: FakeJob) -> None:
    for content in ("{", "[]", '{"version": 99}', '{"version": 1, "values": 3, "options": {}}'):
        job.output.mkdir(exist_ok=True)
        (job.output / remembered.FILE).write_text(content)
        assert settings.restore(desk, page(desk)).values["preset"] == "starter"


def test_presets_follow_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {kind: [p.name for p in presets_for(Glance("m", kind))] for kind in ("sd1", "sd2", "sdxl")}  # type: ignore[arg-type]
    assert names["sd1"][0] == "starter" and "person" in names["sd1"] and "sdxl" not in names["sd1"]
    assert names["sd2"] == ["sd2"] and names["sdxl"] == ["sdxl", "sdxl-low-memory"]
    tiny = presets_for(Glance("tiny", "sd1", 64))
    assert tiny[0].name == PRACTICE and tiny[0].config().dataset.resolution == (64, 64)
    monkeypatch.setattr(fitting, "_has_cuda", lambda: False)
    config, notes = fitted(presets_for(SD1)[0], Glance("m", "sd1", 768), {"clip_skip": 1})
    assert config.dataset.resolution == (768, 768) and config.memory.mixed_precision == "no"
    assert config.optimizer.optimizer_type == "AdamW" and config.caption.clip_skip == 1 and len(notes) == 4
    monkeypatch.setattr(fitting, "_has_cuda", lambda: True)
    monkeypatch.setattr(fitting, "_installed", lambda name: True)
    config, notes = fitted(presets_for(SD1)[0], SD1, {"mixed_precision": "bf16"})
    assert config.memory.mixed_precision == "bf16" and config.optimizer.optimizer_type == "AdamW8bit"


@pytest.mark.parametrize(("side", "steps"), [(64, 16), (128, 32), (256, 64), (512, 64), (1024, 64)])
def test_bucket_steps_suit_the_model(tmp_path: Path, side: int, steps: int) -> None:
    """With steps of 64, most photos have no bucket at 64 pixels."""
    config, notes = fitted(presets_for(SD1)[0], Glance("tiny", "sd1", side), {})
    assert config.dataset.bucket_reso_steps == steps
    assert any("bucket_reso_steps" in note for note in notes) is (steps < 64)
    for n, size in enumerate([(800, 600), (600, 800), (1600, 900), (640, 640), (300, 900)]):
        assert min(place(size, config.dataset).bucket) >= steps, (n, size)


def test_the_practice_model_is_said_not_to_learn_photos(desk: Desk, job: FakeJob, dataset: Path) -> None:
    job.host.seen = Glance("tiny-world.safetensors", "sd1", 64)
    small = images.check(desk, page(desk, dataset=str(dataset), options={"bucket_reso_steps": "16"}))
    assert "photos" not in small.html["plan"]
    Image.new("RGB", (900, 640)).save(dataset / "5_zwx cat/photo.png")
    large = images.check(desk, page(desk, dataset=str(dataset), options={"bucket_reso_steps": "16"}))
    assert "tiny-world.safetensors is a practice model" in large.html["plan"]
    assert "can&#x27;t learn photos" in large.html["plan"]


def test_choosing_a_preset_sets_all_options(desk: Desk) -> None:
    answer = settings.choose_preset(desk, page(desk, preset="style", options={"flip_aug": False}))
    assert answer.options["flip_aug"] is True and answer.options["mixed_precision"] == "bf16"
    assert set(answer.options) == set(OPTIONS)
    assert settings.choose_preset(desk, page(desk, preset="no such")).options == {}


def test_another_checkpoint_is_noticed(desk: Desk, job: FakeJob) -> None:
    job.host.seen = Glance("big.safetensors", "sdxl", 1024)
    answer = settings.changed(desk, page(desk, options={"resolution": "512,512"}))
    assert "doesn&#x27;t suit big.safetensors" in answer.html["plan"]
    assert "made for 1024" in answer.html["plan"]
    assert [name for _, name in answer.cards or []] == ["sdxl", "sdxl-low-memory"]
    job.host.seen = Glance("odd.safetensors", refusal="odd.safetensors is an inpainting model.")
    refused = settings.changed(desk, page(desk))
    assert "inpainting" in refused.html["plan"]


def test_settings_files_both_ways(desk: Desk, job: FakeJob, tmp_path: Path) -> None:
    given = page(desk, dataset="/pictures", name="cat", options={"network_dim": "12", "learning_rate": "2e-4"})
    saved = files.save(desk, given, "", "kohya")
    target = job.output / "settings" / "cat.kohya.json"
    assert str(target) in saved.html["json_answer"]
    assert load_config(target).kind == "kohya"
    loaded = files.load(desk, page(desk), str(target))
    assert loaded.options["network_dim"] == 12 and loaded.options["learning_rate"] == 2e-4
    assert loaded.values["dataset"] == "/pictures" and loaded.values["name"] == "cat"
    assert loaded.values["preset"] == CUSTOM and CUSTOM in [name for _, name in loaded.cards or []]
    own = tmp_path / "own.json"
    files.save(desk, given, str(own), "own")
    assert json.loads(own.read_text())["network_dim"] == 12
    for path, sentence in (("", "Which file?"), ("/no/such.json", "can&#x27;t be read")):
        answer = files.load(desk, page(desk), path)
        assert sentence in answer.html["json_answer"] and answer.options == {}
    before = own.read_bytes()
    for kind in ("kohya", "own"):  # the file that was just loaded, for instance
        again = files.save(desk, given, f' "{own}" ', kind)
        assert "exists already" in again.html["json_answer"] and own.read_bytes() == before
    astray = files.save(desk, page(desk, name="../../own"), "", "own")  # a name, not a path
    assert "can&#x27;t have the name" in astray.html["json_answer"] and own.read_bytes() == before
    wrong = files.save(desk, given, str(tmp_path / "x.exe"), "own")
    assert "ends in .json" in wrong.html["json_answer"] and not (tmp_path / "x.exe").exists()


def test_a_dataset_file_and_its_settings_as_toml_both_ways(desk: Desk, job: FakeJob, tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'photos'\n")
    given = page(desk, dataset=str(tmp_path / "data.toml"), name="cat", options={"network_dim": "12"})
    files.save(desk, given, "", "toml")
    target = job.output / "settings" / "cat.toml"
    loaded = load_config(target)
    assert loaded.kind == "sd-scripts" and loaded.config.network.network_dim == 12
    assert loaded.fields == {"dataset_config": str(tmp_path / "data.toml"), "output_name": "cat"}
    answer = files.load(desk, page(desk), str(target))
    assert answer.values["dataset"] == str(tmp_path / "data.toml") and answer.options["network_dim"] == 12
    assert "(--dataset)" in files.load(desk, page(desk), str(tmp_path / "data.toml")).html["json_answer"]
    own = tmp_path / "own.json"
    files.save(desk, given, str(own), "own")
    assert files.load(desk, page(desk), str(own)).values["dataset"] == str(tmp_path / "data.toml")
    described = {"datasets": [{"subsets": [{"image_dir": "photos"}]}]}
    own.write_text(json.dumps({**json.loads(own.read_text()), "dataset_config": described}))
    answer = files.load(desk, page(desk), str(own))
    assert answer.values["dataset"] == str(own), "it is the dataset file itself"
    files.save(desk, page(desk, dataset=str(own)), str(tmp_path / "sd.toml"), "toml")
    assert load_config(tmp_path / "sd.toml").fields["dataset_config"] == str(tmp_path / "sd.dataset.json")
    assert json.loads((tmp_path / "sd.dataset.json").read_text()) == described


def test_time_is_that_of_a_run_like_it(tmp_path: Path) -> None:
    config = RunConfig()
    folder = tmp_path / "earlier"
    folder.mkdir()
    rows = [{"step": step, "seconds": 9.0 if step == 1 else 0.5} for step in range(1, 6)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6, "sec')
    run = {"base_model": {"name": "model.safetensors"}, "config": config.to_dict()}
    (folder / "run.json").write_text(json.dumps(run))
    paces = Paces()
    pace = paces.like(tmp_path, config, "model.safetensors")
    assert pace is not None and (pace.seconds, pace.name) == (0.5, "earlier")
    assert paces.like(tmp_path, config.replace(train_batch_size=2), "model.safetensors") is None
    assert paces.like(tmp_path, config, "other.safetensors") is None
    assert views.time_text(600, pace).startswith("about 5 min") and "earlier" in views.time_text(600, pace)
    assert "first steps" in views.time_text(600, None)


def test_what_the_checkpoint_calls_for_is_set_by_a_click_and_taken_back(desk: Desk, job: FakeJob) -> None:
    job.host.seen = Glance("a.safetensors", "sdxl", 1024, marks=Marks(zero_snr="it says so", names=("ponyMix",)))
    plan = settings.look(desk, page(desk, options={"keep_tokens": "2"})).html["plan"]
    assert "because it says so" in plan and 'data-choice="advice"' in plan
    answer = settings.take_advice(desk, desk.page({}))
    assert answer.options == {"zero_terminal_snr": True, "shuffle_caption": True, "keep_tokens": 2}
    assert 'data-choice="advice"' not in answer.html["plan"] and 'data-choice="undo"' in answer.html["plan"]
    assert desk.page({}).config().loss.zero_terminal_snr
    settings.undo(desk, desk.page({}))
    assert not desk.page({}).config().loss.zero_terminal_snr
    bad = settings.take_advice(desk, desk.page({"learning_rate": "fast"}))
    assert "it must be a number" in bad.html["message"] and not bad.options
