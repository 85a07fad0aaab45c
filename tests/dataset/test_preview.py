"""An image as training sees it: the same pixels and words as in a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lora_trainer.config import RunConfig
from lora_trainer.dataset.folders import scan
from lora_trainer.dataset.preview import Preview, preview, sheet
from lora_trainer.errors import FileError
from tests.support.runs import SMALL, run
from tests.support.tiny_host import TinyHost, TinyModel, make_dataset

RANDOM = {"flip_aug": True, "random_crop": True, "color_aug": True, "cache_latents": False, "shuffle_caption": True,
          "caption_dropout_rate": 0.3, "enable_wildcard": True, "bucket_reso_steps": 16,
          "cache_text_encoder_outputs": False}  # fmt: skip


class Watched(TinyModel):
    """Keeps what it is given to encode."""

    def encode_images(self, pixels: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
        self.__dict__.setdefault("given", []).append(pixels.clone())
        return super().encode_images(pixels)


def seen(data: Path, id: str, uses: int = 4, **options: object) -> Preview:
    config = RunConfig().replace(**{**SMALL, **options})
    return preview(scan(data, config.dataset, config.caption), id, config, uses)


def test_what_is_shown_is_what_a_training_is_given(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", sizes=((96, 80), (80, 96), (64, 64)))
    (tmp_path / "data/2_zork/0.txt").write_text("zork, {red|blue}, big\nzork, another line, small, old")
    host = TinyHost(tmp_path / "loras", Watched())
    run(tmp_path, host=host, **RANDOM)
    shown = seen(tmp_path / "data", "2_zork/0.png", 9, **RANDOM)
    assert len(shown.uses) == 4, "two repeats in each of two epochs"
    given = host.model.__dict__["given"]
    for use in shown.uses:
        (pixels,) = given[use.step]
        made = torch.from_numpy(np.asarray(use.picture).transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - 1)
        assert torch.equal(made, pixels)
        assert host.model.captions_encoded[use.step] == use.caption
    assert len({use.picture.tobytes() for use in shown.uses}) > 1 and len({use.caption for use in shown.uses}) > 1
    assert shown.varied == ("mirrored or not", "the place of the crop", "colours", "the caption")


def test_bucket_crop_mask_and_caption(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", sizes=((160, 64),))
    half = Image.new("RGBA", (160, 64), (0, 0, 255, 255))
    half.paste((0, 0, 0, 0), (0, 0, 80, 64))
    half.save(data / "2_zork/0.png")
    (data / "2_zork/0.txt").write_text("zork, " + "long " * 80)
    shown = seen(data, "0.png", enable_bucket=False, alpha_mask=True)
    assert shown.lines() == [
        "160x64 px, trained at 64x64 px (its bucket).", "Then 96 px of its width are cut off.",
        "Every use of it is the same.",
    ]  # fmt: skip
    assert shown.crop == (48 / 160, 0.0, 112 / 160, 1.0)
    (use,) = shown.uses
    assert use.mask is not None and use.picture.size == use.mask.size == (64, 64)
    assert use.picture.getpixel((10, 9)) == (255, 255, 255) and use.mask.getpixel((10, 9)) == 0, "transparent"
    assert use.picture.getpixel((50, 9)) == (0, 0, 255) and use.mask.getpixel((50, 9)) == 255
    assert use.tokens == 83 and use.cut.split() == ["long"] * 8
    assert sheet(shown).size == (64, 128), "the mask below the picture"
    facts = shown.to_dict()
    assert facts["id"] == "2_zork/0.png" and facts["uses"][0]["picture"].startswith("data:image/jpeg;base64,")


def test_an_image_that_is_not_trained_on(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", sizes=((64, 64),) * 12)
    held = scan(data, RunConfig().replace(resolution=64, validation_split=0.2).dataset, RunConfig().caption).held_out
    shown = seen(data, held[0].path.name, validation_split=0.2, flip_aug=True)
    assert shown.held_out and "It is held out: it isn't trained on, only measured." in shown.lines()
    make_dataset(data, repeats=3)
    with pytest.raises(FileError, match=r"Several folders have an image '0\.png'; give <folder>/<name>"):
        seen(data, "0.png")
    assert seen(data, "3_zork/0.png").id == "3_zork/0.png"
    with pytest.raises(FileError, match=r"There is no image '3_zork/77\.png'"):
        seen(data, "3_zork/77.png")
    (data / "3_zork/0.png").write_bytes(b"broken")
    with pytest.raises(FileError, match=r"Skipped .*3_zork/0\.png: it can't be read as an image"):
        seen(data, "3_zork/0.png")
