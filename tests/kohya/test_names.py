"""Every name that kohya's LoRA form ever wrote is recognised; what isn't offered is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from lora_trainer.config import OPTIONS
from lora_trainer.errors import ConfigError
from lora_trainer.kohya import load_kohya
from tests.support.kohya_form import DATA, FORM, form, notices, refused
from tests.support.kohya_page import page
from tests.support.kohya_values import NEEDS, telling_value

ROOT = DATA.parents[1]
NAMES = (DATA / "kohya_names.txt").read_text(encoding="utf-8").split()  # all that the LoRA form ever wrote
SILENT = {"sdxl_cache_text_encoder_outputs", "cache_text_encoder_outputs"}  # we cache anyway: the result is the same
SPEAK_EMPTY = {"caption_extension", "caption_extention", "unet_lr", "text_encoder_lr"}  # empty means something there


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_recognised_empty_or_not(name: str) -> None:
    """Empty, it says nothing; with a value it takes effect, or is returned, reported, or refused by name."""
    rates = {"unet_lr": 1e-4, "text_encoder_lr": 1e-4}
    empty = load_kohya({**FORM, **rates} | ({} if name in ("max_resolution", "epoch") else {name: ""}))
    assert empty.notices == [] or name in SPEAK_EMPTY
    around = {**FORM, **NEEDS.get(name, {})}
    before = load_kohya(around)
    value: Any = telling_value(name)
    for attempt in (value, True, "3", 64, ".cap"):
        try:
            after = load_kohya({**around, name: attempt})
        except ConfigError as error:
            if "can't be" in str(error):
                continue  # a wrong kind of value for this name: try the next
            assert name in str(error)
            return
        if name in OPTIONS and name not in SILENT:
            assert after.config.value(name) != before.config.value(name)
            return
        if after.config != before.config or name in after.fields or any(name in line for line in after.notices):
            return
    assert name in SILENT, f"{name} leaves no trace"


@pytest.mark.parametrize("name", (DATA / "sd_scripts_names.txt").read_text(encoding="utf-8").split())
def test_every_option_of_the_scripts_is_recognised(name: str) -> None:
    try:
        load_kohya({**FORM, "additional_parameters": f"--{name}=3"})
    except ConfigError as error:
        assert "Unknown" not in str(error)


def test_the_page_says_of_every_name_what_becomes_of_it() -> None:
    text = (ROOT / "docs/kohya.md").read_text(encoding="utf-8")
    assert text == page(text), "make options"
    assert all(f"| `{name}` |" in text for name in NAMES)


def test_the_list_of_names_is_whole() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 307


def test_groups_of_names_without_effect_are_one_line_each() -> None:
    lines = notices(
        max_data_loader_n_workers=8, persistent_data_loader_workers=True, xformers="sdpa", mem_eff_attn=True,
        huggingface_token="secret-token", wandb_api_key="secret-key", log_with="wandb", num_processes=2,
        stop_text_encoder_training=50, lumina_system_prompt="x", blocks_to_swap=18, conv_dim=32, save_state=True,
    )  # fmt: skip
    assert len(lines) == 8
    assert not any("secret" in line for line in lines)
    speed = next(line for line in lines if "xformers" in line)
    assert all(
        name in speed for name in ("max_data_loader_n_workers", "persistent_data_loader_workers", "mem_eff_attn")
    )


def test_form_defaults_and_off_values_are_not_worth_a_word() -> None:
    assert notices(
        factor=-1, train_on_input=True, unit=1, conv_dim=1, conv_alpha="1", xformers=True, num_processes="1",
        num_cpu_threads_per_process=2.0, LyCORIS_preset="full", max_data_loader_n_workers="0", full_fp16="False",
        weighted_captions=False, dataset_config="", save_model_as="safetensors", t5xxl_max_token_length=512,
        multires_noise_discount=0.3, model_list="custom", guidance_scale=None,
    ) == []  # fmt: skip


# what isn't offered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train_inpainting", "flux1_checkbox", "locon"])
def test_switches_that_are_not_offered_are_refused_by_name_only_when_on(name: str) -> None:
    assert name in refused({**FORM, name: True})
    assert form(**{name: False}) == form()


def test_other_formats_of_weights_are_told_and_train() -> None:
    lines = notices(additional_parameters="--fp8_base_unet")
    assert len(lines) == 1 and "fp8_base_unet" in lines[0] and "weights stay as they are loaded" in lines[0]
    assert form(full_bf16=True).memory.full_bf16 and "full_fp16" in refused({**FORM, "full_fp16": 1, "full_bf16": 1})
    assert form(fp8_base=True) == form(additional_parameters="--fp8_base") == form().replace(base_8bit="always")
    assert form(fp8_base=False) == form()


def test_all_that_is_not_offered_comes_in_one_sentence() -> None:
    sentence = refused({**FORM, "LoRA_type": "LyCORIS/GLoRA", "locon": True, "train_inpainting": True})
    words = ("LoRA_type LyCORIS/GLoRA", "Standard", "locon", "train_inpainting")
    assert all(word in sentence for word in words)


def test_other_lora_types_and_formats() -> None:
    for kind in ("LyCORIS/GLoRA", "Flux1 OFT", "Flux1"):
        assert kind in refused({**FORM, "LoRA_type": kind})
    assert any("safetensors is written" in line for line in notices(save_model_as="ckpt"))
    assert form(save_model_as="diffusers") == form()  # the form itself turns it into safetensors


def test_unknown_names_are_refused_with_the_nearest() -> None:
    sentence = refused({**FORM, "netwrok_dim": 8, "foo_bar": 1})
    assert "netwrok_dim" in sentence and "network_dim" in sentence and "foo_bar" in sentence


@pytest.mark.parametrize(
    ("data", "tab"),
    [
        ({"learning_rate_te": "1e-5", "max_resolution": "512,512", "epoch": 1}, "Dreambooth"),
        ({"learning_rate_te1": 0, "learning_rate_te2": 0, "max_resolution": "512,512"}, "Dreambooth"),
        ({"num_vectors_per_token": 8, "token_string": "x", "max_resolution": "512,512"}, "Textual Inversion"),
        ({"pretrained_model_name_or_path": "a", "max_resolution": "512,512", "optimizer": "AdamW"}, "Dreambooth"),
    ],
)
def test_files_of_other_tabs_are_recognised(data: dict[str, Any], tab: str) -> None:
    assert tab in refused(data)
