"""The presets: valid, told apart, and what they say they are."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from lora_trainer.config import RunConfig
from lora_trainer.config.presets import PRESET_NAMES, PRESETS, Preset, Subject, find_preset
from lora_trainer.errors import ConfigError
from lora_trainer.families import Family
from lora_trainer.kohya import load_kohya, to_kohya

STARTER = Path(__file__).resolve().parents[1] / "data" / "kohya_starter.json"


def preset_config(name: str) -> RunConfig:
    return find_preset(name).config()


def test_the_starter_preset_is_the_starter_configuration() -> None:
    config = preset_config("starter")
    unwatched = config.replace(sample_at_first=False, sample_every_n_epochs=RunConfig().sample.sample_every_n_epochs)
    assert unwatched == load_kohya(STARTER).config


@pytest.mark.parametrize("preset", PRESETS, ids=PRESET_NAMES)
def test_presets_are_whole_and_explained(preset: Preset) -> None:
    config = preset.config()
    assert config != RunConfig() and RunConfig.from_dict(config.to_dict()) == config
    assert preset.help.endswith(".") and "\n" not in preset.help and len(preset.help) < 130
    assert preset.label and preset.subjects and preset.families
    assert load_kohya(to_kohya(config)).config.network == config.network
    # each is usable on the smallest card that its family knows: recomputation and caches on, one image a step
    assert config.memory.gradient_checkpointing and config.memory.cache_latents and config.dataset.train_batch_size == 1


@pytest.mark.parametrize("preset", PRESETS, ids=PRESET_NAMES)
def test_every_preset_shows_how_it_goes(preset: Preset) -> None:
    config = preset.config()
    every, epochs = config.sample.sample_every_n_epochs, config.optimizer.max_train_epochs
    assert config.sample.sample_at_first and every and 3 <= epochs // every <= 10, "a few images, not one a minute"


def test_presets_differ_and_cover_subjects_families_and_efforts() -> None:
    assert len(set(PRESET_NAMES)) == len(PRESETS)
    flat = [str(preset.config().to_dict()) for preset in PRESETS]
    assert len(set(flat)) == len(flat)
    assert {subject for preset in PRESETS for subject in preset.subjects} == set(get_args(Subject))
    assert {family for preset in PRESETS for family in preset.families} == set(get_args(Family))
    assert {preset.effort for preset in PRESETS} == {"quick", "normal", "thorough"}


def test_presets_do_what_their_help_says() -> None:
    quick, starter, thorough = (preset_config(name) for name in ("quick", "starter", "thorough"))
    epochs = [config.optimizer.max_train_epochs for config in (quick, starter, thorough)]
    assert epochs == sorted(epochs) and quick.unet_rate > starter.unet_rate > thorough.unet_rate
    assert preset_config("style").dataset.flip_aug and not preset_config("person").dataset.flip_aug
    assert preset_config("character").caption.shuffle_caption and preset_config("character").caption.keep_tokens == 1
    for name in ("low-memory", "sdxl", "sdxl-low-memory"):
        assert not preset_config(name).trains_text_encoder and preset_config(name).memory.cache_text_encoder_outputs
    assert preset_config("sdxl").dataset.resolution == (1024, 1024)
    assert 4 <= preset_config("sdxl-low-memory").network.network_dim <= 8


def test_unknown_names_are_refused_with_the_list() -> None:
    assert find_preset(" Starter ").name == "starter"
    with pytest.raises(ConfigError) as caught:
        preset_config("persn")
    assert "did you mean person" in str(caught.value) and all(name in str(caught.value) for name in PRESET_NAMES)
