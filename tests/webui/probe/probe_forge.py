"""What the probe asks Forge Neo, Forge, ersatzForge and reForge."""

from __future__ import annotations

from typing import Any

import torch
from modules import processing, sd_models, shared
from modules.call_queue import queue_lock

try:
    from backend import memory_management
    from backend.nn import unet as attention_user

    ATTENTION, RELOAD = "attention_function", "forge_model_reload"
except ImportError:  # reForge
    from ldm_patched.ldm.modules import attention as attention_user
    from ldm_patched.modules import model_management as memory_management

    ATTENTION, RELOAD = "optimized_attention", "reload_model_weights"


def parts() -> dict[str, torch.nn.Module]:
    """The model's parts."""
    objects = shared.sd_model.forge_objects_original
    return {
        "unet": objects.unet.model, "vae": objects.vae.first_stage_model, "text": objects.clip.cond_stage_model,
    }  # fmt: skip


def condition() -> dict[str, Any]:
    """What only these WebUIs have and a trainer may have left changed."""
    model = shared.sd_model
    return {
        "circular": model.tiling_enabled,
        "attention": getattr(attention_user, ATTENTION).__name__,
        "reload": [getattr(holder, RELOAD).__module__ for holder in (sd_models, processing) if hasattr(holder, RELOAD)],
        "loaded": sorted(type(one.model.model).__name__ for one in memory_management.current_loaded_models),
        "loras": model.current_lora_hash,
        "own_unet": model.forge_objects.unet.model is model.forge_objects_original.unet.model,
    }


def taken() -> Any:
    """The model as a run takes it."""
    from lora_trainer.hosts.forge.model import ForgeModel

    return ForgeModel(shared.sd_model, lambda request: None)


def captions(texts: list[str], length: int, clip_skip: int) -> dict[str, Any]:
    """The same texts through our encoding and through the WebUI's prompt encoder."""
    model = shared.sd_model
    with queue_lock, torch.no_grad():
        held = taken()
        try:
            ours = held.encode_captions(texts, length, clip_skip)
        finally:
            held.close()
        before = dict(shared.opts.data)
        shared.opts.data["CLIP_stop_at_last_layers"] = clip_skip
        if hasattr(model, "set_clip_skip"):
            model.set_clip_skip(clip_skip)
        try:
            theirs = model.get_learned_conditioning(texts)
        finally:
            shared.opts.data.clear()
            shared.opts.data.update(before)
    extra = 0.0
    if isinstance(theirs, dict):
        extra = float((ours.pooled - theirs["vector"][:, : ours.pooled.shape[1]]).abs().max())
        theirs = theirs["crossattn"]
    same = theirs.shape == ours.context.shape
    difference = float((theirs - ours.context).abs().max()) if same else None
    return {"ours": list(ours.context.shape), "theirs": list(theirs.shape), "difference": difference, "pooled": extra}


def prediction() -> float:
    """How far our call of the UNet is from the one that sampling makes."""
    wrapped = shared.sd_model.forge_objects_original.unet.model
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    steps = torch.tensor([50, 700])
    with queue_lock, torch.no_grad():
        held = taken()
        try:
            conditioning = held.encode_captions(["a red ball", "blue"], 75, 1)
            ours = held.predict(x, steps, conditioning, [])
        finally:
            held.close()
    with queue_lock, torch.inference_mode():
        schedule = wrapped.predictor if hasattr(wrapped, "predictor") else wrapped.model_sampling
        sigma = schedule.sigma(steps)
        noisy = x * (sigma**2 + 1).sqrt().view(-1, 1, 1, 1)
        denoised = wrapped.apply_model(noisy, sigma, c_crossattn=conditioning.context)
        theirs = (noisy - denoised) / sigma.view(-1, 1, 1, 1)
        return float((ours - theirs).abs().max())


def latents() -> float:
    """How far our moments are from the WebUI's own encoding of an image: a sample; newer backends take the mean."""
    from lora_trainer.hosts.forge import vae

    model = shared.sd_model
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with queue_lock:
        mean, std = vae.latent_moments(model, image)
        torch.manual_seed(0)
        sample = model.encode_first_stage(image)
        torch.manual_seed(0)
        sampled = mean + std * torch.randn(mean.shape)
        return min(float((ours - sample).abs().max()) for ours in (sampled, mean))


def tile(on: bool) -> None:
    """As after a tiled picture."""
    processing.apply_circular_forge(shared.sd_model, on)


def spoil_attention(on: bool) -> None:
    """An attention that gives no gradients."""
    before = getattr(attention_user, ATTENTION)
    if not on:
        setattr(attention_user, ATTENTION, before.before)
        return

    def dead(*arguments: Any, **values: Any) -> Any:
        return before(*arguments, **values).detach()

    dead.before = before
    setattr(attention_user, ATTENTION, dead)
