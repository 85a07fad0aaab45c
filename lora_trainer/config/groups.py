"""The option table, group by group. See :mod:`lora_trainer.config.run` for what it is bound to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from lora_trainer.config.values import check_group

T = TypeVar("T")


def option(default: T, help: str, **constraints: Any) -> T:
    """A field of the table. Constraints: ``choices``, ``minimum``, ``maximum`` (inclusive), ``multiple``, ``unit``."""
    return field(default=default, metadata={"help": help, **constraints})


class Group:
    """Base of the option groups: checks every field against its own row of the table."""

    def __post_init__(self) -> None:
        check_group(self)


@dataclass(frozen=True)
class DatasetConfig(Group):
    """Which images, at which size, how often."""

    reg_data_dir: str = option(
        "", "Folder of regularisation images in the same <repeats>_<class> layout; empty for none."
    )
    resolution: tuple[int, int] = option(
        (512, 512), "Training area as width,height; one number for a square.", minimum=64, unit="px"
    )
    train_batch_size: int = option(1, "Images per step and process.", minimum=1)
    enable_bucket: bool = option(
        True, "Sort images into buckets of similar aspect ratio instead of cropping all to one size."
    )
    min_bucket_reso: int = option(
        256, "Smallest bucket side (only when buckets may be upscaled).", minimum=64, unit="px"
    )
    max_bucket_reso: int = option(
        2048, "Largest bucket side (only when buckets may be upscaled).", minimum=64, unit="px"
    )
    bucket_reso_steps: int = option(
        64, "Bucket sides are multiples of this; 64 suits SD 1/2, 64 or 32 SDXL.", minimum=8, multiple=8, unit="px"
    )
    bucket_no_upscale: bool = option(True, "Never enlarge an image to fill its bucket.")
    flip_aug: bool = option(False, "Mirror half of the images at random; not for faces or text.")
    color_aug: bool = option(False, "Vary hue and gamma slightly; latents can't be cached then.")
    random_crop: bool = option(False, "Crop at a random place instead of the centre; latents can't be cached then.")
    alpha_mask: bool = option(False, "Masked loss: the images' alpha channel says where the loss counts.")
    prior_loss_weight: float = option(1.0, "Weight of regularisation images in the loss.", minimum=0.0)


@dataclass(frozen=True)
class CaptionConfig(Group):
    """What the text encoder reads."""

    caption_extension: str = option(".txt", "Ending of caption files; .caption is read too where this one is missing.")
    caption_prefix: str = option("", "Text put before every caption.")
    caption_suffix: str = option("", "Text put after every caption.")
    caption_separator: str = option(",", "What separates tags when captions are shuffled.")
    secondary_separator: str = option(
        "", "Joins tags that stay together; becomes the caption separator after shuffling."
    )
    shuffle_caption: bool = option(False, "Shuffle the tags of each caption anew at every use.")
    keep_tokens: int = option(0, "First n tags stay in place when shuffling.", minimum=0)
    keep_tokens_separator: str = option("", "Text between fixed and shuffled tags, such as |||; wins over keep_tokens.")
    caption_dropout_rate: float = option(0.0, "Share of captions replaced by an empty one.", minimum=0.0, maximum=1.0)
    caption_dropout_every_n_epochs: int = option(0, "Every n-th epoch trains without captions; 0 for never.", minimum=0)
    caption_tag_dropout_rate: float = option(0.0, "Share of shuffled tags left out.", minimum=0.0, maximum=1.0)
    token_warmup_min: int = option(1, "Number of shuffled tags at the first step of tag warm-up.", minimum=0)
    token_warmup_step: float = option(
        0.0, "Steps (or share of all steps, below 1) until all tags are used; 0 for off.", minimum=0.0
    )
    enable_wildcard: bool = option(False, "Pick one line of a caption file and one of {a|b|c} at every use.")
    max_token_length: int = option(75, "Longest caption in tokens.", choices=(75, 150, 225))
    clip_skip: int = option(
        1,
        "Use the text encoder's n-th last layer (SD 1.x); generate with the same Clip skip.",
        minimum=1,
        maximum=12,
    )


@dataclass(frozen=True)
class NetworkConfig(Group):
    """The LoRA itself."""

    network_dim: int = option(16, "Rank: capacity of the LoRA and size of its file.", minimum=1)
    network_alpha: float = option(8.0, "Alpha: the LoRA is scaled by alpha/rank; 0 means alpha = rank.", minimum=0.0)
    conv_dim: int = option(0, "Rank of the 3x3 convolutions; 0 trains none (plain LoRA).", minimum=0)
    conv_alpha: float = option(1.0, "Alpha of the 3x3 convolutions.", minimum=0.0)
    network_dropout: float = option(0.0, "Share of inner activations dropped.", minimum=0.0, maximum=0.99)
    rank_dropout: float = option(0.0, "Share of ranks dropped per image.", minimum=0.0, maximum=0.99)
    module_dropout: float = option(0.0, "Chance that a module's LoRA is skipped for a step.", minimum=0.0, maximum=0.99)
    block_dims: tuple[int, ...] = option(
        (), "Rank per block: 25 numbers for SD 1/2, 23 for SDXL; empty for one rank.", minimum=0
    )
    block_alphas: tuple[float, ...] = option((), "Alpha per block, as many as block_dims.", minimum=0.0)
    conv_block_dims: tuple[int, ...] = option((), "Rank of 3x3 convolutions per block.", minimum=0)
    conv_block_alphas: tuple[float, ...] = option((), "Alpha of 3x3 convolutions per block.", minimum=0.0)
    down_lr_weight: str = option(
        "", "Learning-rate factors of the down blocks: a list, or cosine, sine, linear, reverse_linear, zeros (+base)."
    )
    mid_lr_weight: str = option("", "Learning-rate factor(s) of the middle block.")
    up_lr_weight: str = option("", "Learning-rate factors of the up blocks, as for down_lr_weight.")
    block_lr_zero_threshold: float = option(0.0, "Blocks whose factor is at most this aren't trained.", minimum=0.0)
    network_train_unet_only: bool = option(False, "Train the UNet's LoRA only.")
    network_train_text_encoder_only: bool = option(False, "Train the text encoders' LoRA only.")
    network_weights: str = option("", "LoRA file to continue from (weights only); empty starts anew.")
    dim_from_weights: bool = option(False, "Take ranks and alphas from network_weights.")
    scale_weight_norms: float = option(
        0.0, "Largest norm of a module's change, kept after every step; 0 for off.", minimum=0.0
    )


@dataclass(frozen=True)
class OptimizerConfig(Group):
    """Optimiser, rates and how long."""

    optimizer_type: str = option("AdamW", "AdamW, AdamW8bit, Adafactor, Lion, Prodigy, … or any class path.")
    optimizer_args: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "More arguments of the optimiser, as key=value."}
    )
    learning_rate: float = option(1e-4, "Rate of every part that has none of its own.", minimum=0.0)
    unet_lr: float | None = option(
        None, "Rate of the UNet's LoRA; empty for learning_rate, 0 trains none.", minimum=0.0
    )
    text_encoder_lr: float | None = option(
        None, "Rate of the text encoders' LoRA; empty for learning_rate, 0 trains none.", minimum=0.0
    )
    loraplus_lr_ratio: float | None = option(
        None, "LoRA+: rate of the up matrices divided by that of the down matrices (paper: 16).", minimum=0.01
    )
    loraplus_unet_lr_ratio: float | None = option(None, "LoRA+ ratio for the UNet only.", minimum=0.01)
    loraplus_text_encoder_lr_ratio: float | None = option(None, "LoRA+ ratio for the text encoders.", minimum=0.01)
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm; 0 for never.", minimum=0.0)
    gradient_accumulation_steps: int = option(1, "Batches whose gradients make one step.", minimum=1)
    max_train_epochs: int = option(10, "Passes over the dataset; used when max_train_steps is 0.", minimum=0)
    max_train_steps: int = option(0, "Optimiser steps; 0 computes them from max_train_epochs.", minimum=0)
    seed: int = option(0, "Start of all randomness; 0 picks one and records it.", minimum=0)


@dataclass(frozen=True)
class ScheduleConfig(Group):
    """The learning rate over time."""

    lr_scheduler: str = option(
        "cosine",
        "Shape of the learning rate over time.",
        choices=(
            "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
            "inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay", "piecewise_constant", "adafactor",
        ),
    )  # fmt: skip
    lr_scheduler_type: str = option(
        "", "A scheduler class of torch.optim.lr_scheduler, or a class path; wins over lr_scheduler."
    )
    lr_scheduler_args: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Arguments of lr_scheduler_type, as key=value."}
    )
    lr_warmup_steps: float = option(0.0, "Warm-up in steps, or as a share of all steps when below 1.", minimum=0.0)
    lr_decay_steps: float = option(0.0, "Decay of warmup_stable_decay in steps or as a share.", minimum=0.0)
    lr_scheduler_num_cycles: int = option(1, "Number of cycles of cosine_with_restarts.", minimum=1)
    lr_scheduler_power: float = option(1.0, "Exponent of the polynomial schedule.")
    lr_scheduler_timescale: int = option(0, "Time scale of inverse_sqrt; 0 for the number of warm-up steps.", minimum=0)
    lr_scheduler_min_lr_ratio: float = option(0.0, "Lowest rate as a share of the highest.", minimum=0.0, maximum=1.0)


@dataclass(frozen=True)
class LossConfig(Group):
    """Noise, timesteps, target and loss."""

    noise_offset: float = option(
        0.0, "Adds noise that is constant over each channel (helps dark and bright pictures).", minimum=0.0
    )
    noise_offset_random_strength: bool = option(False, "Vary noise_offset between 0 and its value.")
    adaptive_noise_scale: float = option(0.0, "Adds this times the latents' mean to noise_offset.")
    multires_noise_iterations: int = option(0, "Layers of pyramid noise; 0 for off (6-10 is usual).", minimum=0)
    multires_noise_discount: float = option(
        0.3, "Strength of each further layer of pyramid noise.", minimum=0.0, maximum=1.0
    )
    ip_noise_gamma: float = option(
        0.0, "Input perturbation: more noise in the input than in the target (0.1 is usual).", minimum=0.0
    )
    ip_noise_gamma_random_strength: bool = option(False, "Vary ip_noise_gamma between 0 and its value.")
    min_timestep: int = option(0, "First timestep that is trained.", minimum=0, maximum=999)
    max_timestep: int = option(1000, "End of the trained timesteps (exclusive).", minimum=1, maximum=1000)
    v_parameterization: bool | None = option(None, "Train v-prediction; empty for what the checkpoint is.")
    zero_terminal_snr: bool = option(False, "Rescale the noise schedule so that its last step is pure noise.")
    loss_type: str = option("l2", "Distance between prediction and target.", choices=("l2", "l1", "huber", "smooth_l1"))
    huber_schedule: str = option(
        "snr", "How the Huber threshold depends on the timestep.", choices=("snr", "exponential", "constant")
    )
    huber_c: float = option(0.1, "Huber threshold at the noisiest step.", minimum=1e-8)
    huber_scale: float = option(1.0, "Factor on the Huber threshold.", minimum=1e-8)
    min_snr_gamma: float = option(
        0.0, "Min-SNR weighting: evens out easy and hard timesteps; 0 for off, 5 is usual.", minimum=0.0
    )
    debiased_estimation_loss: bool = option(False, "Weight the loss by 1/sqrt(SNR).")
    scale_v_pred_loss_like_noise_pred: bool = option(False, "Scale a v-prediction loss like that of noise prediction.")
    v_pred_like_loss: float = option(
        0.0, "Adds this much of a v-prediction-like loss to noise prediction.", minimum=0.0
    )


@dataclass(frozen=True)
class MemoryConfig(Group):
    """Precision, recomputation and caches."""

    mixed_precision: str = option(
        "no", "Precision of the model's arithmetic; LoRA weights stay fp32.", choices=("no", "fp16", "bf16")
    )
    gradient_checkpointing: bool = option(
        False, "Recompute each block in the backward pass: much less memory, about a third more time."
    )
    cache_latents: bool = option(True, "Encode every image once, before training.")
    cache_latents_to_disk: bool = option(False, "Keep encoded images beside the run for the next one.")
    cache_text_encoder_outputs: bool = option(
        True, "Encode every caption once, before training (when the text encoder isn't trained)."
    )
    cache_text_encoder_outputs_to_disk: bool = option(False, "Keep encoded captions beside the run for the next one.")
    vae_batch_size: int = option(1, "Images encoded at once while caching.", minimum=1)


@dataclass(frozen=True)
class SaveConfig(Group):
    """What is written, when."""

    save_precision: str = option("fp16", "Number format of the LoRA file.", choices=("fp16", "bf16", "float"))
    save_every_n_epochs: int = option(1, "Save after every n epochs; 0 for the end only.", minimum=0)
    save_every_n_steps: int = option(0, "Save after every n steps; 0 for never.", minimum=0)
    save_last_n_epochs: int = option(0, "Keep only the last n epoch files; 0 keeps all.", minimum=0)
    save_last_n_steps: int = option(0, "Keep only step files of the last n steps; 0 keeps all.", minimum=0)
    save_state_every_n_minutes: float = option(
        10.0, "Write the resume state at least this often; 0 only with saves.", minimum=0.0
    )
    training_comment: str = option("", "Comment in the file's metadata.")
    metadata_title: str = option("", "Title in the file's metadata; empty for the name.")
    metadata_author: str = option("", "Author in the file's metadata.")
    metadata_description: str = option("", "Description in the file's metadata.")
    metadata_license: str = option("", "Licence in the file's metadata.")
    metadata_tags: str = option("", "Tags in the file's metadata.")


@dataclass(frozen=True)
class SampleConfig(Group):
    """Pictures during training."""

    sample_prompts: str = option(
        "", "Prompts, one a line, with --n --w --h --d --l --s as in sd-scripts, or a file of them; empty picks one."
    )
    sample_every_n_epochs: int = option(0, "Sample images after every n epochs; 0 for never.", minimum=0)
    sample_every_n_steps: int = option(0, "Sample images after every n steps; 0 for never.", minimum=0)
    sample_at_first: bool = option(True, "Also before the first step, as the baseline (when sampling is on).")
    sample_sampler: str = option("euler_a", "Sampler of sample images.")
