"""What a dataset file says of its subsets is what is trained: sizes, batches, captions and masks of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError
from lora_trainer.training.events import StepDone
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train
from tests.support.tiny_host import TinyHost, make_dataset

OPTIONS: dict[str, Any] = {
    "resolution": 512, "network_dim": 4, "learning_rate": 1e-2, "seed": 7, "max_train_epochs": 1,
    "bucket_reso_steps": 16, "bucket_no_upscale": False, "min_bucket_reso": 64,
    "text_encoder_lr": 0, "save_every_n_epochs": 0, "measure_at_saves": False, "cache_text_encoder_outputs": False,
}  # fmt: skip


def write(root: Path, datasets: list[dict[str, Any]]) -> Path:
    """A dataset file beside a folder of two images, ``zork``."""
    if not (root / "data").exists():
        make_dataset(root / "data")
    path = root / "data.json"
    path.write_text(json.dumps({"datasets": datasets}))
    return path


def trained(root: Path, file: Path, resume: bool = False, **options: Any) -> tuple[TinyHost, list[Any]]:
    """The host of a whole run, and the shapes of its batches."""
    host, shapes = TinyHost(root / "loras"), []
    predict = host.model.predict

    def watched(noisy: Any, *rest: Any) -> Any:
        shapes.append(tuple(noisy.shape))
        return predict(noisy, *rest)

    host.model.predict = watched  # type: ignore[method-assign]
    config = RunConfig().replace(**{**OPTIONS, **options})
    steps = [event for event in train(host, RunRequest("zork", file, config, root / "out", resume=resume))
             if isinstance(event, StepDone)]  # fmt: skip
    assert steps
    return host, shapes


def test_two_resolutions_with_captions_of_their_own(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    images = next((tmp_path / "data").iterdir())
    count = len(list(images.glob("*.png")))
    small = {"image_dir": str(images), "caption_prefix": "small"}
    large = {"image_dir": str(images), "caption_prefix": "large", "num_repeats": 2}
    file = write(tmp_path, [
        {"resolution": 64, "batch_size": count, "subsets": [small]},
        {"resolution": 128, "batch_size": 1, "subsets": [large]},
    ])  # fmt: skip
    host, shapes = trained(tmp_path, file)
    sizes = {(shape[0], shape[2] * shape[3]) for shape in shapes}
    assert {of_batch for of_batch, area in sizes if area <= 64} == {count}
    assert {of_batch for of_batch, area in sizes if area > 64} == {1}
    texts = host.model.captions_encoded
    assert sum(text.startswith("small ") for text in texts) == count
    assert sum(text.startswith("large ") for text in texts) == 2 * count == len(texts) - count
    facts = json.loads((tmp_path / "out/zork/run.json").read_text())
    assert [row["resolution"] for row in facts["dataset_config"]["datasets"]] == [[64, 64], [128, 128]]
    with safe_open(tmp_path / "loras/zork.safetensors", "pt") as made:
        metadata = made.metadata()
    assert [row["batch_size"] for row in json.loads(metadata["ss_datasets"])] == [count, 1]
    assert str(tmp_path) not in metadata["ss_datasets"] and metadata["modelspec.resolution"] == "128x128"


def test_a_run_goes_on_only_with_the_file_that_it_began_with(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    images = str(next((tmp_path / "data").iterdir()))
    rows = [{"resolution": 64, "subsets": [{"image_dir": images}]}]
    file = write(tmp_path, rows)
    trained(tmp_path, file)
    rows[0]["subsets"][0]["keep_tokens"] = 3  # type: ignore[index]
    write(tmp_path, rows)
    with pytest.raises(ConfigError, match="Can't resume: the dataset file's settings changed"):
        trained(tmp_path, file, resume=True, max_train_epochs=2)


def test_what_changes_every_use_is_not_encoded_once(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    images = str(next((tmp_path / "data").iterdir()))
    file = write(tmp_path, [{"resolution": 64, "subsets": [{"image_dir": images, "color_aug": True}]}])
    with pytest.raises(ConfigError, match=r"color_aug changes the images each time, .*cache_latents to false"):
        trained(tmp_path, file)
