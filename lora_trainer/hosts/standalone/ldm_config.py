"""What ``NAME.yaml`` beside ``NAME.safetensors`` says: an ldm or sgm inference config, as AUTOMATIC1111 reads it.

Widths and depths are taken from the weights' shapes; the config adds what shapes don't show: numbers of attention
heads, prediction type, noise schedule, the latents' scale, and which text encoders they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lora_trainer.errors import FileError, UnsupportedModelError
from lora_trainer.families import PredictionType


@dataclass(frozen=True)
class TextConfig:
    """What a config says of one text encoder; empty or None where it says nothing."""

    version: str = ""  # a folder with a transformers config.json, or a name on a hub
    arch: str = ""  # open_clip's name of an architecture
    layer: str = ""  # last, hidden, penultimate
    layer_idx: int | None = None


@dataclass(frozen=True)
class LdmConfig:
    """The parts of a config that are used; None where it says nothing (or there is no config)."""

    path: Path | None = None
    num_heads: int | None = None
    num_head_channels: int | None = None
    prediction_type: PredictionType | None = None
    scale_factor: float | None = None
    linear_start: float = 0.00085
    linear_end: float = 0.012
    image_size: int | None = None  # side of the latents
    text: tuple[TextConfig, ...] = field(default=())

    def text_config(self, index: int) -> TextConfig:
        """What it says of the ``index``-th text encoder."""
        return self.text[index] if index < len(self.text) else TextConfig()


def read_config(checkpoint: Path) -> LdmConfig:
    """Read the config beside ``checkpoint``; an empty one if there is none.

    Raises:
        FileError: if it can't be read as YAML of that kind.
        UnsupportedModelError: if it asks for a number of timesteps other than 1000.
    """
    path = checkpoint.with_suffix(".yaml")
    if not path.is_file():
        return LdmConfig()
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["params"]
        config = _parse(path, params)
        timesteps = int(params.get("timesteps", 1000))
    except OSError as error:
        raise FileError(f"Can't read {path}: {error.strerror}; check the file and its permissions.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{path.name} isn't a Stable Diffusion config; correct it or move it away.") from error
    if timesteps != 1000:
        raise UnsupportedModelError(f"{path.name} says {timesteps} timesteps; only models with 1000 can be trained.")
    return config


def _parse(path: Path, params: Mapping[str, Any]) -> LdmConfig:
    unet = (params.get("unet_config") or params.get("network_config") or {}).get("params", {})
    return LdmConfig(
        path=path,
        num_heads=_positive(unet.get("num_heads")),
        num_head_channels=_positive(unet.get("num_head_channels")),
        prediction_type=_prediction_type(params),
        scale_factor=float(params["scale_factor"]) if "scale_factor" in params else None,
        linear_start=float(params.get("linear_start", 0.00085)),
        linear_end=float(params.get("linear_end", 0.012)),
        image_size=_positive(params.get("image_size")),
        text=tuple(_text_configs(params)),
    )


def _positive(value: Any) -> int | None:
    """ldm writes -1 for "not given"."""
    return int(value) if value is not None and int(value) > 0 else None


def _prediction_type(params: Mapping[str, Any]) -> PredictionType | None:
    parameterization = params.get("parameterization")
    if parameterization is None:  # sgm says it by the class that scales the network's output
        denoiser = (params.get("denoiser_config") or {}).get("params", {})
        scaling = str((denoiser.get("scaling_config") or {}).get("target", "")).rpartition(".")[2]
        if scaling:
            return "v_prediction" if scaling.startswith("V") else "epsilon"
        return "epsilon" if "unet_config" in params else None  # ldm's default is eps
    return "v_prediction" if parameterization == "v" else "epsilon"


def _text_configs(params: Mapping[str, Any]) -> list[TextConfig]:
    if "conditioner_config" in params:
        embedders = params["conditioner_config"]["params"]["emb_models"]
        rows = [row for row in embedders if row.get("input_key") == "txt"]
    else:
        rows = [params["cond_stage_config"]] if "cond_stage_config" in params else []
    return [_text_config(row.get("params") or {}) for row in rows]


def _text_config(params: Mapping[str, Any]) -> TextConfig:
    index = params.get("layer_idx")
    return TextConfig(
        str(params.get("version", "")), str(params.get("arch", "")), str(params.get("layer", "")),
        int(index) if index is not None else None,
    )  # fmt: skip
