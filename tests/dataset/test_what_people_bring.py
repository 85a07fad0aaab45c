"""Datasets as people have them: other programs' files, odd names, big notes in pictures, wide colour spaces."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from lora_trainer.dataset.batches import ComputedShuffle, batches_per_epoch, plan_epoch
from lora_trainer.dataset.decode import read_image
from lora_trainer.dataset.items import Skipped
from lora_trainer.dataset.layout import parse_name
from lora_trainer.dataset.summary import describe, summary, to_json
from lora_trainer.errors import DatasetError
from lora_trainer.files import write_json

Save = Callable[..., Path]
Scan = Callable[..., object]
TAGS = ", ".join("tag word" for _ in range(60))  # 179 tokens


def notice(data, *words: str) -> str:
    """The one notice that has all these words."""
    found = [text for text in data.notices if all(word in text for word in words)]
    assert len(found) == 1, data.notices
    return found[0]


def test_captions_without_the_folders_words_are_told(save: Save, read: Scan) -> None:
    for n, text in enumerate(("a man in a garden", "Ohwx_Man, smiling", "a man by the sea")):
        save(f"4_ohwx man/{n}.png", caption=text)
    text = notice(read(), "2 of 3 captions don't contain", '"ohwx man"', "0.png, 2.png")
    assert 'set caption_prefix to "ohwx man,"' in text
    assert text in summary(read()).notices
    assert not any("contain" in line for line in read(caption_prefix="ohwx man,").notices)


def test_words_may_stand_in_any_line_that_a_wildcard_picks(save: Save, read: Scan) -> None:
    save("4_zorbo/a.png", caption="a thing\nzorbo")
    assert "its only caption doesn't" in notice(read(), "contain")
    assert read(enable_wildcard=True).notices == ()


def test_a_date_as_repeats_is_doubted(save: Save, read: Scan, root: Path) -> None:
    save("20240115_holiday/a.png", caption="holiday")
    data = read()
    assert data.train_samples == 20240115
    assert "10_holiday" in notice(data, "20240115 times per epoch", "date")
    (root / "20240115_holiday").rename(root / "9999999999_holiday")
    with pytest.raises(DatasetError, match="9999999999 repeats of each image; rename it"):
        read()


def test_an_epoch_of_millions_is_planned_at_once_and_without_memory(save: Save, read: Scan) -> None:
    for n in range(2):
        save(f"20240115_holiday/{n}.png", caption="holiday")
    data = read(flip_aug=True)
    tracemalloc.start()
    started = time.perf_counter()
    plan = plan_epoch(data, 3, 7, 2)
    batch = plan[len(plan) // 2]
    assert time.perf_counter() - started < 1.0
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert len(plan) == batches_per_epoch(data, 3) == 13493410
    assert len(batch) == 3 and batch == plan_epoch(data, 3, 7, 2)[len(plan) // 2]
    assert batch != plan_epoch(data, 3, 8, 2)[len(plan) // 2]
    assert {sample.item for batch in plan[:20] for sample in batch} == {0, 1}
    assert 10 < sum(sample.flip for batch in plan[:20] for sample in batch) < 50


def test_a_computed_order_is_one_pass_too(save: Save, read: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, size in enumerate([(64, 64), (64, 64), (128, 64)]):
        save(f"{3 + n}_x/{n}.png", size, caption="x")
    data = read()
    listed = plan_epoch(data, 2, 0, 1)
    monkeypatch.setattr("lora_trainer.dataset.batches.LISTED", 0)
    computed = plan_epoch(data, 2, 0, 1)
    assert list(computed) != list(listed)
    assert len(computed) == len(listed)
    assert sorted(s for b in computed for s in b) == sorted(s for b in listed for s in b)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64, 1000])
def test_a_computed_shuffle_is_a_permutation(count: int) -> None:
    order = list(ComputedShuffle(count, 5))
    assert sorted(order) == list(range(count))
    assert count < 17 or order != sorted(order)


@pytest.mark.parametrize("place", ["before the pixels", "behind them"])
def test_notes_of_any_size_do_not_keep_a_png_from_training(save: Save, read: Scan, place: str) -> None:
    path = save("1_x/plain.png", caption="x")
    note = zlib.compress(b"y" * 2_000_000)
    data = path.read_bytes()
    at = 33 if place == "before the pixels" else data.index(b"IEND") - 4
    path.write_bytes(data[:at] + chunk(b"zTXt", b"workflow\0\0" + note) + data[at:])
    with pytest.raises(ValueError, match=r"(?i)too large"), Image.open(path) as image:
        image.load()
    assert read().skipped == ()
    assert read_image(path)[0].getpixel((5, 5)) == (9, 99, 199)


def test_large_and_broken_profiles_and_texts_are_left_out(save: Save, read: Scan) -> None:
    picture = Image.new("RGB", (64, 64), (9, 99, 199))
    for name in ("large", "broken", "text"):
        save(f"1_x/{name}.png", caption="x")
    info = PngImagePlugin.PngInfo()
    info.add(b"iTXt", b"note without its zero bytes", after_idat=False)
    root = save("1_x/other.png", caption="x").parent
    picture.save(root / "large.png", icc_profile=b"\0" * (1 << 21))
    picture.save(root / "broken.png", icc_profile=b"no profile")
    picture.save(root / "text.png", pnginfo=info)
    assert read().skipped == ()
    for path in root.glob("*.png"):
        assert read_image(path)[0].getpixel((5, 5)) == (9, 99, 199)


def test_a_torn_png_with_notes_is_still_refused(save: Save, read: Scan) -> None:
    save("1_x/whole.png", caption="x")
    path = save("1_x/torn.png", (300, 300), caption="x")
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "y" * 2_000_000, zip=True)
    Image.effect_noise((300, 300), 90).save(path, pnginfo=info)
    path.write_bytes(path.read_bytes()[:20_000])
    assert [line.path.name for line in read().skipped] == ["torn.png"]


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def wide_profile() -> bytes:
    """An ICC profile with Adobe RGB's primaries and gamma, put together from the specification's layout."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def point(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)) + bytes(2)
    tags = {
        b"wtpt": point(0.9642, 1, 0.8249), b"rXYZ": point(0.60974, 0.31111, 0.01947),
        b"gXYZ": point(0.20528, 0.62567, 0.06087), b"bXYZ": point(0.14919, 0.06322, 0.74457),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"wide\0" + bytes(79), b"cprt": b"text" + bytes(8),
    }  # fmt: skip
    start = 132 + 12 * len(tags)
    table = content = b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    head = bytearray(128)
    head[0:4] = struct.pack(">I", start + len(content))
    head[8:24] = b"\x02\x10\0\0mntrRGB XYZ "
    head[36:40], head[68:80] = b"acsp", number(0.9642) + number(1) + number(0.8249)
    return bytes(head) + struct.pack(">I", len(tags)) + table + content


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_wide_colours_become_srgb(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"wide.{ending}"
    how = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(ending, {})
    Image.new("RGB", (64, 64), (60, 200, 60)).save(path, icc_profile=wide_profile(), **how)
    colour = read_image(path)[0]
    assert colour.mode == "RGB"
    assert np.abs(np.array(colour.getpixel((9, 9))) - (0, 201, 37)).max() <= 3


def test_a_png_whose_notes_are_too_long_keeps_its_colour_profile(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64), (60, 200, 60)).save(path, icc_profile=wide_profile())
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"y" * 2_000_000)) + data[33:])
    assert np.abs(np.array(read_image(path)[0].getpixel((9, 9))) - (0, 201, 37)).max() <= 2


