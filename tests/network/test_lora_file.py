"""LoRA files: what is written, what is read, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from lora_trainer.errors import FileError
from lora_trainer.network.file import read_lora, write_lora

KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
METADATA = {"ss_output_name": "x", "ss_epoch": "2", "modelspec.title": "Ünïcode “x”", "ss_tag_frequency": '{"a": {}}'}


def lora(inputs: int = 768, key: str = KEY, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{key}.lora_down.weight": torch.randn(4, inputs, generator=generator),
        f"{key}.lora_up.weight": torch.randn(10, 4, generator=generator),
        f"{key}.alpha": torch.tensor(2.0),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_library_reads_what_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in lora().items()}
    path = tmp_path / "a" / "b.safetensors"
    write_lora(path, tensors, METADATA)
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == dtype and torch.equal(read[name], tensor)
    with safe_open(path, "pt") as stream:
        metadata = stream.metadata()
    assert {name: metadata[name] for name in METADATA} == METADATA
    assert [entry.name for entry in path.parent.iterdir()] == ["b.safetensors"]
    ours = read_lora(path)
    assert ours.family == "sd1" and ours.modules[KEY].alpha == 2.0 and ours.modules[KEY].rank == 4
    assert torch.equal(ours.modules[KEY].down, tensors[f"{KEY}.lora_down.weight"].float())


def test_equal_input_gives_equal_bytes_in_any_order(tmp_path: Path) -> None:
    tensors = {**lora(key=KEY), **lora(key="lora_te_text_model_encoder_layers_0_mlp_fc1", seed=1)}
    write_lora(tmp_path / "a.safetensors", tensors, METADATA)
    write_lora(tmp_path / "b.safetensors", dict(reversed(tensors.items())), dict(reversed(METADATA.items())))
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_hashes_are_those_of_sd_scripts(tmp_path: Path) -> None:
    tensors = {f"{KEY}.lora_down.weight": torch.randn(400, 768), f"{KEY}.lora_up.weight": torch.randn(10, 400)}
    path = tmp_path / "a.safetensors"
    write_lora(path, tensors, METADATA)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    with safe_open(path, "pt") as stream:
        metadata = stream.metadata()
    assert metadata["sshs_model_hash"] == hashlib.sha256(content[start:]).hexdigest()
    plain = save(tensors, {key: value for key, value in METADATA.items() if key.startswith("ss_")})
    begin = 8 + int.from_bytes(plain[:8], "little")
    assert hashlib.sha256(plain[begin:]).hexdigest() == metadata["sshs_model_hash"]  # same bytes as the library's
    window = plain[0x100000:0x110000]  # the header's length is the library's, whatever its order
    assert len(window) == 0x10000
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(window).hexdigest()[:8]


def test_failing_to_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    write_lora(path, lora(), METADATA)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"a\.safetensors.*No space left on device.*Free space"):
        write_lora(path, lora(seed=5), METADATA)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FileError, match="Can't write"):
        write_lora(blocked / "a.safetensors", lora(), METADATA)


def test_diffusers_names_mean_the_same(tmp_path: Path) -> None:
    down, up = torch.randn(4, 768), torch.randn(10, 4)
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    layer = "encoder.layers.3.self_attn.q_proj"
    variants: list[tuple[dict[str, Tensor], dict[str, str], float]] = [
        ({f"unet.{path}.lora_A.weight": down, f"unet.{path}.lora_B.weight": up}, {}, 4.0),
        ({f"unet.{path}.lora.down.weight": down, f"unet.{path}.lora.up.weight": up}, {}, 4.0),
        ({f"unet.{path}.lora_A.weight": down, f"unet.{path}.lora_B.weight": up},
         {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 8})}, 8.0),
        ({f"unet.{path}.lora_A.weight": down, f"unet.{path}.lora_B.weight": up},
         {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "unet.alpha_pattern": {path: 3}})}, 3.0),
    ]  # fmt: skip
    for number, (tensors, metadata, alpha) in enumerate(variants):
        file = tmp_path / f"{number}.safetensors"
        save_file(tensors, file, metadata)
        read = read_lora(file)
        assert list(read.modules) == [KEY] and read.modules[KEY].alpha == alpha
        assert torch.equal(read.modules[KEY].down, down) and torch.equal(read.modules[KEY].up, up)
    for root, prefix in (("text_encoder", "lora_te1"), ("text_encoder_2", "lora_te2")):
        for owner in ("text_model.", ""):
            name = f"{root}.{owner}{layer}"
            save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "te.safetensors")
            assert list(read_lora(tmp_path / "te.safetensors").modules) == [
                f"{prefix}_text_model_encoder_layers_3_self_attn_q_proj"
            ]


@pytest.mark.parametrize(
    ("inputs", "metadata", "key", "family"),
    [
        (768, {}, KEY, "sd1"),
        (1024, {}, KEY, "sd2"),
        (2048, {}, "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", "sdxl"),
        (12, {}, KEY, None),
        (12, {"ss_base_model_version": "sd_v2_v"}, KEY, "sd2"),
        (12, {"ss_base_model_version": "sd_v1"}, KEY, "sd1"),
        (12, {"ss_base_model_version": "sdxl_base_v1-0"}, KEY, "sdxl"),
        (12, {}, "lora_te2_text_model_encoder_layers_0_mlp_fc1", "sdxl"),
    ],
)
def test_family_of_a_file(tmp_path: Path, inputs: int, metadata: dict[str, str], key: str, family: str | None) -> None:
    save_file(lora(inputs, key), tmp_path / "a.safetensors", metadata)
    assert read_lora(tmp_path / "a.safetensors").family == family


OTHERS = [
    ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}, "is a whole checkpoint"),
    ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": torch.zeros(4, 4)}, "is for Flux"),
    ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 4)}, "is for Flux"),
    ({"lora_unet_joint_blocks_0_x_block_attn_proj.lora_down.weight": torch.zeros(4, 4)}, "is for SD 3"),
    ({"diffusion_model.blocks.0.attn.q.lora_A.weight": torch.zeros(4, 4)}, "is for a transformer model"),
    ({f"{KEY}.hada_w1_a": torch.zeros(4, 4), f"{KEY}.alpha": torch.tensor(1.0)}, r"no LoHa that .*hada_w1_a \(4, 4\)"),
    ({f"{KEY}.lokr_w1": torch.zeros(4, 4)}, f"no LoKr that can be read: {KEY}"),
    ({f"{KEY}.lokr_w1": torch.zeros(4, 4), f"{KEY}.lokr_w2": torch.zeros(4)}, "no LoKr that can be read"),
    ({f"{KEY}.lokr_w1": torch.zeros(4, 4), f"{KEY}.hada_w1_a": torch.zeros(4, 4)}, "mixes hada_w1_a, lokr_w1"),
    ({**lora(), f"{KEY}.dora_scale": torch.zeros(4, 2)}, r"no DoRA .* dora_scale \(4, 2\)"),
    ({f"{KEY}.dora_scale": torch.zeros(4)}, "incomplete: .*dora_scale without the weights"),
    ({**lora(), f"{KEY}.lora_mid.weight": torch.zeros(5, 4, 3, 3)}, "no LoCon with Tucker"),
    ({f"{KEY}.weight": torch.zeros(4, 4), f"{KEY}.on_input": torch.zeros(())}, r"no \(IA\)³"),
    ({f"{KEY}.b_norm": torch.zeros(4)}, "lacks w_norm or b_norm"),
    ({f"{KEY}.oft_diag": torch.zeros(4, 4, 4)}, "type OFT of an old LyCORIS; LoRA, LoCon, LoHa, LoKr, DoRA, "),
    ({"unet.down_blocks.0.resnets.0.conv1.weight": torch.zeros(4, 4, 3, 3)}, "isn't a LoRA"),
    ({"emb_params": torch.zeros(2, 768)}, "is an embedding"),
    ({"encoder.weight": torch.zeros(2)}, r"isn't a LoRA for SD 1, SD 2 or SDXL \(it holds encoder.weight\)"),
    ({f"{KEY}.lora_down.weight": torch.zeros(4, 4)}, f"incomplete: {KEY} lacks its up weight"),
    ({f"{KEY}.lora_down.weight": torch.zeros(4, 4), f"{KEY}.lora_up.weight": torch.zeros(4, 5)}, "no plain LoRA"),
    ({**lora(), f"{KEY}.lora_up.weight": torch.full((10, 4), float("nan"))}, f"NaN or infinite .*{KEY}"),
    ({**lora(), f"{KEY}.alpha": torch.ones(4)}, f"the alpha of {KEY} isn't one number"),
    ({}, "holds no weights"),
]


@pytest.mark.parametrize(("tensors", "words"), OTHERS)
def test_other_files_are_refused_by_name(tmp_path: Path, tensors: dict[str, Tensor], words: str) -> None:
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(FileError, match=rf"other\.safetensors.*{words}"):
        read_lora(tmp_path / "other.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.safetensors"
    content = save(lora(), METADATA)
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FileError, match=r"cut\.safetensors is truncated"):
        read_lora(path)


def test_missing_and_unsafe_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no LoRA file .*gone\.safetensors"):
        read_lora(tmp_path / "gone.safetensors")
    with pytest.raises(FileError, match=r"a\.pt isn't a \.safetensors file"):
        read_lora(tmp_path / "a.pt")


def test_a_file_without_alpha_has_alpha_equal_rank(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in lora().items() if not name.endswith("alpha")}
    save_file(tensors, tmp_path / "a.safetensors")
    assert read_lora(tmp_path / "a.safetensors").modules[KEY].alpha == 4.0
