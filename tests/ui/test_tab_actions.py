"""What the tab's buttons do, without a browser and without gradio: checks, copies, presets, settings, the plan."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer import fitting
from lora_trainer.config import OPTIONS, RunConfig
from lora_trainer.config.presets import PRESETS
from lora_trainer.dataset.buckets import place
from lora_trainer.errors import DatasetError, HostBusyError, NameTakenError
from lora_trainer.fitting import PRACTICE, fitted, presets_for
from lora_trainer.hosts.base import Glance
from lora_trainer.kohya import load_config
from lora_trainer.ui import remembered, views
from lora_trainer.ui.actions import files, images, practice, settings, start
from lora_trainer.ui.copies import copy_photos
from lora_trainer.ui.desk import Desk
from lora_trainer.ui.estimate import Paces
from lora_trainer.ui.forms import CUSTOM, Page

SD1 = Glance("model.safetensors")


class FakeHost:
    """Tells what is loaded."""

    def __init__(self) -> None:
        self.seen: Glance | None = SD1
        self.models: Path | None = None
        self.refreshed = 0

    def glance(self) -> Glance | None:
        return self.seen

    def defaults(self) -> dict[str, Any]:
        return {"mixed_precision": "bf16"}

    def checkpoint_dir(self) -> Path | None:
        return self.models

    def refresh_checkpoints(self) -> None:
        self.refreshed += 1


class FakeJob:
    """Notes what it is asked to start."""

    def __init__(self, output: Path) -> None:
        self.output, self.host = output, FakeHost()
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def start(self, values: dict[str, Any]) -> str:
        if self.error:
            raise self.error
        RunConfig.from_dict(values["config"])
        self.asked.append(values)
        return "task(1)"

    def test(self, values: dict[str, Any]) -> str:
        self.asked.append(values)
        return "task(2)"


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    return FakeJob(tmp_path / "output")


@pytest.fixture
def desk(job: FakeJob) -> Desk:
    return Desk(job)  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Loose photos: two with the same stem, one with a caption, and a note that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.png", "a.jpg", "b.png")):
        Image.new("RGB", (80, 64), (80 * number, 10, 200)).save(folder / name)
    (folder / "b.txt").write_text("a cat on a mat")
    (folder / "notes.md").write_text("no caption")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "set" / "5_zwx cat"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 10, 200)).save(folder / f"{number}.png")
    (folder / "0.txt").write_text("zwx cat, on a mat")
    (folder / "1.txt").write_text("a dog")
    (folder / "broken.png").write_bytes(b"this is no picture")
    return folder.parent


def page(desk: Desk, **values: Any) -> Page:
    """The page after an event that sent some values and options."""
    options = dict(values.pop("options", {}))
    begin = {"dataset": "", "trigger": "", "preset": "starter", "name": "", "test": True}
    return desk.page({**begin, "repeats": "10", **values, "resolution": "64,64", **options})


def test_check_counts_skips_and_suggests(desk: Desk, dataset: Path) -> None:
    answer = images.check(desk, page(desk, dataset=f'"{dataset}"'))
    suggested = '{"trigger": "zwx cat", "name": "zwx_cat"}'
    assert f'data-suggested="{escape(suggested)}"' in answer.html["check_answer"]
    assert answer.values == {}, "the page takes suggestions where nothing was typed: only it knows in time"
    assert 'data-images="3"' in answer.html["check_answer"]
    assert "broken.png" in answer.html["check_answer"] and "Skipped" in answer.html["check_answer"]
    assert "1 of 3 images have no caption" in answer.html["check_answer"]
    assert "1 of 2 captions don&#x27;t contain the folder&#x27;s words" in answer.html["check_answer"]
    assert "1 of 3 captions don&#x27;t contain the trigger word" not in answer.html["check_answer"], "said twice"
    other = images.check(desk, page(desk, dataset=str(dataset), trigger="mat"))
    assert "2 of 3 captions don&#x27;t contain the trigger word “mat”" in other.html["check_answer"]
    assert answer.html["check_answer"].count("data:image/jpeg;base64") == 3
    assert "150 in 10 epochs" in answer.html["plan"]


def test_check_leaves_what_the_user_wrote(desk: Desk, dataset: Path) -> None:
    answer = images.check(desk, page(desk, dataset=str(dataset), trigger="mine", name="my-name"))
    assert answer.values == {} and "“mine”" in answer.html["check_answer"]


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [("", "Which images?"), ("/no/such/<folder>", "doesn&#x27;t exist"), ("photos", "holds images, but its name")],
)
def test_check_of_what_is_no_dataset(desk: Desk, photos: Path, folder: str, sentence: str) -> None:
    answer = images.check(desk, page(desk, dataset=str(photos) if folder == "photos" else folder))
    assert "lt-problem" in answer.html["check_answer"] and sentence in answer.html["check_answer"]
    assert "<folder>" not in answer.html["check_answer"]
    assert ("open “I just have photos”" in answer.html["check_answer"]) is (folder == "photos")


def test_loose_photos_are_copied_and_stay_as_they_were(desk: Desk, job: FakeJob, photos: Path) -> None:
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    answer = images.copy(desk, page(desk, dataset=str(photos), trigger="zwx", repeats="7"), [])
    folder = job.output / "datasets" / "zwx"
    assert answer.values["dataset"] == str(folder)
    made = {path.name: path for path in (folder / "7_zwx").iterdir()}
    assert sorted(made) == ["a-2.png", "a-2.txt", "a.jpg", "a.txt", "b.png", "b.txt"]
    assert made["b.txt"].read_text() == "a cat on a mat" and made["a.txt"].read_text() == "zwx"
    assert made["b.png"].read_bytes() == before["b.png"]
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before
    assert "3 photos were copied" in answer.html["check_answer"] and "untouched" in answer.html["check_answer"]
    second = images.copy(desk, page(desk, dataset=str(photos), trigger="zwx"), [])
    assert second.values["dataset"] == f"{folder}-2", "a folder that exists is never added to"


def test_dropped_files_are_copied(tmp_path: Path, photos: Path) -> None:
    made = copy_photos([photos / "b.png", photos / "b.txt"], tmp_path / "sets", " my  cat ", 3)
    assert (made.folder.name, made.pictures, made.described) == ("my cat", 1, 1)
    assert sorted(path.name for path in (made.folder / "3_my cat").iterdir()) == ["b.png", "b.txt"]


def test_photos_that_cannot_be_opened_are_named(desk: Desk, photos: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("lora_trainer.dataset.layout.image_endings", lambda: frozenset({".png", ".jpg"}))
    for name in ("IMG_1.HEIC", "IMG_2.avif"):
        (photos / name).write_bytes(b"a photo")
    (photos / "b-masklabel.png").write_bytes((photos / "b.png").read_bytes())
    answer = images.copy(desk, page(desk, dataset=str(photos), trigger="zwx"), [])
    assert "3 photos were copied" in answer.html["check_answer"]
    for name, ending in (("IMG_1.HEIC", "heic"), ("IMG_2.avif", "avif")):
        assert f"Not copied: {name} is a .{ending} file" in answer.html["check_answer"]
    assert answer.html["check_answer"].count("convert it to PNG or JPEG") == 2
    with pytest.raises(DatasetError, match=r"can be copied: IMG_1.HEIC is a .heic file.*convert it"):
        copy_photos([photos / "IMG_1.HEIC"], photos / "sets", "zwx", 1)


def test_the_trigger_alone_is_no_caption(desk: Desk, photos: Path) -> None:
    (photos / "a.txt").write_text("ZWX\n")
    answer = images.copy(desk, page(desk, dataset=str(photos), trigger="zwx", options={"bucket_reso_steps": "8"}), [])
    assert "1 had a caption, the others got" in answer.html["check_answer"]
    assert "<b>1</b><span>with a caption</span>" in answer.html["check_answer"]
    assert "2 of 3 captions are only the folder&#x27;s words" in answer.html["check_answer"]


def test_a_file_that_has_not_arrived_is_not_copied(desk: Desk, job: FakeJob, photos: Path) -> None:
    (photos / "late.txt").touch()
    answer = images.copy(desk, page(desk, trigger="zwx"), [str(photos / "b.png"), str(photos / "late.txt")])
    assert "late.txt is empty" in answer.html["check_answer"]
    assert not (job.output / "datasets").exists()


@pytest.mark.parametrize(
    ("trigger", "repeats", "sentence"),
    [("", 10, "trigger word is missing"), ("a/b", 10, "/ can't be used"), ("..", 10, "begins or ends with"),
     ("con", 10, "Windows reserves"), ("x" * 230, 10, "too long"),
     ("x", 0, "Repeats"), ("x", "many", "Repeats"), ("x", "", "Repeats")],
)  # fmt: skip
def test_copies_that_are_refused(tmp_path: Path, photos: Path, trigger: str, repeats: object, sentence: str) -> None:
    with pytest.raises(DatasetError, match=sentence):
        copy_photos([photos], tmp_path / "sets", trigger, repeats)
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize(
    ("choices", "flags"),
    [((), (False, False)), (("resume",), (True, False)), (("overwrite",), (False, True)),
     (("resume", "overwrite"), (True, True))],
)  # fmt: skip
def test_start_sends_every_option_and_the_choice(
    desk: Desk, job: FakeJob, dataset: Path, choices: tuple[str, ...], flags: tuple[bool, bool]
) -> None:
    answer = start.start(
        desk, page(desk, dataset=str(dataset), name=" cat ", trigger="zwx", options={"network_dim": "4"}), *choices
    )
    assert answer.html["message"] == ""
    asked = job.asked[-1]
    assert (asked["name"], asked["dataset"], asked["trigger"], asked["test"]) == ("cat", str(dataset), "zwx", True)
    assert (asked["resume"], asked["overwrite"]) == flags
    assert asked["config"]["network_dim"] == 4 and set(asked["config"]) == {"version", *OPTIONS}


def test_what_is_there_already_is_asked_about(desk: Desk, job: FakeJob, dataset: Path) -> None:
    job.error = NameTakenError("A run named cat ended after step 5 of 9.", ("resume", "overwrite"))
    seen = page(desk, dataset=str(dataset), name="cat", options={"network_dim": "7"})
    first = start.start(desk, seen)
    assert "ended after step 5 of 9" in first.html["message"] and first.values == first.options == {}
    assert re.findall('data-choice="([^"]+)"', first.html["message"]) == ["resume", "overwrite", "name"]
    assert start.start(desk, seen).html["message"] != first.html["message"], "asked again, it shows again"
    job.error = None
    assert start.start(desk, seen, "resume").html["message"] == "" and job.asked[-1]["resume"]


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


def test_a_busy_job_is_told(desk: Desk, job: FakeJob) -> None:
    job.error = HostBusyError("first is being worked on.")
    answer = start.start(desk, page(desk, dataset="/d", name="x"))
    assert "first is being worked on." in answer.html["message"]


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
    saved = files.save(desk, given, "", kohya=True)
    target = job.output / "settings" / "cat.kohya.json"
    assert str(target) in saved.html["json_answer"]
    assert load_config(target).kind == "kohya"
    loaded = files.load(desk, page(desk), str(target))
    assert loaded.options["network_dim"] == 12 and loaded.options["learning_rate"] == 2e-4
    assert loaded.values["dataset"] == "/pictures" and loaded.values["name"] == "cat"
    assert loaded.values["preset"] == CUSTOM and CUSTOM in [name for _, name in loaded.cards or []]
    own = tmp_path / "own.json"
    files.save(desk, given, str(own), kohya=False)
    assert json.loads(own.read_text())["network_dim"] == 12
    for path, sentence in (("", "Which file?"), ("/no/such.json", "can&#x27;t be read")):
        answer = files.load(desk, page(desk), path)
        assert sentence in answer.html["json_answer"] and answer.options == {}
    wrong = files.save(desk, given, str(tmp_path / "x.exe"), kohya=False)
    assert "ends in .json" in wrong.html["json_answer"] and not (tmp_path / "x.exe").exists()


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


def test_the_practice_project_is_installed_and_filled_in(desk: Desk, job: FakeJob, tmp_path: Path) -> None:
    job.host.models = tmp_path / "models"
    answer = practice.install(desk, page(desk))
    dataset = job.output / "datasets" / "practice"
    assert answer.values == {"dataset": str(dataset), "trigger": "zorbo"} and job.host.refreshed == 1
    assert (
        "tiny-world.safetensors" in answer.html["practice_answer"]
        and "lt-problem" not in answer.html["practice_answer"]
    )
    assert len(list((dataset / "10_zorbo").glob("*.png"))) == 18
    assert sorted(path.name for path in job.host.models.iterdir()) == ["tiny-world.safetensors", "tiny-world.yaml"]
    assert images.check(desk, page(desk, dataset=str(dataset), options={"bucket_reso_steps": "16"})).html[
        "check_answer"
    ]
    caption = dataset / "10_zorbo" / "01.txt"
    caption.write_text("mine")
    before = {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and "json" not in path.name
    }
    assert practice.install(desk, page(desk)).values["dataset"] == str(dataset)
    assert {path: path.stat().st_mtime_ns for path in before} == before and caption.read_text() == "mine"


@pytest.mark.parametrize("name", ["tiny-world.safetensors", "tiny-world.yaml"])
def test_the_practice_project_replaces_nothing(desk: Desk, job: FakeJob, tmp_path: Path, name: str) -> None:
    job.host.models = tmp_path
    (tmp_path / name).write_bytes(b"somebody's own")
    answer = practice.install(desk, page(desk))
    assert f"{name} already exists with other contents" in answer.html["practice_answer"] and not answer.values
    assert (tmp_path / name).read_bytes() == b"somebody's own" and job.host.refreshed == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tiny")] == [name]


def test_a_config_of_an_extension_that_was_moved_is_renewed(desk: Desk, job: FakeJob, tmp_path: Path) -> None:
    job.host.models = tmp_path
    practice.install(desk, page(desk))
    config = tmp_path / "tiny-world.yaml"
    right = config.read_text()
    config.write_text(re.sub(r"version: .*clip[^}\n]*", 'version: "/old/place/clip"', right))
    assert config.read_text() != right
    practice.install(desk, page(desk))
    assert config.read_text() == right


def test_without_a_webui_there_is_nothing_to_install_in(desk: Desk) -> None:
    assert "no WebUI" in practice.install(desk, page(desk)).html["practice_answer"]
