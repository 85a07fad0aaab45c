"""Pixels of every kind of image, and the resize, crop, mask and augmentation that lead to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from lora_trainer.dataset.buckets import size_conditioning
from lora_trainer.dataset.decode import image_endings
from lora_trainer.dataset.images import load_pixels
from lora_trainer.errors import DatasetError
from tests.support.pixels import Scan, bytes_of, load


def gradient(width: int = 64, height: int = 64) -> np.ndarray:
    """Grey [H, W] from 0 at the left to 255 at the right."""
    return np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))


def test_pixels_are_exact_in_rgb_from_minus_one_to_one(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    loaded = load(tmp_path / "a.png")
    assert loaded.pixels.shape == (3, 64, 128)
    assert loaded.pixels.dtype == torch.float32
    assert loaded.mask is None
    np.testing.assert_array_equal(bytes_of(loaded.pixels), values)
    assert loaded.pixels.min() >= -1 and loaded.pixels.max() <= 1


WRITABLE = {  # what Pillow writes in each mode without changing the mode
    "L": [".png", ".tif", ".jpg", ".bmp", ".gif", ".jp2", ".ppm", ".tga"],
    "RGB": [".png", ".tif", ".jpg", ".bmp", ".webp", ".jp2", ".ppm", ".tga"],
    "P": [".png", ".tif", ".bmp", ".gif", ".tga"],
    "CMYK": [".tif", ".jpg"],
    "YCbCr": [".jpg"],
    "LAB": [".tif"],
    "I;16": [".png", ".tif", ".jp2"],
    "I": [".tif", ".ppm"],
    "F": [".tif"],
}


def grey_in_mode(mode: str) -> Image.Image:
    """A grey gradient in a mode of Pillow."""
    grey = gradient()
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    image = Image.fromarray(grey)
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image.convert("RGB"), srgb, lab, outputMode="LAB")
    return (image if mode in {"L", "P"} else image.convert("RGB")).convert(mode)


@pytest.mark.parametrize(
    ("mode", "ending"), [(mode, ending) for mode, endings in WRITABLE.items() for ending in endings]
)
def test_grey_is_the_same_grey_in_every_mode(tmp_path: Path, mode: str, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    grey_in_mode(mode).save(path)
    seen = bytes_of(load(path).pixels).astype(int)
    tolerance = 6 if ending in {".jpg", ".webp"} or mode == "LAB" else 1
    assert np.abs(seen - gradient()[..., None]).max() <= tolerance


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(gradient()).convert("1").save(tmp_path / "a.png")
    seen = bytes_of(load(tmp_path / "a.png").pixels)
    assert set(np.unique(seen)) == {0, 255}
    assert seen.mean() == pytest.approx(gradient().mean(), abs=4)  # dithered


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_deep_grey_is_scaled_not_clipped(tmp_path: Path, ending: str) -> None:
    Image.fromarray(np.full((64, 64), 32896, np.uint16)).save(tmp_path / f"a{ending}")
    assert set(np.unique(bytes_of(load(tmp_path / f"a{ending}").pixels))) == {128}


def test_dark_deep_grey_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 300, np.uint16)).save(tmp_path / "a.png")
    assert bytes_of(load(tmp_path / "a.png").pixels).max() == 1  # 300 / 257


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_rotation(tmp_path: Path, orientation: int, name: str) -> None:
    upright = Image.new("RGB", (128, 64))
    upright.paste((255, 0, 0), (0, 0, 64, 32))  # red at the top left
    upright.paste((0, 255, 0), (64, 0, 128, 32))  # green at the top right
    stored = upright.transpose(
        [
            None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_270,
        ][orientation - 1]
    ) if orientation > 1 else upright  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / name, exif=exif.tobytes() if name != "a.tif" else exif, quality=95)
    loaded = load(tmp_path / name)
    assert loaded.pixels.shape == (3, 64, 128)
    assert loaded.size.original == (64, 128)
    seen = bytes_of(loaded.pixels).astype(int)
    assert np.abs(seen[4, 4] - (255, 0, 0)).max() < 40
    assert np.abs(seen[4, 120] - (0, 255, 0)).max() < 40
    assert seen[60, 4].max() < 40


def test_scan_sees_the_rotated_size(read: Scan, root: Path) -> None:
    (root / "1_a").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (600, 400)).save(root / "1_a/a.jpg", exif=exif.tobytes())
    item = read().items[0]
    assert (item.size, item.bucket) == ((400, 600), (384, 576))
    assert load_pixels(item).pixels.shape == (3, 576, 384)


def test_transparent_is_white_and_half_transparent_is_mixed(tmp_path: Path) -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (0, 0, 32, 64))
    image.paste((0, 0, 0, 128), (32, 32, 64, 64))
    image.save(tmp_path / "a.png")
    loaded = load(tmp_path / "a.png", alpha_mask=True)
    seen = bytes_of(loaded.pixels)
    assert tuple(seen[0, 0]) == (255, 255, 255)
    assert tuple(seen[0, 63]) == (255, 0, 0)
    assert tuple(seen[63, 63]) == (127, 127, 127)
    assert loaded.mask is not None and loaded.mask.shape == (1, 64, 64)
    assert [float(loaded.mask[0, y, x]) for y, x in ((0, 0), (0, 63), (63, 63))] == [0, 1, pytest.approx(128 / 255)]


def palette_with_transparency(path: Path) -> None:
    image = Image.new("P", (64, 64), 1)
    image.putpalette([0, 0, 0, 0, 0, 255] + [0] * 762)
    image.paste(0, (0, 0, 32, 64))
    image.save(path, transparency=0)


def grey_with_transparency(path: Path) -> None:
    image = Image.new("LA", (64, 64), (29, 255))
    image.paste((0, 0), (0, 0, 32, 64))
    image.save(path)


def rgb_with_transparent_colour(path: Path) -> None:
    image = Image.new("RGB", (64, 64), (0, 0, 255))
    image.paste((9, 9, 9), (0, 0, 32, 64))
    image.save(path, transparency=(9, 9, 9))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (palette_with_transparency, "a.png"),
        (palette_with_transparency, "a.gif"),
        (grey_with_transparency, "a.png"),
        (rgb_with_transparent_colour, "a.png"),
    ],
)
def test_every_kind_of_transparency(tmp_path: Path, write: Callable[[Path], None], name: str) -> None:
    write(tmp_path / name)
    loaded = load(tmp_path / name, alpha_mask=True)
    seen = bytes_of(loaded.pixels)
    assert tuple(seen[0, 0]) == (255, 255, 255)
    assert seen[0, 63].max() in {255, 29} and seen[0, 63, 0] in {0, 29}
    assert loaded.mask is not None
    assert set(loaded.mask[0, :, :32].unique().tolist()) == {0.0}
    assert set(loaded.mask[0, :, 32:].unique().tolist()) == {1.0}


def test_opaque_images_have_a_full_mask_only_if_asked(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert load(tmp_path / "a.png").mask is None
    mask = load(tmp_path / "a.png", alpha_mask=True).mask
    assert mask is not None and float(mask.min()) == 1


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_first_frame_of_animations(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert tuple(bytes_of(load(tmp_path / name).pixels)[9, 9]) == (255, 0, 0)


def test_a_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (1, 2, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert tuple(bytes_of(load(tmp_path / "a.jpg").pixels)[0, 0]) == (1, 2, 3)


def test_usual_endings_are_images_and_captions_are_not() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".psd"} <= image_endings()
    assert not {".txt", ".caption", ".npz", ".json", ".safetensors", ".mpg", ".pdf"} & image_endings()


def test_changed_or_vanished_files_are_named(read: Scan, save: Callable[..., Path]) -> None:
    path = save("1_a/a.png", (64, 64))
    item = read().items[0]
    Image.new("RGB", (65, 64)).save(path)
    with pytest.raises(DatasetError, match=r"a\.png changed.*64x64 px, now 65x64"):
        load_pixels(item)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DatasetError, match=r"a\.png can't be read as an image"):
        load_pixels(item)
    path.unlink()
    with pytest.raises(DatasetError, match=r"a\.png can't be read as an image"):
        load_pixels(item)


def test_size_conditioning_of_a_loaded_image(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    size = load(tmp_path / "a.png").size
    assert (size.original, size.target) == ((200, 300), (192, 256))
    Image.new("RGB", (361, 512)).save(tmp_path / "b.png")
    square = {"enable_bucket": False, "resolution": (512, 512)}
    crops = [load(tmp_path / "b.png", flip=flip, **square).size.crop for flip in (False, True)]
    assert crops == [size_conditioning((361, 512), (512, 512), flip=flip).crop for flip in (False, True)]
    assert crops[0] != crops[1]


def test_color_augmentation_is_off_unless_asked(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (200, 100, 50)).save(tmp_path / "a.png")
    plain = load(tmp_path / "a.png").pixels
    assert all(torch.equal(load(tmp_path / "a.png", seed=seed).pixels, plain) for seed in range(20))
    changed = [not torch.equal(load(tmp_path / "a.png", seed=s, color_aug=True).pixels, plain) for s in range(60)]
    assert any(changed) and not all(changed)