def test_transparent_pictures_are_converted_before_they_are_put_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (64, 64), (60, 200, 60, 255))
    picture.putpixel((0, 0), (60, 200, 60, 0))
    picture.save(tmp_path / "a.png", icc_profile=wide_profile())
    colour, alpha = read_image(tmp_path / "a.png")
    assert colour.getpixel((0, 0)) == (255, 255, 255)
    assert np.abs(np.array(colour.getpixel((9, 9))) - (0, 201, 37)).max() <= 2
    assert alpha is not None and alpha.getextrema() == (0, 255)


@pytest.mark.parametrize("profile", [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"nonsense"])
def test_srgb_under_any_name_and_broken_profiles_change_no_pixel(tmp_path: Path, profile: bytes) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")[0]), noise)


def test_a_profile_for_other_colours_is_left_alone(tmp_path: Path) -> None:
    Image.new("L", (64, 64), 60).save(tmp_path / "grey.png", icc_profile=wide_profile())
    assert read_image(tmp_path / "grey.png")[0].getpixel((0, 0)) == (60, 60, 60)


def test_masks_of_other_trainers_are_no_pictures(save: Save, read: Scan) -> None:
    for name in ("a", "b"):
        save(f"1_x/{name}.png", caption="x")
        save(f"1_x/{name}-masklabel.png", color=(255, 255, 255))
    save("1_x/a-condlabel.jpg")
    save("1_x/lonely-masklabel.png", caption="x")  # nobody's mask: a picture
    data = read()
    assert [item.path.name for item in data.items] == ["a.png", "b.png", "lonely-masklabel.png"]
    assert "switch masked_loss on" in notice(data, "3 masks are not used, nor trained as images")


