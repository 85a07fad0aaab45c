"""Which caption file belongs to an image, how it is read, and what the user is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.dataset.texts import caption_endings

Save = Callable[..., Path]
Scan = Callable[..., object]


def notice(data, *words: str) -> str:
    """The one notice that has all these words."""
    found = [text for text in data.notices if all(word in text for word in words)]
    assert len(found) == 1, data.notices
    return found[0]


def test_missing_and_empty_captions_become_the_trigger(save: Save, read: Scan) -> None:
    save("3_ohwx cat/a.png")
    save("3_ohwx cat/b.png", caption=" \n\n")
    save("3_ohwx cat/c.png", caption="\nohwx cat, c")
    data = read()
    assert [item.captions for item in data.items] == [("ohwx cat",), ("ohwx cat",), ("ohwx cat, c",)]
    assert [item.caption_source for item in data.items] == ["missing", "empty", "file"]
    assert '"ohwx cat" (a.png)' in notice(data, "1 image without a caption file")
    assert "b.png" in notice(data, "with an empty caption file", "write b.txt")


def test_no_caption_and_no_words(save: Save, read: Scan) -> None:
    save("3_/a.png")
    data = read()
    assert data.items[0].captions == ()
    assert "an empty caption" in notice(data, "a.png")


@pytest.mark.parametrize(
    ("option", "files", "caption"),
    [
        (".txt", {"a.txt": "t", "a.caption": "c"}, "t"),
        (".caption", {"a.txt": "t", "a.caption": "c"}, "c"),
        ("caption", {"a.caption": "c"}, "c"),
        (".txt", {"a.caption": "c"}, "c"),
        (".caption", {"a.txt": "t"}, "t"),
        (".tags.txt", {"a.txt": "t", "a.tags.txt": "g"}, "g"),
        (".txt", {"A.TXT": "t"}, "t"),
        (".none-use-foldername", {"a.txt": "t"}, "x"),  # as shared configurations ask for the folder's words
        (".tags.txt", {"a.txt": "t"}, "x"),
    ],
)
def test_caption_endings(save: Save, read: Scan, root: Path, option: str, files: dict[str, str], caption: str) -> None:
    save("1_x/a.png")
    for name, text in files.items():
        (root / "1_x" / name).write_text(text)
    data = read(caption_extension=option)
    assert data.items[0].captions == (caption,)
    if caption == "x":
        assert data.items[0].caption_source == "missing"
        assert f"no image has a {option} file" in notice(data, 'the folder\'s words "x"')
        assert "a.txt" in notice(data, "not read", f"caption_extension is {option}", "set it to .txt")
        assert not any("write a" in text or "neither" in text for text in data.notices)
        return
    configured = any(name.lower() == "a" + caption_endings(option)[0] for name in files)
    assert any("files where" in text for text in data.notices) is not configured
    assert not any("no image has that name" in text for text in data.notices)


@pytest.mark.parametrize(
    ("data", "known"),
    [
        ("café, 猫".encode("utf-8-sig"), True),
        ("café, 猫".encode(), True),
        ("café, 猫".encode("utf-16"), True),
        ("café, cat".encode("cp1252"), False),
    ],
)
def test_encodings(save: Save, read: Scan, data: bytes, known: bool) -> None:
    save("1_x/a.png").with_suffix(".txt").write_bytes(data)
    scanned = read()
    assert scanned.items[0].captions[0].startswith("café, ")
    assert any("Windows-1252" in text for text in scanned.notices) is not known


def test_zero_bytes_are_no_text(save: Save, read: Scan) -> None:
    save("1_x/a.png").with_suffix(".txt").write_bytes(b"x, \0big\0 cat\0")
    assert read().items[0].captions == ("x, big cat",)


def test_several_lines(save: Save, read: Scan) -> None:
    save("1_x/a.png", caption="x one\r\n\r\n two \nthree")
    data = read()
    assert data.items[0].captions == ("x one", "two", "three")
    assert "a.png" in notice(data, "enable_wildcard")
    assert read(enable_wildcard=True).notices == ()
