"""Which model a file holds, from its tensor names and shapes alone; what can't be trained is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.checkpoint_marks import Marks, marks_of
from lora_trainer.errors import UnsupportedModelError
from lora_trainer.families import USUAL_IMAGE_SIZE, Family, PredictionType, family_of_unet, traits
from lora_trainer.hosts.standalone.checkpoint_file import CheckpointFile, Shapes, open_checkpoint
from lora_trainer.hosts.standalone.ldm_config import LdmConfig, read_config
from lora_trainer.safetensors_file import whole_number

UNET = "model.diffusion_model."
VAE = "first_stage_model."


@dataclass(frozen=True)
class Detected:
    """What a checkpoint is. ``prediction_type`` is None where only running the UNet can tell (SD 2.x)."""

    file: CheckpointFile
    config: LdmConfig
    family: Family
    prediction_type: PredictionType | None
    marks: Marks

    def resolution(self, prediction_type: PredictionType) -> int:
        """Native side in pixels: what the config or the metadata say, else the family's."""
        if self.config.image_size and self.config.image_size != USUAL_IMAGE_SIZE:
            return self.config.image_size * 8
        side = self.file.metadata.get("modelspec.resolution", "").partition("x")[0]
        if stated := whole_number(side, 16384):
            return stated
        return traits(self.family).native_resolution(prediction_type)


def detect(path: Path) -> Detected:
    """Say what the checkpoint at ``path`` is, reading no weights (of a safetensors file).

    Raises:
        FileError: in one sentence, if it can't be read.
        UnsupportedModelError: in one sentence that names the kind of model, if it can't be trained.
    """
    file = open_checkpoint(path)
    kind = refused_kind(file.shapes)
    if kind:
        raise UnsupportedModelError(
            f"{path.name} is {kind}, which can't be trained here; use an SD 1.x, SD 2.x or SDXL checkpoint."
        )
    family = _family(file.shapes)
    missing = next((what for what, prefix in _parts(family) if not _any(file.shapes, prefix)), None)
    if missing:
        raise UnsupportedModelError(
            f"{path.name} has no {missing}; use a checkpoint that holds UNet, VAE and text encoder in one file."
        )
    config = read_config(path)
    marks = marks_of(path, file.shapes, file.metadata)
    return Detected(file, config, family, _prediction_type(file, config, family, marks), marks)


def _family(shapes: Shapes) -> Family:
    linear = len(shapes.get(f"{UNET}input_blocks.1.1.proj_in.weight", ())) == 2
    return family_of_unet(f"{UNET}label_emb.0.0.weight" in shapes, linear)


def _parts(family: Family) -> Iterable[tuple[str, str]]:
    yield "VAE", VAE
    for prefix in traits(family).checkpoint_text:
        yield "text encoder", prefix


def _prediction_type(file: CheckpointFile, config: LdmConfig, family: Family, marks: Marks) -> PredictionType | None:
    """The first that says something: config beside the file, header, marker tensor; then ε except for SD 2.x."""
    if config.prediction_type:
        return config.prediction_type
    if marks.v_prediction:
        return "v_prediction"
    stated = file.metadata.get("modelspec.prediction_type", "").lower()
    return None if traits(family).both_predictions and stated != "epsilon" else "epsilon"


def refused_kind(shapes: Shapes) -> str | None:
    """The name of the unsupported kind of file, with its article; None if it looks like a known Stable Diffusion."""
    for kind, sign in SIGNS:
        if sign(shapes):
            return kind
    return None if f"{UNET}input_blocks.0.0.weight" in shapes else "a file without a Stable Diffusion UNet"


def _any(shapes: Shapes, *parts: str) -> bool:
    """Whether a name contains one of ``parts``."""
    return any(part in name for name in shapes for part in parts)


def _contains(*parts: str) -> Callable[[Shapes], bool]:
    return lambda shapes: _any(shapes, *parts)


