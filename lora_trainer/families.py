"""The model families. Everything that depends on whether a model is SD 1, SD 2 or SDXL stands here, as a field.

No other file compares a family's name: who needs to know something about a family asks :func:`traits` for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["sd1", "sd2", "sdxl"]
PredictionType = Literal["epsilon", "v_prediction"]

USUAL_IMAGE_SIZE = 64  # latent side in every published config, whatever the model's true size

SD1: Family = "sd1"
SD2: Family = "sd2"
SDXL: Family = "sdxl"


@dataclass(frozen=True)
class Traits:
    """What the trainer needs to know of a family.

    Attributes:
        label: as it is shown to people.
        card: the WebUI's word on a LoRA's card ("sd version").
        resolution: native side in pixels of models that predict noise, and of those that predict v.
        both_predictions: files of either kind exist without a mark, so that only running the UNet tells.
        context_width: width of the encoded captions; LoRA files are told apart by it.
        checkpoint_text: prefixes of the text encoders' weights in a checkpoint.
        lora_text: kohya's prefixes of the text encoders' LoRA, in the same order.
        skips_last_text_layer: SD 2 was trained on the output of the last layer but one; the last one has no use.
        hidden_text_output: the UNet reads a hidden layer's output, not the last one's; ``final_norm`` says whether the
            encoder's last norm is applied to it.
        clip_skip: which hidden layer is read may be chosen.
        sized: the UNet is told the sizes of the image and a pooled caption.
        zero_empty_negative: an empty negative prompt is encoded as zeros.
        latent_scale: factor on the VAE's latents.
        vae_overflows: the first VAE isn't finite in fp16.
        down_blocks, middle_blocks, end_blocks: the UNet's blocks as kohya's per-block lists count them; the up side has
            as many as the down side, and ``end_blocks`` stand at either end.
        ldm_keys: kohya names the UNet's modules the ldm way (else the diffusers way).
        linear_projections: files keep ``proj_in`` and ``proj_out`` as linears (else as 1x1 convolutions).
        base_version: sd-scripts' ``ss_base_model_version``; ``marks_v``: with ``_v`` behind it for v-prediction.
        architecture: ModelSpec's word for models that predict noise, and for those that predict v.
        implementation: ModelSpec's word.
    """

    label: str
    card: str
    resolution: tuple[int, int]
    both_predictions: bool
    context_width: int
    checkpoint_text: tuple[str, ...]
    lora_text: tuple[str, ...]
    skips_last_text_layer: bool
    hidden_text_output: bool
    final_norm: bool
    clip_skip: bool
    sized: bool
    zero_empty_negative: bool
    latent_scale: float
    vae_overflows: bool
    down_blocks: int
    middle_blocks: int
    end_blocks: int
    ldm_keys: bool
    linear_projections: bool
    base_version: str
    marks_v: bool
    architecture: tuple[str, str]
    implementation: str

    @property
    def blocks(self) -> int:
        """How many numbers a per-block list has."""
        return 2 * (self.down_blocks + self.end_blocks) + self.middle_blocks

    def native_resolution(self, prediction_type: PredictionType) -> int:
        """Side in pixels that models of this family and kind are made for."""
        return self.resolution[prediction_type == "v_prediction"]


_SGM = "https://github.com/Stability-AI/generative-models"
TRAITS: dict[Family, Traits] = {
    SD1: Traits(
        label="SD 1.x", card="SD1", resolution=(512, 512), both_predictions=False, context_width=768,
        checkpoint_text=("cond_stage_model.transformer.",), lora_text=("lora_te",), skips_last_text_layer=False,
        hidden_text_output=False, final_norm=True, clip_skip=True, sized=False, zero_empty_negative=False,
        latent_scale=0.18215, vae_overflows=False, down_blocks=12, middle_blocks=1, end_blocks=0, ldm_keys=False,
        linear_projections=False, base_version="sd_v1", marks_v=True,
        architecture=("stable-diffusion-v1", "stable-diffusion-v1"), implementation="diffusers",
    ),
    SD2: Traits(
        label="SD 2.x", card="SD2", resolution=(512, 768), both_predictions=True, context_width=1024,
        checkpoint_text=("cond_stage_model.model.",), lora_text=("lora_te",), skips_last_text_layer=True,
        hidden_text_output=True, final_norm=True, clip_skip=False, sized=False, zero_empty_negative=False,
        latent_scale=0.18215, vae_overflows=False, down_blocks=12, middle_blocks=1, end_blocks=0, ldm_keys=False,
        linear_projections=False, base_version="sd_v2", marks_v=True,
        architecture=("stable-diffusion-v2-512", "stable-diffusion-v2-768-v"), implementation="diffusers",
    ),
    SDXL: Traits(
        label="SDXL", card="SDXL", resolution=(1024, 1024), both_predictions=False, context_width=2048,
        checkpoint_text=("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
        lora_text=("lora_te1", "lora_te2"), skips_last_text_layer=False, hidden_text_output=True, final_norm=False,
        clip_skip=False, sized=True, zero_empty_negative=True, latent_scale=0.13025, vae_overflows=True,
        down_blocks=9, middle_blocks=3, end_blocks=1, ldm_keys=True, linear_projections=True,
        base_version="sdxl_base_v1-0", marks_v=False,
        architecture=("stable-diffusion-xl-v1-base", "stable-diffusion-xl-v1-base"), implementation=_SGM,
    ),
}  # fmt: skip


def traits(family: Family) -> Traits:
    """What there is to know of a family."""
    return TRAITS[family]


def family_of_unet(sized: bool, linear_projections: bool) -> Family:
    """The family of a UNet that takes sizes (or doesn't) and has linear (or convolutional) projections."""
    return SDXL if sized else SD2 if linear_projections else SD1


def family_of_flags(sdxl: bool, v2: bool) -> Family:
    """The family by the two flags that kohya's forms and the WebUI's models carry."""
    return SDXL if sdxl else SD2 if v2 else SD1


def family_of_context(width: int) -> Family | None:
    """The family whose encoded captions have this width."""
    return next((family for family, row in TRAITS.items() if row.context_width == width), None)


def family_of_base_version(version: str) -> Family | None:
    """The family by sd-scripts' ``ss_base_model_version``; None for one that isn't known."""
    stems: dict[str, Family] = {"sdxl": SDXL, "sd_v1": SD1, "sd_v2": SD2}
    return next((family for stem, family in stems.items() if version.startswith(stem)), None)


def family_of_lora_keys(second_text_encoder: bool) -> Family | None:
    """The family of a LoRA file that only its text encoders tell."""
    return SDXL if second_text_encoder else None
