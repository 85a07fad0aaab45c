from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lora_trainer.errors import FileError, LoraTrainerError, UnsupportedModelError
from lora_trainer.hosts.standalone.detect import Detected, detect
from tests.support.tiny_checkpoints import KINDS, config

Checkpoint = Callable[[str], Path]
UNET = "model.diffusion_model."


def write(path: Path, names: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> Path:
    save_file({name: torch.zeros(shape) for name, shape in names.items()}, path, metadata)
    return path


def sd(channels: int = 4, **more: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The names by which an SD 1.x is known, and more."""
    names = {
        f"{UNET}input_blocks.0.0.weight": (8, channels, 3, 3),
        f"{UNET}middle_block.1.transformer_blocks.0.attn1.to_q.weight": (8, 8),
        "first_stage_model.decoder.conv_in.weight": (8, 4, 3, 3),
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (4, 8),
    }
    return {**names, **{name.replace("__", "."): shape for name, shape in more.items()}}


def without(names: dict[str, tuple[int, ...]], part: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in names.items() if part not in name}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tiny_checkpoints_are_what_they_are(tiny_checkpoint: Checkpoint, kind: str) -> None:
    found = detect(tiny_checkpoint(kind))
    assert found.family == {"sd2v": "sd2"}.get(kind, kind)
    expected = {"sd1": "epsilon", "sd2": "epsilon", "sd2v": "v_prediction", "sdxl": "epsilon"}[kind]
    assert found.prediction_type == expected
    assert found.resolution(expected) == {"sd1": 512, "sd2": 512, "sd2v": 768, "sdxl": 1024}[kind]


REFUSED = [
    ("LoRA", {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (1, 8)}),
    ("LoRA", {"unet.mid_block.attentions.0.proj_in.lora_A.weight": (1, 8)}),
    ("textual inversion", {"emb_params": (1, 8)}),
    ("ControlNet", {**sd(), "control_model.input_hint_block.0.weight": (1, 1)}),
    ("quantised", {**sd(), f"{UNET}out.2.weight.absmax": (1,)}),
    ("SD3", {f"{UNET}joint_blocks.0.context_block.attn.qkv.weight": (8, 8)}),
    ("Flux", {"double_blocks.0.img_attn.qkv.weight": (8, 8)}),
    ("Flux", {f"{UNET}double_blocks.0.img_attn.qkv.weight": (8, 8), "vae.decoder.conv_in.weight": (1, 1)}),
    ("PixArt", {"adaln_single.linear.weight": (8, 8)}),
    ("Stable Cascade", {"clip_txt_pooled_mapper.weight": (8, 8)}),
    ("AltDiffusion", {**sd(), "cond_stage_model.roberta.embeddings.word_embeddings.weight": (8, 8)}),
    ("Stable Video Diffusion", {**sd(8), f"{UNET}input_blocks.1.1.time_stack.0.attn1.to_q.weight": (8, 8)}),
    (
        "SDXL refiner",
        {
            **without(sd(), "cond_stage"),
            "conditioner.embedders.0.model.token_embedding.weight": (8, 8),
            f"{UNET}label_emb.0.0.weight": (8, 2560),
        },
    ),
    ("inpainting checkpoint (9", sd(9)),
    ("instruct-pix2pix checkpoint (8", sd(8)),
    ("depth-to-image", sd(5)),
    ("SSD-1B", {**without(sd(), "transformer_blocks"), f"{UNET}middle_block.0.in_layers.2.weight": (8, 8, 3, 3)}),
    ("diffusers UNet", {"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}),
    ("a VAE", {"encoder.conv_in.weight": (8, 3, 3, 3), "decoder.conv_in.weight": (8, 4, 3, 3)}),
    ("a text encoder", {"text_model.embeddings.token_embedding.weight": (8, 8)}),
    ("without a Stable Diffusion UNet", {"weight": (2,)}),
    ("no VAE", without(sd(), "first_stage")),
    ("no text encoder", without(sd(), "cond_stage")),
]


@pytest.mark.parametrize(("kind", "names"), REFUSED, ids=[f"{i}-{row[0]}" for i, row in enumerate(REFUSED)])
def test_unsupported_files_are_refused_by_name(tmp_path: Path, kind: str, names: dict[str, tuple[int, ...]]) -> None:
    path = write(tmp_path / "model.safetensors", names)
    with pytest.raises(UnsupportedModelError) as refusal:
        detect(path)
    text = str(refusal.value)
    assert kind in text and "model.safetensors" in text and "\n" not in text
    assert "use a" in text  # says what to do


def test_the_names_alone_would_be_an_sd1(tmp_path: Path) -> None:
    assert detect(write(tmp_path / "model.safetensors", sd())).family == "sd1"


def test_truncated_and_damaged_files(tmp_path: Path, tiny_checkpoint: Checkpoint) -> None:
    whole = tiny_checkpoint("sd1").read_bytes()
    damaged = [
        ("is truncated", whole[: len(whole) // 2]),
        ("is truncated", whole[:1000]),
        ("is truncated", b""),
        ("isn't a safetensors file", b"<html>404 not found</html>"),
        ("isn't a safetensors file", (4).to_bytes(8, "little") + b'{"a"'),
        ("isn't a safetensors file", (2).to_bytes(8, "little") + b"[]"),
        ("doesn't fit", whole + b"more"),
    ]
    path = tmp_path / "broken.safetensors"
    for words, content in damaged:
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"^broken\.safetensors [^\n]*\.$") as refusal:
            detect(path)
        assert words in str(refusal.value)


def test_no_such_file_folder_and_ending(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="doesn't exist"):
        detect(tmp_path / "missing.safetensors")
    with pytest.raises(FileError, match="is a folder"):
        detect(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="diffusers"):
        detect(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnsupportedModelError, match=r"isn't a \.safetensors or \.ckpt file"):
        detect(tmp_path / "model.gguf")


class Evil:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/lora-trainer-test-was-run"),))  # type: ignore[return-value]


def test_ckpt_is_opened_for_weights_only(tmp_path: Path, tiny_checkpoint: Checkpoint) -> None:
    weights = load_file(tiny_checkpoint("sd1"))
    torch.save({"state_dict": weights, "global_step": 3}, tmp_path / "good.ckpt")
    found = detect(tmp_path / "good.ckpt")
    assert found.family == "sd1"
    assert found.file.read(UNET).keys() == detect(tiny_checkpoint("sd1")).file.read(UNET).keys()

    torch.save({"state_dict": weights, "callbacks": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UnsupportedModelError, match=r"evil\.ckpt holds more than weights.*safetensors"):
        detect(tmp_path / "evil.ckpt")
    assert not Path("/tmp/lora-trainer-test-was-run").exists()

    (tmp_path / "short.ckpt").write_bytes((tmp_path / "good.ckpt").read_bytes()[:5000])
    with pytest.raises(LoraTrainerError, match=r"short\.ckpt"):
        detect(tmp_path / "short.ckpt")


def beside(folder: Path, names: dict[str, tuple[int, ...]], metadata: dict[str, str], text: str | None) -> Detected:
    path = write(folder / "model.safetensors", names, metadata)
    path.with_suffix(".yaml").unlink(missing_ok=True)
    if text is not None:
        path.with_suffix(".yaml").write_text(text)
    return detect(path)


def test_what_says_the_prediction_type(tmp_path: Path) -> None:
    sd2 = {
        **without(sd(), "cond_stage"),
        f"{UNET}input_blocks.1.1.proj_in.weight": (8, 8),
        "cond_stage_model.model.token_embedding.weight": (8, 8),
    }
    sdxl = {
        **without(sd(), "cond_stage"),
        f"{UNET}label_emb.0.0.weight": (8, 2816),
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": (8, 8),
        "conditioner.embedders.1.model.token_embedding.weight": (8, 8),
    }
    v_config = yaml.safe_dump(config("sd2v"))
    assert beside(tmp_path, sd2, {}, None).prediction_type is None  # only running it can tell
    assert beside(tmp_path, sd2, {}, v_config).prediction_type == "v_prediction"
    assert beside(tmp_path, sd2, {}, yaml.safe_dump(config("sd2"))).prediction_type == "epsilon"
    assert beside(tmp_path, sd2, {"modelspec.prediction_type": "v"}, None).prediction_type == "v_prediction"
    assert beside(tmp_path, sd2, {"modelspec.prediction_type": "epsilon"}, None).prediction_type == "epsilon"
    assert beside(tmp_path, sdxl, {}, None).prediction_type == "epsilon"
    marked = beside(tmp_path, {**sdxl, "v_pred": (1,), "ztsnr": (1,)}, {}, None)
    assert marked.prediction_type == "v_prediction" and marked.marks.zero_snr
    assert beside(tmp_path, {**sdxl, "v_pred": (1,)}, {}, None).marks.zero_snr == ""
    scaling = {"denoiser_config": {"params": {"scaling_config": {"target": "sgm.denoiser_scaling.VScaling"}}}}
    text = yaml.safe_dump({"model": {"params": {**scaling, "network_config": {"params": {}}}}})
    assert beside(tmp_path, sdxl, {}, text).prediction_type == "v_prediction"
    assert beside(tmp_path, sd(), {}, None).prediction_type == "epsilon"


def test_resolution_from_config_and_metadata(tmp_path: Path) -> None:
    tiny = config("sd1")
    tiny["model"]["params"]["image_size"] = 8
    assert beside(tmp_path, sd(), {}, yaml.safe_dump(tiny)).resolution("epsilon") == 64
    assert beside(tmp_path, sd(), {"modelspec.resolution": "768x768"}, None).resolution("epsilon") == 768


@pytest.mark.parametrize("text", ["model: [", "just text", "model: {params: 3}", json.dumps({"model": {}})])
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(FileError, match=r"model\.yaml isn't a Stable Diffusion config"):
        beside(tmp_path, sd(), {}, text)


def test_other_numbers_of_timesteps_are_refused(tmp_path: Path) -> None:
    other = config("sd1")
    other["model"]["params"]["timesteps"] = 500
    with pytest.raises(UnsupportedModelError, match=r"model\.yaml says 500 timesteps"):
        beside(tmp_path, sd(), {}, yaml.safe_dump(other))
