"""Reading folders: layout, captions, regularisation, and a line for everything that isn't used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.dataset.layout import parse_name
from lora_trainer.errors import DatasetError

Save = Callable[..., Path]
Scan = Callable[..., object]


def notice(data, *words: str) -> str:
    """The one notice that has all these words."""
    found = [text for text in data.notices if all(word in text for word in words)]
    assert len(found) == 1, data.notices
    return found[0]


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("10_ohwx man", (10, "ohwx man")),
        ("1_a_b_c", (1, "a_b_c")),
        ("005_x", (5, "x")),
        ("10_", (10, "")),
        ("10", (10, "")),
        ("3 _word", (3, "word")),
        (" 3_ word ", (3, "word")),
        ("3x_word", None),
        ("1_caf\udce9", (1, "café")),
        ("photos", None),
        ("_x", None),
        ("-1_x", None),
        ("1.5_x", None),
    ],
)
def test_folder_names(name: str, parsed: object) -> None:
    assert parse_name(name) == parsed


def test_layout(save: Save, read: Scan) -> None:
    save("10_ohwx dog/b.png", (600, 400), "ohwx dog, sitting")
    save("10_ohwx dog/a.JPG", (512, 512), "ohwx dog, running")
    save("2_mug/c.webp", (300, 200), "mug")
    data = read()
    assert [(item.path.name, item.repeats, item.trigger, item.captions) for item in data.items] == [
        ("a.JPG", 10, "ohwx dog", ("ohwx dog, running",)),
        ("b.png", 10, "ohwx dog", ("ohwx dog, sitting",)),
        ("c.webp", 2, "mug", ("mug",)),
    ]
    assert [item.size for item in data.items] == [(512, 512), (600, 400), (300, 200)]
    assert [item.bucket for item in data.items] == [(512, 512), (576, 384), (256, 192)]
    assert data.train_samples == 22
    assert (data.skipped, data.notices) == ((), ())


def test_missing_folder_and_images_without_a_repeats_folder(save: Save, read: Scan, root: Path) -> None:
    save("a.png", caption="x")
    with pytest.raises(DatasetError, match=r"rename it.* for instance 10_dataset, or move"):
        read()
    root.rename(root.parent / "elsewhere")
    with pytest.raises(DatasetError, match=r"dataset doesn't exist"):
        read()


def test_a_repeats_folder_as_dataset(tmp_path: Path) -> None:
    from PIL import Image

    from lora_trainer.config import CaptionConfig, DatasetConfig
    from lora_trainer.dataset.folders import scan

    folder = tmp_path / "7_ohwx"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    data = scan(folder, DatasetConfig(), CaptionConfig())
    assert [(item.repeats, item.captions) for item in data.items] == [(7, ("ohwx",))]
    assert "is itself" in data.notices[0]
    (tmp_path / "link").symlink_to(folder)
    (item,) = scan(tmp_path / "link", DatasetConfig(), CaptionConfig()).items
    assert item.path.relative_to(item.folder.path) == Path("a.png"), "a run's state names images so"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds no images; put them into a sub-folder named <repeats>_<trigger>"),
        (["photos/a.png"], "rename photos, for instance to 10_photos"),
        (["0_cat/a.png"], "rename 0_cat, for instance to 10_cat"),
        (["img/10_cat/a.png", "log/x.txt"], "img does; give .*img as the dataset"),
        (["10_cat/note.txt"], "holds no images"),
    ],
)
def test_nothing_to_train_on(save: Save, read: Scan, root: Path, files: list[str], words: str) -> None:
    for name in files:
        if name.endswith(".png"):
            save(name)
        else:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text("x")
    with pytest.raises(DatasetError, match=words) as raised:
        read()
    assert str(root) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_is_no_folder(save: Save, read: Scan, root: Path) -> None:
    from lora_trainer.config import CaptionConfig, DatasetConfig
    from lora_trainer.dataset.folders import scan

    with pytest.raises(DatasetError, match=r"a\.png is a file"):
        scan(save("1_a/a.png"), DatasetConfig(), CaptionConfig())


def test_what_is_ignored_is_told(save: Save, read: Scan, root: Path) -> None:
    save("1_a/a.png", caption="a, x")
    save("loose.png")
    save("photos/b.png")
    save("photos/c.png")
    save("0_never/d.png")
    save("1_a/inner/e.png")
    save(".hidden/f.png")
    (root / "1_a/old.txt").write_text("caption of a deleted image")
    (root / "1_a/notes.pdf").write_bytes(b"x")
    (root / "1_a/a.npz").write_bytes(b"x")
    (root / "1_a/Thumbs.db").write_bytes(b"x")
    data = read()
    assert [item.path.name for item in data.items] == ["a.png"]
    assert "move them into a <repeats>_<trigger> folder" in notice(data, "directly in")
    assert "photos with 2 images" in notice(data, "repeats", "10_photos")
    assert "0 repeats" in notice(data, "0_never")
    assert "inner" in notice(data, "sub-folders")
    assert "old.txt" in notice(data, "no image has that name")
    assert "(.pdf)" in notice(data, "neither image nor caption")
    assert len(data.notices) == 6


def test_unusable_images_are_skipped_with_a_line_each(save: Save, read: Scan, root: Path) -> None:
    save("1_a/good.png", caption="x")
    save("1_a/one.png", (1, 1), "x")
    save("1_a/small.png", (63, 400), "x")
    save("1_a/noise.bmp").write_bytes(os.urandom(500))
    save("1_a/empty.png").write_bytes(b"")
    for name in ("cut.png", "cut.jpg", "cut.webp", "cut.gif", "cut.tif"):
        from PIL import Image

        path = root / "1_a" / name
        Image.effect_noise((200, 200), 90).convert("RGB").save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
    (root / "1_a/camera.cr2").write_bytes(b"x")
    (root / "1_a/folder.png").mkdir()
    data = read()
    assert [item.path.name for item in data.items] == ["good.png"]
    lines = {skipped.path.name: str(skipped) for skipped in data.skipped}
    assert set(lines) == {
        "one.png", "small.png", "noise.bmp", "empty.png", "cut.png", "cut.jpg", "cut.webp", "cut.gif", "cut.tif",
        "camera.cr2",
    }  # fmt: skip
    assert "1x1 px" in lines["one.png"]
    assert "bucket_no_upscale" in lines["small.png"]
    assert "no format that Pillow knows" in lines["noise.bmp"]
    assert "empty file" in lines["empty.png"]
    assert "convert it to PNG or JPEG" in lines["camera.cr2"]
    for name, line in lines.items():
        assert str(root / "1_a" / name) in line
        assert "\n" not in line and ";" in line  # one line, with the remedy


def test_truncated_images_are_found_even_if_pillow_was_told_to_accept_them(
    save: Save, read: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image, ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    save("1_a/good.png", caption="x")
    path = save("1_a/cut.jpg")
    Image.effect_noise((200, 200), 90).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    data = read()
    assert [skipped.path.name for skipped in data.skipped] == ["cut.jpg"]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # the host's setting is as it was


def test_all_images_unusable(save: Save, read: Scan) -> None:
    save("1_a/one.png", (1, 1))
    save("1_a/two.png", (1, 1))
    with pytest.raises(DatasetError, match=r"2 skipped.*one\.png is only 1x1 px"):
        read()


def test_a_repaired_image_is_read_by_the_next_scan(save: Save, read: Scan) -> None:
    save("1_a/good.png", caption="x")
    path = save("1_a/bad.png", caption="x")
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    assert len(read().items) == 1
    path.write_bytes(whole)
    assert len(read().items) == 2


def test_content_hash(save: Save, read: Scan) -> None:
    path = save("1_a/a.png", caption="x")
    data = read()
    assert data.items[0].content_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    other = read().items[0]
    path.unlink()
    assert data.items[0].content_sha256  # remembered
    with pytest.raises(DatasetError, match=r"a\.png can't be read any more"):
        other.content_sha256  # noqa: B018


def test_progress_and_order_with_many_files(save: Save, root: Path) -> None:
    from lora_trainer.config import CaptionConfig, DatasetConfig
    from lora_trainer.dataset.folders import scan

    for n in range(300):
        save(f"1_a/{n:03}.png", caption=str(n))
    seen: list[tuple[int, int]] = []
    data = scan(root, DatasetConfig(), CaptionConfig(), lambda done, total: seen.append((done, total)))
    assert seen == [(n, 300) for n in range(1, 301)]
    assert [item.captions for item in data.items] == [(str(n),) for n in range(300)]
