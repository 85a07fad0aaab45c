"""What a checkpoint says of itself, and what follows from it for a training."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lora_trainer.advice import advice
from lora_trainer.checkpoint_marks import Marks, marks_of, read_marks
from lora_trainer.cli.train import _advised
from lora_trainer.config import RunConfig
from lora_trainer.families import SD1, SDXL
from lora_trainer.fitting import find, fitted, presets_for
from lora_trainer.hosts.base import Glance

MARKED = Marks("the file has the mark v_pred", "the file has the mark ztsnr", ("someMix",))


def texts(glance: Glance, **options: Any) -> str:
    return "\n".join(one.text for one in advice(glance, RunConfig().replace(**options)))


def model(*names: str, **facts: Any) -> Glance:
    given = {"family": SDXL, "resolution": 1024, "marks": Marks(names=names), **facts}
    return Glance("a.safetensors", **given)


def test_the_marks_are_read_from_the_header_and_anew_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "pony" / "a.safetensors"
    path.parent.mkdir()
    assert read_marks(path) == Marks(names=("a", "pony"))
    save_file({"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, path)
    found = read_marks(path)
    assert "v_pred" in found.v_prediction and "ztsnr" in found.zero_snr
    merged = {"x": {"name": "noobaiXL.safetensors [1]"}, "y": 3}
    said = {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True", "modelspec.title": "My model",
            "sd_merge_models": json.dumps(merged)}  # fmt: skip
    save_file({"w": torch.empty(1)}, path, said)
    found = read_marks(path)
    assert "modelspec.prediction_type" in found.v_prediction and "ss_zero_terminal_snr" in found.zero_snr
    assert found.names == ("a", "pony", "My model", "noobaiXL.safetensors [1]")


@pytest.mark.parametrize("text", ["[", "3", '{"a": "b"}', '{"a": {}}', '["x"]'])
def test_a_merge_recipe_that_is_none_says_nothing(text: str) -> None:
    assert marks_of(Path("x/a.ckpt"), {}, {"sd_merge_models": text}).names == ("a", "x")


def test_what_the_file_says_is_said_with_its_reason_and_set_only_where_it_is_otherwise() -> None:
    as_noise = model(marks=MARKED)
    (v, zero) = advice(as_noise, RunConfig())
    assert v.options == {"v_parameterization": True} and "because the file has the mark v_pred" in v.text
    assert zero.options == {"zero_terminal_snr": True} and "because the file has the mark ztsnr" in zero.text
    followed = advice(model(marks=MARKED, prediction_type="v_prediction"), RunConfig().replace(zero_terminal_snr=True))
    assert len(followed) == 2 and all("because the file has" in one.text and not one.options for one in followed)
    against = advice(model(prediction_type="v_prediction"), RunConfig().replace(v_parameterization=False))
    assert [one.options for one in against] == [{"v_parameterization": None}]
    assert "Train without noise offset" in texts(as_noise, noise_offset=0.05)
    assert advice(model(marks=MARKED, refusal="no"), RunConfig()) == [] == advice(None, RunConfig())


def test_a_name_is_a_reason_for_sdxl_only() -> None:
    assert "mix_vpred says so" in texts(model("mix_vpred"))
    assert texts(model("mix_vpred", family=SD1, resolution=512)) == ""
    assert texts(model("ponyMix", family=SD1, resolution=512)) == ""


@pytest.mark.parametrize(
    ("name", "label", "tag"),
    [
        ("waiNSFWIllustrious_v14", "Illustrious-XL", "masterpiece"), ("noobaiXL_illustrious", "NoobAI-XL", "newest"),
        ("ponyDiffusionV6XL", "Pony Diffusion", "score_9"), ("animagine-xl-4.0", "Animagine XL", "great score"),
    ],
)  # fmt: skip
def test_models_for_drawings_are_known_by_name(name: str, label: str, tag: str) -> None:
    found = advice(model(name), RunConfig().replace(unet_lr=1e-5))
    said = "\n".join(one.text for one in found)
    assert f"because {name} is an SDXL of the {label} kind" in said and tag in said
    called = {key: value for one in found for key, value in one.options.items()}
    assert called == {"shuffle_caption": True, "keep_tokens": 1, "unet_lr": 1e-4}
    assert all(not one.options for one in advice(model(name), RunConfig().replace(**called)))
    assert "Train the UNet at" not in texts(model(name), unet_lr=1.0, optimizer_type="Prodigy")


def test_other_names_say_nothing() -> None:
    assert texts(model("ponytail-photo", "realvis")) == ""


def test_a_preset_takes_the_marks_with_their_reason() -> None:
    glance = model(marks=MARKED, prediction_type="v_prediction")
    preset = find(presets_for(glance), "sdxl")
    assert preset is not None
    config, notes = fitted(preset, glance, {"zero_terminal_snr": True})
    assert config.loss.zero_terminal_snr and not any("zero_terminal_snr" in note for note in notes)
    assert sum("zero terminal SNR" in one.text for one in advice(glance, config)) == 1, "it is said once"


def test_the_command_line_says_how_to_set_it() -> None:
    host: Any = SimpleNamespace(glance=lambda: model("ponyMix", marks=Marks(zero_snr="it says so", names=("ponyMix",))))
    lines = _advised(host, RunConfig())
    assert "Train with zero terminal SNR, because it says so. (--set zero_terminal_snr=true)" in lines
    assert any(line.endswith("(--set shuffle_caption=true --set keep_tokens=1)") for line in lines)
