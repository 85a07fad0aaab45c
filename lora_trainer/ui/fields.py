"""The tab's inputs for options: one component per row of the option table, bound by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from lora_trainer.config import OPTIONS, OptionRow
from lora_trainer.config.values import argument_text

GROUPS: dict[str, tuple[str, str]] = {  # title and one line, in the order of the page
    "dataset": ("Images", "Resolution, batch size, buckets and augmentation."),
    "caption": ("Captions", "Caption files, shuffling, dropout and clip skip."),
    "network": ("LoRA network", "Rank, alpha, and which parts of the model are trained."),
    "optimizer": ("Learning", "Optimiser, learning rates, epochs and seed."),
    "schedule": ("Learning-rate schedule", "How the learning rate rises and falls during training."),
    "loss": ("Noise and loss", "Noise offset, timesteps, prediction type and loss weighting."),
    "memory": ("Memory and speed", "Precision, gradient checkpointing and caches."),
    "save": ("Saving", "When the LoRA is saved, and its metadata."),
    "sample": ("Sample images", "Images made during training, to watch its progress."),
}
WORDS = {
    "lr": "learning rate", "unet": "UNet", "snr": "SNR", "ip": "IP", "vae": "VAE", "dim": "dim (rank)",
    "reso": "resolution", "aug": "augmentation", "max": "maximum", "min": "minimum", "reg": "regularisation",
    "num": "number of", "dir": "folder", "pred": "prediction", "dims": "ranks", "conv": "convolution",
}  # fmt: skip
LABELS = {  # where the words of the name say too little, or the wrong thing
    "loraplus_lr_ratio": "LoRA+ ratio", "loraplus_unet_lr_ratio": "LoRA+ ratio, UNet",
    "loraplus_text_encoder_lr_ratio": "LoRA+ ratio, text encoder", "min_snr_gamma": "Min-SNR gamma",
    "train_batch_size": "Batch size", "max_train_epochs": "Epochs", "max_train_steps": "Steps",
    "network_train_unet_only": "Train the UNet only", "conv_dim": "Convolution rank",
    "network_train_text_encoder_only": "Train the text encoder only", "network_dim": "Rank (network dim)",
    "network_alpha": "Alpha (network alpha)", "algo": "Network type", "dora_wd": "DoRA",
    "wd_on_output": "DoRA for each output", "rs_lora": "rsLoRA", "use_tucker": "Tucker decomposition",
    "factor": "LoKr factor", "decompose_both": "LoKr: low rank for both parts", "full_matrix": "LoKr: whole matrices",
    "train_on_input": "(IA)³: scale inputs", "tlora_min_rank": "T-LoRA: least share of the ranks",
    "unit": "DyLoRA: ranks trained at a step", "constraint": "OFT: constraint", "rescaled": "OFT: scale outputs, too",
    "pivotal_tuning": "Learn the trigger word (pivotal tuning)", "embedding_lr": "Learning rate of the learned word",
    "train_norm": "Train norm layers", "lycoris_preset": "Layers (LyCORIS preset)",
    "dim_from_weights": "Take the rank from that LoRA",
    "network_weights": "Continue from LoRA", "reg_data_dir": "Regularisation images", "optimizer_type": "Optimiser",
    "optimizer_args": "Optimiser arguments", "enable_bucket": "Buckets", "min_bucket_reso": "Smallest bucket side",
    "max_bucket_reso": "Largest bucket side", "bucket_reso_steps": "Bucket step", "lr_scheduler": "Schedule",
    "lr_scheduler_type": "Schedule class", "lr_scheduler_args": "Schedule class arguments",
    "v_parameterization": "V-prediction", "scale_v_pred_loss_like_noise_pred": "Scale v-prediction loss like noise",
    "v_pred_like_loss": "V-prediction-like loss", "sample_at_first": "Sample before the first step",
    "vae_batch_size": "Batch size while caching", "gradient_accumulation_steps": "Gradient accumulation",
    "bucket_no_upscale": "Don't enlarge images", "color_aug": "Colour augmentation",
    "prior_loss_weight": "Weight of regularisation images", "caption_tag_dropout_rate": "Tag dropout rate",
    "token_warmup_min": "Tag warm-up: tags at first", "token_warmup_step": "Tag warm-up: steps",
    "network_dropout": "Dropout", "down_lr_weight": "Learning-rate factors, down blocks",
    "mid_lr_weight": "Learning-rate factors, middle block", "up_lr_weight": "Learning-rate factors, up blocks",
    "block_lr_zero_threshold": "Learning-rate factor that counts as 0", "scale_weight_norms": "Max norm",
    "ema_decay": "EMA decay", "diff_output_preservation": "Prior preservation",
    "preservation_class": "Class word for prior preservation", "max_grad_norm": "Gradient clipping",
    "lr_warmup_steps": "Warm-up steps", "lr_decay_steps": "Decay steps",
    "lr_scheduler_num_cycles": "Cycles", "lr_scheduler_power": "Power", "lr_scheduler_timescale": "Time scale",
    "lr_scheduler_min_lr_ratio": "Lowest learning rate", "multires_noise_iterations": "Pyramid noise layers",
    "multires_noise_discount": "Pyramid noise discount", "ip_noise_gamma": "Input perturbation",
    "ip_noise_gamma_random_strength": "Input perturbation of random strength", "huber_c": "Huber threshold",
    "metadata_license": "Metadata licence", "sample_sampler": "Sampler",
}  # fmt: skip
UNDECIDED = "as in the checkpoint"  # of a yes/no option that may be left open
MANY_LINES = ("sample_prompts",)


def label(name: str) -> str:
    """What the tab calls an option; every label is another."""
    if name in LABELS:
        return LABELS[name]
    words = " ".join(WORDS.get(word, word) for word in name.split("_"))
    return words[:1].upper() + words[1:]


def option_component(row: OptionRow) -> Any:
    """An input for one option, with its help; values go in and out as :func:`shown` and the option table have them."""
    common: dict[str, Any] = {
        "label": label(row.name), "info": _info(row), "value": shown(row.name, row.default),
        "elem_id": f"lora_trainer_{row.name}_option",
    }  # fmt: skip
    if row.type == "bool":
        component = gr.Checkbox(**common)
    elif row.type == "bool | None":
        component = gr.Dropdown(choices=[UNDECIDED, "yes", "no"], **common)
    elif row.name == "optimizer_type":
        component = gr.Dropdown(choices=list(_optimizers()), allow_custom_value=True, **common)
    elif row.choices:
        component = gr.Dropdown(
            choices=[(row.words.get(choice, str(choice)), str(choice)) for choice in row.choices], **common
        )
    else:
        many = row.name in MANY_LINES
        component = gr.Textbox(lines=3 if many else 1, max_lines=12 if many else 1, **common)
    return component


def shown(name: str, value: Any) -> Any:
    """An option's value as its input shows it."""
    row = OPTIONS[name]
    if row.type == "bool":
        return bool(value)
    if row.type == "bool | None":
        return UNDECIDED if value is None else "yes" if value else "no"
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return argument_text(dict(value))
    if isinstance(value, (list, tuple)):
        return ",".join(_number(item) for item in value)
    return _number(value)


def given(name: str, value: Any) -> Any:
    """What an input holds, as :meth:`lora_trainer.config.RunConfig.from_dict` takes it."""
    row = OPTIONS[name]
    if row.type == "bool | None":
        return {"yes": True, "no": False}.get(str(value))
    if row.type == "bool":
        return bool(value)
    text = "" if value is None else str(value)
    if not text.strip() and row.type in ("int", "float", "tuple[int, int]"):
        return row.default  # an empty field asks for nothing special
    return text if row.type == "str" else text.strip()


def _number(value: Any) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _optimizers() -> tuple[str, ...]:
    from lora_trainer.training.optimizers import NAMES

    return NAMES


def _info(row: OptionRow) -> str:
    """The help, the range where it has one that isn't plain, and the name that messages and files use."""
    unit = f" {row.unit}" if row.unit else ""
    if row.minimum is not None and row.maximum is not None:
        return f"{row.help} ({row.minimum:g} to {row.maximum:g}{unit}) [{row.name}]"
    return f"{row.help} [{row.name}]"
