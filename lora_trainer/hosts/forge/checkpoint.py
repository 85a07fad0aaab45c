"""What the loaded checkpoint is, and which ones can't be trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from modules import hashes, sd_models, sd_vae, shared
from torch import nn

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.families import PredictionType, traits
from lora_trainer.hosts.base import Glance, ModelInfo, TextEncoder
from lora_trainer.hosts.forge import text
from lora_trainer.hosts.forge.backend import alphas_cumprod, diffusion, prediction_type, scaled
from lora_trainer.hosts.forge.tensors import ordinary_tensors
from lora_trainer.hosts.webui.fingerprint import fingerprint
from lora_trainer.hosts.webui.identity import checkpoint_name, checkpoint_path, family, marks

log = logging.getLogger(__name__)

TRAINABLE = (torch.float32, torch.float16, torch.bfloat16)
ANOTHER = "choose an SD 1.x, SD 2.x or SDXL checkpoint."


def loaded_model() -> Any | None:
    """The model in memory; None where there is only the stand-in of a WebUI that has loaded nothing yet."""
    model = sd_models.model_data.sd_model
    return model if hasattr(model, "forge_objects_original") else None


def current_model() -> Any:
    """The loaded model, after bringing it in line with the checkpoint chosen at the top; call it with the queue held.

    Raises:
        UnsupportedModelError: if there is none, or not one that can be trained.
    """
    try:
        _load()
    except Exception as error:  # a checkpoint can fail in any way; the WebUI's log has the traceback
        log.exception("Loading the chosen checkpoint")
        raise UnsupportedModelError(f"The chosen checkpoint can't be loaded ({error}); choose another one.") from error
    model = loaded_model()
    if model is None:
        raise UnsupportedModelError("No checkpoint is loaded; choose one at the top left of the page.")
    reason = _reason(model)
    if reason:
        raise UnsupportedModelError(reason)
    return model


def _load() -> None:
    if not hasattr(sd_models, "forge_model_reload"):
        sd_models.reload_model_weights()
        return
    if not sd_models.model_data.forge_loading_parameters:
        from modules_forge import main_entry

        main_entry.refresh_model_loading_parameters()
    sd_models.forge_model_reload()


def _reason(model: Any) -> str:
    name = checkpoint_name(model)
    unet = diffusion(model).diffusion_model
    if not hasattr(unet, "input_blocks"):
        return f"{name} is a {type(unet).__name__} model, which has no UNet; {ANOTHER}"
    if prediction_type(model) not in ("epsilon", "v_prediction") or alphas_cumprod(model) is None:
        return f"{name} is a rectified-flow model (or another one without diffusion's noise schedule); {ANOTHER}"
    stored = next(_stored_otherwise([unet]), "")
    if stored:
        return f"{name}'s UNet is stored as {stored}; choose Automatic for Diffusion in Low Bits, or its fp16 version."
    if int(unet.input_blocks[0][0].weight.shape[1]) == 9:
        return f"{name} is an inpainting model; train on its normal version; the LoRA will work with both."
    if int(unet.input_blocks[0][0].weight.shape[1]) != 4:
        return f"{name} needs more than a prompt as input (depth, edit, unCLIP, upscaler); {ANOTHER}"
    found = encoders(model)
    if not found:
        return f"{name} has no CLIP text encoders as SD 1.x, SD 2.x and SDXL have (a refiner?); {ANOTHER}"
    stored = next(_stored_otherwise([encoder.module for encoder in found]), "")
    if stored:
        return f"{name}'s text encoder is stored as {stored}; load it in fp16."
    if any(weight.is_meta for weight in unet.parameters()):
        return f"{name} is unloaded; make a picture with it, which loads it again."
    return ""


def _stored_otherwise(modules: list[nn.Module]) -> Iterator[str]:
    """How weights are stored that aren't plain numbers of a type that can be trained with."""
    for module in (part for root in modules for part in root.modules()):
        if hasattr(module, "qweight") or "SVDQ" in type(module).__name__:
            yield "4-bit integers (nunchaku)"
        for weight in module.parameters(recurse=False):
            if getattr(weight, "gguf_cls", None) is not None:
                yield "GGUF"
            elif getattr(weight, "quant_type", None) in ("nf4", "fp4") or hasattr(weight, "bnb_quantized"):
                yield f"{getattr(weight, 'quant_type', None) or 'nf4'} (bitsandbytes)"
            elif "quantized" in type(weight.data).__name__.lower():
                yield f"a quantised format ({type(weight.data).__name__})"
            elif weight.dtype not in TRAINABLE:
                yield str(weight.dtype).removeprefix("torch.")


def encoders(model: Any) -> list[TextEncoder]:
    """The text encoders; empty if they aren't those of the family. All are transformers' here, the second one too."""
    found, names = text.towers(model), traits(family(model)).lora_text
    if len(found) != len(names):
        return []
    return [TextEncoder(tower, name, "transformers") for tower, name in zip(found, names, strict=True)]


def describe(model: Any) -> ModelInfo:
    """What the model is; leftovers of LoRAs have to be out of its weights for the fingerprints to mean the base."""
    objects, kind, vae_file = model.forge_objects_original, family(model), _chosen_vae()
    first = objects.vae.first_stage_model
    scale = scaled(model, torch.ones(1, 4, 1, 1)).flatten().tolist()
    with ordinary_tensors(text.transformers(model), in_fp32=text.in_fp32(model)):
        read = fingerprint([encoder.module for encoder in encoders(model)], "")
    return ModelInfo(
        family=kind,
        prediction_type=_prediction_type(model),
        naming="ldm",
        checkpoint=checkpoint_name(model),
        checkpoint_sha256=model.sd_checkpoint_info.sha256 or "",
        checkpoint_path=checkpoint_path(model),
        vae=Path(vae_file).name if vae_file else "",
        vae_sha256=(hashes.sha256(vae_file, "vae") or "") if vae_file else "",
        vae_fingerprint=fingerprint([first], f"{scale}"),
        text_fingerprint=read,
        resolution=_resolution(model),
    )


def glance(model: Any) -> Glance:
    """What is told without reading weights."""
    return Glance(
        checkpoint_name(model), family(model), _resolution(model), _reason(model), _prediction_type(model),
        marks(model), checkpoint_path(model),
    )  # fmt: skip


def _resolution(model: Any) -> int:
    return traits(family(model)).native_resolution(_prediction_type(model))


def _prediction_type(model: Any) -> PredictionType:
    return "v_prediction" if prediction_type(model) == "v_prediction" else "epsilon"


def _chosen_vae() -> str | None:
    """The file of a VAE chosen beside the checkpoint; the same list has text encoders."""
    chosen = shared.opts.data.get("forge_additional_modules")
    if chosen is None:
        return getattr(sd_vae, "loaded_vae_file", None)
    return next((file for file in chosen if Path(file).name in sd_vae.vae_dict), None)