def test_names_that_differ_in_case_have_captions_of_their_own(save: Save, read: Scan, root: Path) -> None:
    save("1_x/IMG.png", caption="x, red")
    save("1_x/img.png", caption="x, blue")
    if len(list((root / "1_x").iterdir())) < 4:
        pytest.skip("this file system doesn't tell IMG from img")
    save("1_x/Other.png").with_name("OTHER.TXT").write_text("x, green")
    assert {item.path.name: item.captions for item in read().items} == {
        "IMG.png": ("x, red",), "img.png": ("x, blue",), "Other.png": ("x, green",),
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such names")
def test_names_that_are_not_utf8(save: Save, read: Scan, root: Path) -> None:
    save("2_caf/a.png", caption="x")
    folder = os.fsencode(root) + b"/2_caf\xe9"
    (root / "2_caf").rename(os.fsdecode(folder))
    Path(os.fsdecode(folder), os.fsdecode(b"b\xe9.png")).write_bytes(b"")
    Path(os.fsdecode(folder), os.fsdecode(b"c\xe9.pdf")).write_bytes(b"")
    data = read()
    assert data.folders[0].trigger == "café"
    lines = [*data.notices, *map(str, data.skipped), *describe(summary(data)), str(to_json(summary(data)))]
    assert "b\\xe9.png" in str(data.skipped[0])
    for line in lines:
        line.encode("utf-8")
    data.folders[0].name.encode("utf-8")
    str(DatasetError(f"{data.items[0].path} is missing")).encode("utf-8")
    write_json(root / "run.json", {"path": str(data.items[0].path)})
    assert json.loads((root / "run.json").read_text("utf-8"))["path"] == str(data.items[0].path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such names")
def test_a_byte_that_no_encoding_has_is_a_question_mark() -> None:
    assert parse_name(os.fsdecode(b"2_caf\x81\xe9")) == (2, "caf\ufffdé")


def test_names_that_no_file_system_should_have() -> None:
    assert str(Skipped(Path("a\ud800.png"), "is odd.")) == "Skipped a\\ud800.png: it is odd."


@pytest.mark.parametrize(
    ("caption", "length", "words"),
    [
        (f"{TAGS}, zorbo", 75, ("1 caption is longer than 75 tokens (a.png)", "set max_token_length to 225.")),
        (f"zorbo, {TAGS[:400]}", 75, ("1 caption is longer than 75 tokens", "set max_token_length to 150.")),
        (f"zorbo, {TAGS}, {TAGS}", 75, ("set max_token_length to 225 and shorten them",)),
        (f"zorbo, {TAGS}, {TAGS}", 225, ("longer than 225 tokens", "isn't trained; shorten them.")),
    ],
)
def test_captions_that_are_cut_off_are_told(
    save: Save, read: Scan, caption: str, length: int, words: tuple[str, ...]
) -> None:
    save("4_zorbo/a.png", caption=caption)
    save("4_zorbo/b.png", caption="zorbo " + "pneumonoultramicroscopicsilicovolcanoconiosis " * 2)
    notice(read(max_token_length=length), *words)


def test_captions_that_fit_are_not_told(save: Save, read: Scan) -> None:
    save("4_zorbo/a.png", caption=f"zorbo, {TAGS}")
    save("4_zorbo/b.png", caption="zorbo " + "word " * 73)  # 75 tokens in all
    assert not any("b.png" in line or "longer" in line for line in read(max_token_length=225).notices)
    assert "(a.png)" in notice(read(), "longer")


def test_steps_too_coarse_for_the_resolution_are_named(save: Save, read: Scan) -> None:
    save("1_x/square.png", caption="x")
    save("1_x/wide.png", (640, 480), caption="x")
    [skipped] = read(resolution="64,64").skipped
    assert "set bucket_reso_steps to 16" in str(skipped) and "0x0" not in str(skipped)
    assert read(resolution="64,64", bucket_reso_steps=16).skipped == ()
