"""What the probe asks AUTOMATIC1111's WebUI."""

from __future__ import annotations

from typing import Any

import torch
from modules import devices, lowvram, sd_hijack, sd_models, sd_unet, shared


def parts() -> dict[str, torch.nn.Module]:
    """The model's parts."""
    model = shared.sd_model
    return {"unet": model.model, "vae": model.first_stage_model, "text": model.cond_stage_model}


def condition() -> dict[str, Any]:
    """What only this WebUI has and a trainer may have left changed."""
    return {
        "hypernetworks": [repr(one) for one in shared.loaded_hypernetworks],
        "circular": sd_hijack.model_hijack.circular_enabled,
        "attention": str(getattr(sd_hijack.current_optimizer, "name", None)),
        "unet_option": str(sd_unet.current_unet_option),
        "merged_tokens": getattr(shared.sd_model, "applied_token_merged_ratio", 0),
        "reload": sd_models.reload_model_weights.__module__,
        "dtype_vae": str(devices.dtype_vae),
        "on_gpu": str(lowvram.module_in_gpu),
    }


def captions(texts: list[str], length: int, clip_skip: int) -> dict[str, Any]:
    """The same texts through our encoding and through the WebUI's prompt encoder."""
    from modules.call_queue import queue_lock

    from lora_trainer.hosts.a1111 import text

    model = shared.sd_model
    with queue_lock, torch.no_grad(), devices.autocast():
        ours = text.encode_captions(model, texts, length, clip_skip)
        before = dict(shared.opts.data)
        shared.opts.data["CLIP_stop_at_last_layers"] = clip_skip
        try:
            theirs = model.get_learned_conditioning(texts)
        finally:
            shared.opts.data.clear()
            shared.opts.data.update(before)
    if isinstance(theirs, dict):
        pooled = ours.pooled - theirs["vector"][:, : ours.pooled.shape[1]]
        theirs, extra = theirs["crossattn"], float(pooled.abs().max())
    else:
        extra = 0.0
    same = theirs.shape == ours.context.shape
    difference = float((theirs - ours.context).abs().max()) if same else None
    return {"ours": list(ours.context.shape), "theirs": list(theirs.shape), "difference": difference, "pooled": extra}


def prediction() -> float:
    """How far our call of the UNet is from the one that sampling makes."""
    from modules.call_queue import queue_lock
    from modules.prompt_parser import SdConditioning

    from lora_trainer.hosts.a1111.model import A1111Model
    from lora_trainer.hosts.base import SizeConditioning

    model = shared.sd_model
    with queue_lock:
        taken = A1111Model(model, lambda request: None)
        try:
            generator = torch.Generator().manual_seed(3)
            x = torch.randn(2, 4, 8, 8, generator=generator)
            steps = torch.tensor([5, 700])
            with torch.no_grad(), devices.autocast():
                ours = taken.predict(
                    x,
                    steps,
                    taken.encode_captions(["a red ball", "blue"], 75, 1),
                    [SizeConditioning((64, 96), (0, 0), (64, 96))] * 2,
                )
                theirs = model.get_learned_conditioning(SdConditioning(["a red ball", "blue"], width=96, height=64))
                condition = theirs if isinstance(theirs, dict) else {"c_crossattn": [theirs]}
                wanted = model.apply_model(x.to(devices.device), steps.to(devices.device), condition)
        finally:
            taken.close()
    return float((ours - wanted.float()).abs().max())


def latents() -> float:
    """How far our moments are from the WebUI's own encoding of an image (mean; its sample minus its noise)."""
    from modules.call_queue import queue_lock

    from lora_trainer.hosts.a1111 import vae

    model = shared.sd_model
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with queue_lock, torch.no_grad():
        mean, std = vae.latent_moments(model, image)
        torch.manual_seed(0)
        sample = model.get_first_stage_encoding(model.encode_first_stage(image.to(devices.device, devices.dtype_vae)))
        torch.manual_seed(0)
        noise = torch.randn(mean.shape)
    return float((mean + std * noise - sample).abs().max())


def taken() -> Any:
    """The model as a run takes it."""
    from lora_trainer.hosts.a1111.model import A1111Model

    return A1111Model(shared.sd_model, lambda request: None)


def tile(on: bool) -> None:
    """As after a tiled picture."""
    sd_hijack.model_hijack.apply_circular(on)


def spoil_attention(on: bool) -> None:
    """An attention that gives no gradients."""
    from modules import sd_hijack_optimizations

    class Dead(sd_hijack_optimizations.SdOptimizationSdp):
        name, label, cmd_opt, priority = "dead", "no gradients", None, 0

        def apply(self) -> None:
            super().apply()
            import ldm.modules.attention
            import sgm.modules.attention

            for holder in (ldm.modules.attention.CrossAttention, sgm.modules.attention.CrossAttention):
                forward = holder.forward

                def detached(self: Any, *a: Any, _forward: Any = forward, **k: Any) -> Any:
                    return _forward(self, *a, **k).detach()

                holder.forward = detached

    if on:
        sd_hijack.optimizers.append(Dead())
        sd_hijack.model_hijack.apply_optimizations("dead - no gradients")
    else:
        sd_hijack.optimizers[:] = [one for one in sd_hijack.optimizers if one.name != "dead"]
        sd_hijack.model_hijack.apply_optimizations()
