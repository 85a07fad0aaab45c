"""Masks in files of their own: which image has which, what they let count, and those that can't be meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.config import RunConfig
from lora_trainer.dataset.checks.check import check
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.images import load_pixels
from lora_trainer.errors import DatasetError
from tests.dataset.conftest import Save, Scan


def half(path: Path, size: tuple[int, int] = (64, 64), white: int = 255) -> Path:
    """A mask whose left half counts."""
    mask = Image.new("L", size)
    mask.paste(white, (0, 0, size[0] // 2, size[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path)
    return path


def test_a_mask_beside_the_image_says_what_counts(save: Save, read: Scan) -> None:
    image = save("1_x/a.png", (96, 64), caption="x")
    save("1_x/b.png", caption="x")
    half(image.with_name("A-MaskLabel.png"), (96, 64))
    image.with_name("b-condlabel.png").write_bytes(image.read_bytes())
    first, second = read(masked_loss=True, resolution=(96, 64), bucket_reso_steps=8).items
    mask, mirrored = (load_pixels(first, flip).mask for flip in (False, True))
    assert mask is not None and mirrored is not None and mask.shape == (1, 64, 96)
    assert float(mask[:, :, :48].min()) == 1 and float(mask[:, :, 48:].max()) == 0
    assert np.array_equal(mirrored.flip(-1), mask)
    whole = load_pixels(second).mask
    assert second.mask is None and whole is not None and float(whole.min()) == 1
    assert load_pixels(read(resolution=(96, 64), bucket_reso_steps=8).items[0]).mask is None


def test_a_folder_of_masks_goes_before_those_beside_the_images_and_before_transparency(root: Path, save: Save) -> None:
    image = save("photos/a.png", caption="x")
    picture = Image.open(image).convert("RGBA")
    picture.putalpha(0)
    picture.save(image)
    half(root / "photos/a-masklabel.png", white=10)
    red = Image.merge("RGB", [Image.open(half(root / "masks/a.png", white=128)), *[Image.new("L", (64, 64), 255)] * 2])
    red.save(root / "masks/a.png")  # sd-scripts reads the red channel
    subset = {"image_dir": str(root / "photos"), "conditioning_data_dir": str(root / "masks"), "alpha_mask": True}
    file = root / "data.json"
    file.write_text(json.dumps({"datasets": [{"resolution": 64, "subsets": [subset]}]}))
    config = RunConfig().replace(masked_loss=True)
    (item,) = scan(file, config.dataset, config.caption).items
    mask = load_pixels(item).mask
    assert mask is not None and sorted(set(mask.unique().tolist())) == pytest.approx([0, 128 / 255])
    (root / "masks/a.png").unlink()
    (root / "masks").rmdir()
    with pytest.raises(DatasetError, match=r"names a folder that isn't there: .*masks"):
        scan(file, config.dataset, config.caption)


def test_masks_that_can_not_be_meant_are_one_sentence_each(save: Save, read: Scan) -> None:
    for name in ("good", "small", "black", "broken"):
        save(f"1_x/{name}.png", caption="x")
    half(save("1_x/good-masklabel.png"))
    half(save("1_x/small-masklabel.png"), (32, 32))
    half(save("1_x/black-masklabel.png"), white=0)
    save("1_x/broken-masklabel.png").write_bytes(b"nothing")
    data = read(masked_loss=True)
    assert [item.path.name for item in data.items] == ["good.png"]
    told = {one.path.stem: str(one) for one in data.skipped}
    assert "is 64x64 px, but its mask small-masklabel.png 32x32 px; save the mask at the image's size." in told["small"]
    assert "all black, black-masklabel.png" in told["black"] and "paint white what counts" in told["black"]
    assert "broken-masklabel.png can't be read as an image" in told["broken"]
    assert len(read().items) == 4, "masks that aren't used do no harm"


def test_what_became_of_the_masks_is_told(save: Save, root: Path) -> None:
    for name in ("a", "b"):
        save(f"1_x/{name}.png", caption="x")
    half(root / "1_x/a-masklabel.png")

    def told(**options: object) -> list[str]:
        config = RunConfig().replace(**options)
        return [str(one) for one in check(root, config.dataset, config.caption).findings if one.kind == "masks"]

    assert told()[0].startswith("1_x: 1 mask is not used, nor trained as images; switch masked_loss on")
    assert told(masked_loss=True)[0].startswith("1_x: 1 of 2 images without a mask, trained as a whole; give each one")
    half(root / "1_x/b-masklabel.png")
    assert told(masked_loss=True) == ["1_x: all 2 images with a mask."]
