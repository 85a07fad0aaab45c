"""sd-scripts' dataset files: what they say arrives at every image, and mistakes in them are one sentence."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lora_trainer.cli import main
from lora_trainer.config import RunConfig
from lora_trainer.dataset.batches import batches_per_epoch, plan_epoch
from lora_trainer.dataset.caption_sheet import CaptionSheet
from lora_trainer.dataset.checks.check import check
from lora_trainer.dataset.dataset_file import (
    DATASET_OPTIONS,
    NO_EFFECT,
    OWN,
    REFUSED,
    SUBSET_OPTIONS,
    tables_of,
    write_dataset_file,
)
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.items import Dataset
from lora_trainer.errors import LoraTrainerError
from tests.dataset.conftest import Save, Scan

TOML = """\
# two resolutions of the same photos
[general]
shuffle_caption = true
keep_tokens = 1
caption_extension = ".txt"
enable_bucket = true
bucket_reso_steps = 16

[[datasets]]
resolution = 64
batch_size = 2
keep_tokens = 2

  [[datasets.subsets]]
  image_dir = "photos"
  class_tokens = "zork man"
  num_repeats = 3
  flip_aug = true

  [[datasets.subsets]]
  image_dir = '.\\reg'
  is_reg = true
  class_tokens = "man"
  shuffle_caption = false

[[datasets]]
resolution = [128, 96]
bucket_no_upscale = false
max_bucket_reso = 128
min_bucket_reso = 64

  [[datasets.subsets]]
  image_dir = "photos"
  keep_tokens = 3
  caption_prefix = "a photo of"
