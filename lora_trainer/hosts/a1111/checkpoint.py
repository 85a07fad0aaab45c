"""What the loaded checkpoint is, and which ones can't be trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from modules import devices, sd_models, sd_vae, shared

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.families import USUAL_IMAGE_SIZE, Family, PredictionType, traits
from lora_trainer.hosts.base import Glance, ModelInfo, TextEncoder
from lora_trainer.hosts.webui.fingerprint import fingerprint
from lora_trainer.hosts.webui.identity import checkpoint_name, checkpoint_path, family, marks

log = logging.getLogger(__name__)


def current_model() -> Any:
    """The loaded model, after bringing it in line with the checkpoint chosen at the top; call it with the queue held.

    Raises:
        UnsupportedModelError: if there is none, or not one that can be trained.
    """
    try:
        loaded = shared.sd_model is not None  # may load it now, which takes its time
        if loaded:
            sd_models.reload_model_weights()
    except Exception as error:  # a checkpoint can fail in any way; the WebUI's log has the traceback
        log.exception("Loading the chosen checkpoint")
        raise UnsupportedModelError(f"The chosen checkpoint can't be loaded ({error}); choose another one.") from error
    model = shared.sd_model
    if model is None:
        raise UnsupportedModelError("No checkpoint is loaded; choose one at the top left of the page.")
    refuse(model)
    return model


def refuse(model: Any) -> None:
    """Refuse what can't be trained.

    Raises:
        UnsupportedModelError: one sentence that says what to change.
    """
    reason = _reason(model)
    if reason:
        raise UnsupportedModelError(reason)


def _reason(model: Any) -> str:
    name = checkpoint_name(model)
    another = "choose an SD 1.x, SD 2.x or SDXL checkpoint."
    if shared.cmd_opts.lowvram:
        return (
            "The WebUI runs with --lowvram, which keeps parts of the model elsewhere; start it with --medvram or "
            "without either."
        )
    if getattr(model, "is_sd3", False) or not hasattr(getattr(model, "model", None), "diffusion_model"):
        return f"{name} is an SD 3 or other new kind of model; {another}"
    if getattr(model, "is_ssd", False):
        return f"{name} is a distilled SSD-1B model, whose layers have no LoRA names; {another}"
    if getattr(model, "cond_stage_key", "") == "edit":
        return f"{name} is an instruct-pix2pix (edit) model; train on the checkpoint that it was made from."
    if getattr(model, "is_sdxl_inpaint", False) or _input_channels(model) == 9:
        return f"{name} is an inpainting model; train on its normal version; the LoRA will work with both."
    if getattr(model.model, "conditioning_key", "crossattn") != "crossattn" or _input_channels(model) != 4:
        return f"{name} needs more than a prompt as input (depth, unCLIP, upscaler); {another}"
    if devices.fp8 or any("float8" in str(p.dtype) for p in model.model.parameters()):
        return "The weights are stored as FP8; set Settings → Optimizations → FP8 weight to Disable."
    if not encoders(model):
        return f"{name} has no CLIP text encoders as SD 1.x, SD 2.x and SDXL have (a refiner?); {another}"
    where = next(model.model.parameters()).device
    if where.type == "meta" or (not model.lowvram and where.type != torch.device(devices.device).type):
        return f"{name} is unloaded; load it again with Settings → Actions → Load SD checkpoint."
    return ""


def _input_channels(model: Any) -> int:
    return int(model.model.diffusion_model.input_blocks[0][0].weight.shape[1])


def encoders(model: Any) -> list[TextEncoder]:
    """The text encoders inside the WebUI's wrappers; empty if they are of a kind that can't get a LoRA."""
    row = traits(family(model))
    if len(row.lora_text) == 2:
        wrapped: list[Any] = [getattr(embedder, "wrapped", None) for embedder in list(model.conditioner.embedders)[:2]]
        if len(wrapped) < 2 or not hasattr(wrapped[0], "transformer") or not hasattr(wrapped[1], "model"):
            return []
        return [
            TextEncoder(wrapped[0].transformer, row.lora_text[0], "transformers"),
            TextEncoder(wrapped[1].model, row.lora_text[1], "open_clip"),
        ]
    wrapped_one: Any = getattr(model.cond_stage_model, "wrapped", None)
    if hasattr(getattr(wrapped_one, "model", None), "transformer"):
        return [TextEncoder(wrapped_one.model, row.lora_text[0], "open_clip")]
    if hasattr(getattr(wrapped_one, "transformer", None), "text_model"):
        return [TextEncoder(wrapped_one.transformer, row.lora_text[0], "transformers")]
    return []


def describe(model: Any) -> ModelInfo:
    """What the model is; leftovers of LoRAs have to be out of its weights for the fingerprints to mean the base."""
    kind = family(model)
    v_prediction = getattr(model, "parameterization", "eps") == "v"
    vae_file = sd_vae.loaded_vae_file
    settings = f"{shared.opts.data.get('sdxl_clip_l_skip', False)}"
    return ModelInfo(
        family=kind,
        prediction_type="v_prediction" if v_prediction else "epsilon",
        naming="ldm",
        checkpoint=checkpoint_name(model),
        checkpoint_sha256=model.sd_checkpoint_info.sha256 or "",
        checkpoint_path=checkpoint_path(model),
        vae=Path(vae_file).name if vae_file else "",
        vae_sha256=_vae_sha256(vae_file),
        vae_fingerprint=fingerprint([model.first_stage_model], f"{model.scale_factor}"),
        text_fingerprint=fingerprint([encoder.module for encoder in encoders(model)], settings),
        resolution=_resolution(model, kind, v_prediction),
    )


def glance(model: Any) -> Glance:
    """What is told without reading weights."""
    kind = family(model)
    v_prediction = getattr(model, "parameterization", "eps") == "v"
    predicts: PredictionType = "v_prediction" if v_prediction else "epsilon"
    resolution, reason = _resolution(model, kind, v_prediction), _reason(model)
    path = checkpoint_path(model)
    return Glance(checkpoint_name(model), kind, resolution, reason, predicts, marks(model), path)


def _vae_sha256(file: str | None) -> str:
    from modules import hashes

    return (hashes.sha256(file, "vae") or "") if file else ""


def _resolution(model: Any, kind: Family, v_prediction: bool) -> int:
    native = traits(kind).native_resolution("v_prediction" if v_prediction else "epsilon")
    size = getattr(model, "image_size", USUAL_IMAGE_SIZE)  # of the latent, from the checkpoint's config
    return 8 * size if isinstance(size, int) and size != USUAL_IMAGE_SIZE else native