def _starts(*prefixes: str) -> Callable[[Shapes], bool]:
    return lambda shapes: any(name.startswith(prefixes) for name in shapes)


def _channels_in(count: int) -> Callable[[Shapes], bool]:
    return lambda shapes: (*shapes.get(f"{UNET}input_blocks.0.0.weight", ()), 0, 0)[1] == count


def _is_refiner(shapes: Shapes) -> bool:
    return _any(shapes, "conditioner.embedders.0.model.") and not _any(shapes, "conditioner.embedders.1.")


def _has_no_middle_attention(shapes: Shapes) -> bool:
    return _any(shapes, UNET + "middle_block.") and not _any(shapes, UNET + "middle_block.1.transformer_blocks.0.")


def _is_only(*prefixes: str) -> Callable[[Shapes], bool]:
    return lambda shapes: bool(shapes) and all(name.startswith(prefixes) for name in shapes)


# In this order: files that aren't checkpoints, other architectures, then other members of the Stable Diffusion family.
SIGNS: tuple[tuple[str, Callable[[Shapes], bool]], ...] = (
    ("an empty file", lambda shapes: not shapes),
    ("a LoRA file", _contains(".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", "lora_unet_", "hada_w1", "lokr_w1")),
    ("a textual inversion embedding", _is_only("emb_params", "string_to_param", "clip_l", "clip_g")),
    ("a ControlNet", _contains("control_model.", "input_hint_block.", "controlnet_", "zero_convs.")),
    ("a quantised model", _contains(".absmax", ".quant_map", "quant_state", ".scale_weight", "scaled_fp8")),
    ("an SD3 checkpoint", _contains("joint_blocks.", "pos_embed_input")),
    ("a Hunyuan Video checkpoint", _contains("double_blocks.0.img_attn_qkv.", "individual_token_refiner.")),
    ("a Flux checkpoint", _contains("double_blocks.", "single_transformer_blocks.")),
    ("an AuraFlow checkpoint", _contains("double_layers.")),
    ("a PixArt checkpoint", _contains("adaln_single.", "y_embedder.y_embedding")),
    ("a HunyuanDiT checkpoint", _contains("mlp_t5.", "text_embedding_padding")),
    ("a Lumina or Z-Image checkpoint", _contains("cap_embedder.")),
    ("a Qwen-Image checkpoint", _contains(".img_mod.", "txt_norm.")),
    ("a Wan checkpoint", _contains("blocks.0.cross_attn.norm_q.")),
    ("an LTX Video checkpoint", _contains("patchify_proj.")),
    ("a Stable Cascade checkpoint", _contains("clip_txt_pooled_mapper.", "effnet_mapper.", "clf.1.weight")),
    ("an AltDiffusion checkpoint", _contains("cond_stage_model.roberta.")),
    ("a Stable Video Diffusion checkpoint", _contains(".time_stack.", ".time_mixer.")),
    ("a motion module or a checkpoint with one", _contains("motion_modules.", "temporal_transformer.")),
    ("an SDXL refiner checkpoint", _is_refiner),
    ("an inpainting checkpoint (9 input channels)", _channels_in(9)),
    ("an instruct-pix2pix checkpoint (8 input channels)", _channels_in(8)),
    ("an upscaling checkpoint (7 input channels)", _channels_in(7)),
    ("a depth-to-image checkpoint (5 input channels)", _channels_in(5)),
    ("an SD 2.1 unCLIP checkpoint", _contains("embedder.model.visual.", "noise_augmentor.")),
    ("an SSD-1B or Vega checkpoint (SDXL without middle attention)", _has_no_middle_attention),
    ("a diffusers UNet without VAE and text encoder", _starts("down_blocks.", "unet.down_blocks.")),
    ("a VAE", lambda shapes: not _any(shapes, UNET) and _any(shapes, "decoder.conv_in.", "decoder.conv_out.")),
    ("a text encoder", lambda shapes: not _any(shapes, UNET) and _any(shapes, "token_embedding.")),
)
