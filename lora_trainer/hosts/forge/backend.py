"""Where these WebUIs keep what the adapter uses: in Forge's ``backend`` or in reForge's ``ldm_patched``.

Both come from one source; what differs between them is asked for here by what is there, nowhere by name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    from backend import attention, memory_management, utils
    from backend.nn import unet as unet_module
    from backend.patcher import lora
except ImportError:
    from ldm_patched.ldm.modules import attention
    from ldm_patched.modules import lora, utils
    from ldm_patched.modules import model_management as memory_management

    unet_module = attention

FUSED = attention.attention_pytorch
USED = next(name for name in ("attention_function", "optimized_attention") if hasattr(unet_module, name))

__all__ = ["FUSED", "USED", "lora", "memory_management", "unet_module", "utils"]


def diffusion(model: Any) -> Any:
    """The WebUI's wrapper of the UNet."""
    return model.forge_objects_original.unet.model


def prediction_type(model: Any) -> str:
    """``epsilon``, ``v_prediction`` or something else, which can't be trained."""
    wrapped = diffusion(model)
    if hasattr(wrapped, "predictor"):
        return str(wrapped.predictor.prediction_type)
    kinds = [kind.__name__ for kind in type(wrapped.model_sampling).__mro__]
    if "ModelSamplingDiscrete" not in kinds or "EDM" in kinds:
        return "other"
    return "v_prediction" if "V_PREDICTION" in kinds else "epsilon" if "EPS" in kinds else "other"


def alphas_cumprod(model: Any) -> Tensor | None:
    """The noise schedule before a rescale to zero SNR, on the CPU; None for a model without one."""
    predictor = getattr(diffusion(model), "predictor", None)
    found = getattr(predictor, "alphas_cumprod", None)
    if predictor is None:
        found = getattr(model, "alphas_cumprod_original", getattr(model, "alphas_cumprod", None))
    return None if found is None else found.detach().float().cpu().clone()


def computation_dtype(model: Any) -> torch.dtype:
    """The number format in which the UNet computes; its weights may be stored in a smaller one."""
    wrapped = diffusion(model)
    found = getattr(wrapped, "computation_dtype", None) or getattr(wrapped, "manual_cast_dtype", None)
    return found if isinstance(found, torch.dtype) else wrapped.get_dtype()


def scaled(model: Any, latents: Tensor) -> Tensor:
    """The VAE's latents as the UNet wants them."""
    first = model.forge_objects_original.vae.first_stage_model
    owner = first if hasattr(first, "process_in") else diffusion(model).model_config.latent_format
    return owner.process_in(latents)


def ends_in_noise(model: Any) -> bool:
    """Whether the checkpoint says of itself that it was trained with zero SNR."""
    return bool(getattr(getattr(model, "model_config", model), "ztsnr", False))
