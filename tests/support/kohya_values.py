"""A telling value for every name of kohya's, and what else it needs to have a say."""

from __future__ import annotations

from typing import Any

from lora_trainer.config import OPTIONS, OptionRow

SPECIAL_VALUES = {
    "log_with": "tensorboard", "resize_interpolation": "lanczos", "save_n_epoch_ratio": "2",
    "network_module": "networks.lora_fa", "network_args": "rank_dropout=0.1", "LoRA_type": "Kohya LoCon",
    "additional_parameters": "--min_snr_gamma 5", "noise_offset_type": "Multires",
    "network_train": "Unet only", "save_model_as": "ckpt", "max_resolution": "640,640", "lr_scheduler": "linear",
    "optimizer": "Lion", "optimizer_args": "weight_decay=0.1", "lr_scheduler_args": "T_max=9", "loss_type": "l1",
    "huber_schedule": "constant", "mixed_precision": "bf16", "save_precision": "bf16", "max_token_length": "150",
    "down_lr_weight": "cosine", "mid_lr_weight": "0.5", "up_lr_weight": "sine", "xformers": "sdpa",
    "text_encoder_lr": 0.5, "unet_lr": "0.5", "learning_rate": "0.5", "caption_extension": ".cap", "seed": "7",
    "block_dims": ",".join("3" * 25), "block_alphas": ",".join("3" * 25), "conv_block_dims": ",".join("3" * 25),
    "conv_dims": ",".join("3" * 25), "conv_block_alphas": ",".join("3" * 25), "conv_alphas": ",".join("3" * 25),
    "sdxl_max_timestep": 900, "max_timestep": 900, "max_train_steps": "3", "max_train_epochs": "3",
    "cache_latent": False,
}  # fmt: skip
NEEDS = {  # other keys without which a name has no say
    "conv_dim": {"LoRA_type": "Kohya LoCon"}, "conv_alpha": {"LoRA_type": "Kohya LoCon"},
    "adaptive_noise_scale": {"noise_offset": 0.1}, "dim_from_weights": {"network_weights": "a.safetensors"},
    "multires_noise_iterations": {"noise_offset_type": "Multires"},
    "multires_noise_discount": {"noise_offset_type": "Multires"},
    "noise_offset_type": {"multires_noise_iterations": 6, "noise_offset": 0.1},
    "block_alphas": {"down_lr_weight": "cosine"}, "conv_block_dims": {"down_lr_weight": "cosine"},
    "conv_dims": {"down_lr_weight": "cosine"},
    "conv_block_alphas": {"down_lr_weight": "cosine", "conv_block_dims": ",".join("3" * 25)},
    "conv_alphas": {"down_lr_weight": "cosine", "conv_block_dims": ",".join("3" * 25)},
    **{name: {"LoRA_type": "LyCORIS/LoHa"} for name in ("dora_wd", "train_norm", "use_tucker")},
    **{name: {"LoRA_type": "LyCORIS/LoKr"} for name in ("decompose_both", "factor")},
    **{name: {"LoRA_type": "LyCORIS/Diag-OFT"} for name in ("constrain", "rescaled")},
    "unit": {"LoRA_type": "Kohya DyLoRA"}, "train_on_input": {"LoRA_type": "LyCORIS/iA3"},
    "color_aug": {"cache_latents": False},
    "random_crop": {"cache_latents": False},
}  # fmt: skip


def telling_value(name: str) -> Any:
    """A value that isn't the default, so that it must show somewhere."""
    row: OptionRow | None = OPTIONS.get(name)
    if name in SPECIAL_VALUES:
        return SPECIAL_VALUES[name]
    if row is None:
        return "3"
    if row.type.startswith("bool"):
        return not row.default
    return "x" if row.type == "str" else str(int(row.default or 0) + 64 if row.multiple else 0.5)