"""


@pytest.fixture
def file(root: Path, save: Save) -> Path:
    for index in range(4):
        save(f"photos/{index}.png", (128, 96), caption=f"zork, tag{index}, red, blue")
    save("reg/a.png", (64, 64))
    path = root / "data.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def read(path: Path, **options: object) -> Dataset:
    config = RunConfig().replace(**options)
    return scan(path, config.dataset, config.caption)


def test_a_setting_is_the_subsets_or_its_datasets_or_the_general_one_or_the_runs(file: Path) -> None:
    photos, reg, large = read(file, color_aug=False, caption_suffix="end", min_bucket_reso=64).folders
    assert [folder.repeats for folder in (photos, reg, large)] == [3, 1, 1]
    assert [folder.number for folder in (photos, reg, large)] == [1, 1, 2]
    assert [folder.caption.keep_tokens for folder in (photos, reg, large)] == [2, 2, 3]
    assert [folder.caption.shuffle_caption for folder in (photos, reg, large)] == [True, False, True]
    assert [folder.config.train_batch_size for folder in (photos, reg, large)] == [2, 2, 1]
    assert [folder.config.resolution for folder in (photos, reg, large)] == [(64, 64), (64, 64), (128, 96)]
    assert [folder.config.flip_aug for folder in (photos, reg, large)] == [True, False, False]
    assert [(folder.trigger, folder.is_reg) for folder in (photos, reg, large)] == [
        ("zork man", False), ("man", True), ("", False),
    ]  # fmt: skip
    assert {folder.caption.caption_suffix for folder in (photos, reg, large)} == {"end"}
    assert (large.caption.caption_prefix, photos.caption.caption_prefix) == ("a photo of", "")


def test_every_dataset_has_its_size_its_batches_and_its_regularisation(file: Path) -> None:
    found = read(file)
    assert Counter((item.folder.number, item.bucket) for item in found.items) == {
        (1, (64, 48)): 4, (1, (64, 64)): 1, (2, (128, 96)): 4,
    }  # fmt: skip
    assert found.train_samples == 4 * 3 + 4 and found.reg_samples == 4 * 3, "matched within the first dataset"
    plan = plan_epoch(found, 1, 7, 1)
    sizes = Counter((found.items[batch[0].item].folder.number, len(batch)) for batch in plan)
    assert sizes == {(1, 2): 6 + 6, (2, 1): 4} and len(plan) == batches_per_epoch(found, 1) == 16
    for batch in plan:
        assert len({(found.items[one.item].folder.number, found.items[one.item].bucket) for one in batch}) == 1
    mirrored = {found.items[one.item].folder for batch in plan for one in batch if one.flip}
    assert mirrored == {found.folders[0]}
    assert len(plan_epoch(found, 2, 7, 1)) == 3 + 3 + 2


def test_what_a_file_says_is_told_in_a_line_a_subset(file: Path) -> None:
    config = RunConfig()
    checked = check(file, config.dataset, config.caption)
    lines = checked.lines()
    assert any(line.endswith("data.toml: 4 images, 16 samples per epoch") for line in lines)
    assert '  photos: 4 images x 3, trigger word "zork man", 64x64 px, batches of 2 images, half of the images ' \
        "mirrored, tags shuffled, tags kept in place: 2" in lines  # fmt: skip
    large = next(line for line in lines if "128x96 px, batches of 1 image," in line)
    assert "captions begin with “a photo of”" in large
    assert not any("same image" in line or "4 pairs" in line for line in lines), "one file twice isn't a duplicate"
    assert [one.kind for one in checked.findings].count("number") == 1


@pytest.mark.parametrize("ending", [".toml", ".json"])
def test_what_is_read_can_be_written_and_read_again(file: Path, ending: str) -> None:
    found = read(file)
    again = file.with_name(f"again{ending}")
    write_dataset_file(again, found.folders)
    assert read(again).folders == found.folders
    # What the file says outright is kept where it is the usual value, too: a run's own setting doesn't take its place.
    assert read(again, shuffle_caption=True, keep_tokens=7).folders == read(file, shuffle_caption=True).folders


def test_subsets_that_are_resized_in_different_ways_stay_one_dataset(file: Path) -> None:
    written = tables_of(read(file).folders)["datasets"]
    assert not any("resize_interpolation" in table for table in written), "sd-scripts refuses an empty one"
    file.write_text(TOML.replace("  flip_aug = true\n", '  resize_interpolation = "box"\n'), encoding="utf-8")
    found = read(file)
    again = file.with_name("again.toml")
    write_dataset_file(again, found.folders)
    assert read(again).folders == found.folders and read(again).items == found.items
    assert any(item.is_reg for item in found.items), "apart from the photos, they would match none"


def test_class_tokens_may_stand_above_as_in_sd_scripts(file: Path) -> None:
    text = TOML.replace("[general]", '[general]\nclass_tokens = "thing"').replace(
        "[128, 96]", '64\nclass_tokens = "cube"'
    )
    file.write_text(text, encoding="utf-8")
    assert [folder.trigger for folder in read(file).folders] == ["zork man", "man", "cube"]
    file.write_text(text.replace('class_tokens = "cube"\n', ""), encoding="utf-8")
    assert [folder.trigger for folder in read(file).folders] == ["zork man", "man", "thing"]


def test_a_file_with_regularisation_images_only_is_told_so(file: Path) -> None:
    file.write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "reg"\nis_reg = true\n', encoding="utf-8")
    with pytest.raises(LoraTrainerError, match=r"data\.toml names no images to train on; .* without is_reg"):
        read(file)
    file.write_text(TOML, encoding="utf-8")
    (file.parent / "reg/a.png").unlink()
    with pytest.raises(LoraTrainerError, match=r"data\.toml has no regularisation images; .* folder with is_reg"):
        read(file)


def test_folders_become_a_dataset_file(root: Path, save: Save, read: Scan, capsys: pytest.CaptureFixture[str]) -> None:
    save("4_zork man/a.png", caption='zork "quoted" \\ ü')
    target = root.parent / "out.toml"
    assert main(["config", "convert", str(root), str(target)]) == 0
    assert "--dataset_config" in capsys.readouterr().out
    plain, written = read(), scan(target, RunConfig().dataset, RunConfig().caption)
    assert [(item.path, item.repeats, item.captions, item.placement) for item in written.items] == [
        (item.path, item.repeats, item.captions, item.placement) for item in plain.items
    ]
    assert written.folders[0].trigger == "zork man" and tables_of(written.folders) == tables_of([written.folders[0]])
    as_json = root.parent / "out.json"
    assert main(["config", "convert", str(target), str(as_json)]) == 0
    assert json.loads(as_json.read_text())["datasets"][0]["subsets"][0]["class_tokens"] == "zork man"


def test_images_of_two_datasets_are_held_out_of_both(root: Path, save: Save) -> None:
    for index in range(12):
        save(f"photos/{index}.png", (64, 64), caption="zork")
    path = root / "data.json"
    subsets = [{"image_dir": str(root / "photos")}]
    sizes = [{"resolution": side, "subsets": subsets, "bucket_reso_steps": 16} for side in (64, 128)]
    path.write_text(json.dumps({"general": {"validation_split": 0.25, "validation_seed": 3}, "datasets": sizes}))
    found = read(path)
    held = {item.path for item in found.held_out}
    assert len(held) == 3 and len(found.held_out) == 6 and not held & {item.path for item in found.items}
    assert any("3 images of 12 held out" in notice for notice in found.notices)


def test_masks_that_sd_scripts_wont_take_are_told(file: Path, root: Path, save: Save) -> None:
    save("masks/0.png", (128, 96))
    subset = "  flip_aug = true\n"
    masked = f'{subset}  conditioning_data_dir = "masks"\n'
    file.write_text(TOML.replace(subset, masked), encoding="utf-8")
    told = write_dataset_file(root / "again.toml", read(file).folders)
    assert len(told) == 2 and "dataset 1, in which only some subsets have masks" in told[0]
    assert "won't take class_tokens in dataset 1, because it has masks" in told[1]
    alone = TOML[TOML.index("[[datasets]]\nresolution = [") :].replace("  keep_tokens = 3\n", masked)
    file.write_text(alone, encoding="utf-8")
    assert write_dataset_file(root / "again.toml", read(file).folders) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("keep_tokens = 3", "keep_token = 3", r"line 34: Unknown option 'keep_token'; did you mean keep_tokens"),
        ("keep_tokens = 3", 'keep_tokens = "x"', r"line 34: keep_tokens can't be 'x'; it must be a whole number"),
        ("num_repeats = 3", "num_repeats = 0", r"line 17: num_repeats can't be 0; the smallest value is 1"),
        ("image_dir = '.\\reg'", 'image_dir = "nowhere"', r"names a folder that isn't there: .*nowhere \(line 21\)"),
        ("image_dir = '.\\reg'", "", r"line 20: a subset needs image_dir"),
        ("batch_size = 2", "batch_size = = 2", r"no valid TOML: .*line 11"),
        ("is_reg = true", "zzz = true", r"line 22: 'zzz' is no setting of a dataset file; docs/kohya.md"),
        ("resolution = 64", "resolution = 64\nimage_dir = 'x'", r"line 11: image_dir belongs into .*subsets"),
        ("min_bucket_reso = 64", "min_bucket_reso = 256", r"line 32: min_bucket_reso \(256\) is above max_bucket_reso"),
        ("is_reg = true", "face_crop_aug_range = [1.0, 3.0]", r"line 22: .*crop the faces beforehand"),
        ("keep_tokens = 3", '"keep_tokens" = "x"', r"line 34: keep_tokens can't be 'x'"),
        (
            "[[datasets]]\nresolution = 64\nbatch_size = 2",
            '[["datasets"]]\nresolution = 64\nbatch_size = 0',
            r"line 11: batch_size can't be 0",
        ),
        (
            TOML[TOML.index("[general]") : TOML.index("[[datasets]]")],
            "general.shuffle_caption = 'x'\n",
            r"line 2: shuffle_caption can't be 'x'",
        ),
        ("[[datasets]]", "[[dataset]]", r"no dataset file: it has no \[\[datasets\]\]"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(file: Path, old: str, new: str, words: str) -> None:
    file.write_text(TOML.replace(old, new), encoding="utf-8")
    with pytest.raises(LoraTrainerError, match=rf"data\.toml.*{words}") as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_what_is_given_twice_or_has_no_say_is_told(file: Path) -> None:
    file.write_text(f'{TOML}\n[[datasets.subsets]]\nimage_dir = "photos"\nnum_repeats = 9\n', encoding="utf-8")
    found = read(file, reg_data_dir="elsewhere")
    assert len(found.folders) == 3 and found.folders[2].repeats == 1
    assert sum("same image_dir" in line or "reg_data_dir isn't used" in line for line in found.notices) == 2


def test_the_documentation_names_every_setting() -> None:
    text = (Path(__file__).parents[2] / "docs/kohya.md").read_text(encoding="utf-8")
    section = text.partition("## Dataset files")[2].partition("\n## ")[0]
    for name in (*DATASET_OPTIONS, *SUBSET_OPTIONS, *OWN, *NO_EFFECT, *REFUSED):
        assert f"`{name}`" in section, name


def test_captions_of_a_dataset_file_can_be_edited(file: Path, root: Path, save: Save, tmp_path: Path) -> None:
    save("more/photos/0.png", caption="other")
    file.write_text(f'{TOML}\n[[datasets.subsets]]\nimage_dir = "more/photos"\n', encoding="utf-8")
    sheet = CaptionSheet(file, RunConfig().caption, tmp_path / "output")
    rows = {row.id: row.text for row in sheet.rows()}
    assert len(rows) == 5 and rows["photos (2)/0.png"] == "other" and rows["photos (1)/0.png"].startswith("zork, tag0")
    sheet.set("photos (2)/0.png", "new words", "other")
    assert (root / "more/photos/0.txt").read_text() == "new words"
    assert [row.text for row in sheet.undo()] == ["other"] == [(root / "more/photos/0.txt").read_text()]
