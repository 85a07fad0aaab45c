"""The option table, group by group. See :mod:`lora_trainer.config.run` for what it is bound to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from lora_trainer.config.values import check_group

T = TypeVar("T")

TOKEN_LENGTHS = (75, 150, 225)


def option(default: T, help: str, **constraints: Any) -> T:
    """A field of the table. Constraints: ``choices``, ``minimum``, ``maximum`` (inclusive), ``multiple``, ``unit``,
    ``words`` (what each of the choices is, in words)."""
    return field(default=default, metadata={"help": help, **constraints})


class Group:
    """Base of the option groups: checks every field against its own row of the table."""

    def __post_init__(self) -> None:
        check_group(self)


@dataclass(frozen=True)
class CaptionConfig(Group):
    """Captions."""

    caption_extension: str = option(
        ".txt",
        "Extension of the caption files (.txt and .caption stand in for each other); "
        "an image without one uses its folder's words.",
    )
    caption_prefix: str = option("", "Text added before every caption.")
    caption_suffix: str = option("", "Text added after every caption.")
    caption_separator: str = option(",", "What separates the tags in a caption.")
    secondary_separator: str = option(
        "", "Joins tags that are to stay together; becomes caption_separator once the tags are shuffled."
    )
    shuffle_caption: bool = option(False, "Shuffle the tags of a caption each time its image is used.")
    keep_tokens: int = option(
        0, "Number of tags at the start of a caption that stay in place and are never dropped.", minimum=0
    )
    keep_tokens_separator: str = option(
        "", "Text such as ||| that ends the tags to keep in place; takes precedence over keep_tokens."
    )
    caption_dropout_rate: float = option(
        0.0, "Caption dropout: how often an empty caption is used; 0.1 is one time in ten.", minimum=0.0, maximum=1.0
    )
    caption_dropout_every_n_epochs: int = option(
        0, "Caption dropout by epoch: every nth epoch is trained with empty captions; 0 for never.", minimum=0
    )
    caption_tag_dropout_rate: float = option(
        0.0, "Tag dropout: how often each tag is left out, except those kept in place.", minimum=0.0, maximum=1.0
    )
    token_warmup_min: int = option(1, "Tag warm-up: number of tags used at the first step.", minimum=0)
    token_warmup_step: float = option(
        0.0, "Tag warm-up: step from which all tags are used; below 1, a fraction of all; 0 for off.", minimum=0.0
    )
    enable_wildcard: bool = option(
        False, "Each time, use one random line of the caption file and one random choice of each {a|b|c}."
    )
    weighted_captions: bool = option(
        False, "Captions have weights as in a prompt: (text), [text], (text:1.3); without it, brackets are text."
    )
    max_token_length: int = option(75, "Longest caption, in tokens.", choices=TOKEN_LENGTHS)
    clip_skip: int = option(
        1, "Clip skip (SD 1.x only), as in the WebUI; generate with the same value.", minimum=1, maximum=12
    )


@dataclass(frozen=True)
class OptimizerConfig(Group):
    """Optimiser, learning rates and length."""

    optimizer_type: str = option("AdamW", "Optimiser: AdamW, AdamW8bit, Adafactor, Lion, Prodigy, … or a class path.")
    optimizer_args: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Further arguments for the optimiser, as key=value."}
    )
    learning_rate: float = option(1e-4, "Learning rate, unless unet_lr or text_encoder_lr is set.", minimum=0.0)
    unet_lr: float | None = option(
        None, "Learning rate of the UNet; empty for learning_rate, 0 to leave the UNet out.", minimum=0.0
    )
    text_encoder_lr: float | None = option(
        None, "Learning rate of the text encoders; empty for learning_rate, 0 to leave them out.", minimum=0.0
    )
    embedding_lr: float = option(
        1e-3, "Learning rate of the word that pivotal_tuning learns; far higher than a LoRA's.", minimum=0.0
    )
    loraplus_lr_ratio: float | None = option(
        None, "LoRA+: learning rate of the up matrices divided by that of the down matrices (paper: 16).", minimum=0.01
    )
    loraplus_unet_lr_ratio: float | None = option(None, "LoRA+ ratio for the UNet only.", minimum=0.01)
    loraplus_text_encoder_lr_ratio: float | None = option(None, "LoRA+ ratio for the text encoders only.", minimum=0.01)
    max_grad_norm: float = option(1.0, "Gradient clipping: largest norm of the gradients; 0 for off.", minimum=0.0)
    on_divergence: str = option(
        "go_back",
        "When a training diverges: go back to the last good state and on with half the learning rate, or stop there.",
        choices=("go_back", "stop"),
    )
    ema_decay: float = option(
        0.0,
        "EMA: also save a moving average of the LoRA, as NAME-ema; 0.99 averages some hundred steps, 0 for none.",
        minimum=0.0, maximum=0.99999,
    )  # fmt: skip
    gradient_accumulation_steps: int = option(1, "Gradient accumulation: number of batches per step.", minimum=1)
    max_train_epochs: int = option(10, "Epochs (passes over the dataset); used when max_train_steps is 0.", minimum=0)
    max_train_steps: int = option(0, "Number of steps; 0 to train for max_train_epochs.", minimum=0)
    initial_epoch: int = option(
        0, "Begin with this epoch, as if those before it were done; for going on from network_weights.", minimum=0
    )
    initial_step: int = option(0, "The same with the number of steps that count as done; goes before it.", minimum=0)
    skip_until_initial_step: bool = option(False, "Begin at that very step; without it, at the beginning of its epoch.")
    seed: int = option(0, "Seed for everything random; 0 picks one and records it in run.json.", minimum=0)


@dataclass(frozen=True)
class ScheduleConfig(Group):
    """Learning-rate schedule."""

    lr_scheduler: str = option(
        "cosine",
        "Learning-rate schedule.",
        choices=(
            "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial",
            "inverse_sqrt", "cosine_with_min_lr", "warmup_stable_decay", "piecewise_constant", "adafactor",
        ),
    )  # fmt: skip
    lr_scheduler_type: str = option(
        "", "Schedule class from torch.optim.lr_scheduler, or a class path; overrides lr_scheduler."
    )
    lr_scheduler_args: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "Arguments for lr_scheduler_type, as key=value; of the named schedules, cosine takes num_cycles, "
            "polynomial lr_end, cosine_with_min_lr min_lr and piecewise_constant step_rules."
        },
    )
    lr_warmup_steps: float = option(0.0, "Warm-up in steps; below 1, a fraction of all steps.", minimum=0.0)
    lr_decay_steps: float = option(0.0, "Decay of warmup_stable_decay in steps; below 1, a fraction.", minimum=0.0)
    lr_scheduler_num_cycles: int = option(1, "Number of cycles of cosine_with_restarts.", minimum=1)
    lr_scheduler_power: float = option(1.0, "Exponent of the polynomial schedule.")
    lr_scheduler_timescale: int = option(0, "Time scale of inverse_sqrt; 0 for the number of warm-up steps.", minimum=0)
    lr_scheduler_min_lr_ratio: float = option(
        0.0, "Lowest learning rate as a fraction of the highest.", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class LossConfig(Group):
    """Noise, timesteps and loss."""

    noise_offset: float = option(
        0.0, "Noise offset: a constant added to each channel's noise; helps dark and bright images.", minimum=0.0
    )
    noise_offset_random_strength: bool = option(False, "Draw noise_offset anew each time, from 0 to its value.")
    adaptive_noise_scale: float = option(0.0, "Adds this times the absolute mean of the latents to noise_offset.")
    multires_noise_iterations: int = option(0, "Pyramid noise: number of layers; 0 for off, 6-10 is usual.", minimum=0)
    multires_noise_discount: float = option(
        0.3, "Pyramid noise: strength of each layer relative to the one before.", minimum=0.0, maximum=1.0
    )
    ip_noise_gamma: float = option(
        0.0, "Input perturbation: more noise in the input than in the target; 0.1 is usual.", minimum=0.0
    )
    ip_noise_gamma_random_strength: bool = option(False, "Draw ip_noise_gamma anew each time, from 0 to its value.")
    min_timestep: int = option(0, "Lower end of the trained timesteps (inclusive).", minimum=0, maximum=999)
    max_timestep: int = option(1000, "Upper end of the trained timesteps (exclusive).", minimum=1, maximum=1000)
    v_parameterization: bool | None = option(None, "Train with v-prediction; empty to follow the checkpoint.")
    zero_terminal_snr: bool = option(False, "Zero terminal SNR: rescale the noise schedule to end in pure noise.")
    diff_output_preservation: float = option(
        0.0,
        "Prior preservation without images: how much the model is held to what it made of the captions before, with "
        "preservation_class in place of the trigger word; 1 is usual, 0 for off. A step takes twice as long.",
        minimum=0.0,
    )
    preservation_class: str = option("", "Class word for diff_output_preservation, such as man or dog.")
    loss_type: str = option("l2", "Loss function.", choices=("l2", "l1", "huber", "smooth_l1"))
    huber_schedule: str = option(
        "snr", "How the Huber threshold depends on the timestep.", choices=("snr", "exponential", "constant")
    )
    huber_c: float = option(0.1, "Huber threshold at the noisiest timestep.", minimum=1e-8)
    huber_scale: float = option(1.0, "Factor for the Huber threshold.", minimum=1e-8)
    min_snr_gamma: float = option(
        0.0, "Min-SNR gamma: evens out the weights of easy and hard timesteps; 0 for off, 5 is usual.", minimum=0.0
    )
    debiased_estimation_loss: bool = option(False, "Debiased estimation: weight the loss by 1/sqrt(SNR).")
    scale_v_pred_loss_like_noise_pred: bool = option(False, "Scale a v-prediction loss to match noise prediction.")
    v_pred_like_loss: float = option(
        0.0, "Adds this much of a v-prediction-like loss to a noise-prediction loss; 0 for off.", minimum=0.0
    )


@dataclass(frozen=True)
class SaveConfig(Group):
    """Saving."""

    save_precision: str = option(
        "fp16", "Number format of the LoRA file (float: fp32).", choices=("fp16", "bf16", "float")
    )
    save_every_n_epochs: int = option(1, "Save the LoRA every n epochs; 0 for only at the end.", minimum=0)
    save_n_epoch_ratio: int = option(
        0,
        "Save the LoRA this many times, evenly spread over the epochs, instead of every n epochs; 0 for off.",
        minimum=0,
    )
    save_every_n_steps: int = option(0, "Save the LoRA every n steps; 0 for never.", minimum=0)
    save_last_n_epochs: int = option(0, "Of the files saved by epoch, keep only the last n; 0 keeps all.", minimum=0)
    save_last_n_steps: int = option(
        0, "Of the files saved by step, keep only those of the last n steps; 0 keeps all.", minimum=0
    )
    save_state_every_n_minutes: float = option(
        10.0, "Save the state for resuming at least every n minutes; 0 for only when the LoRA is saved.", minimum=0.0
    )
    measure_at_saves: bool = option(
        True, "Measure at every save how much was learned of the training images and how far known things have moved."
    )
    stop_on_damage: bool = option(
        False, "Stop where known things have moved too far at two saves in a row; needs measure_at_saves."
    )
    log_with: str = option(
        "",
        "Write every step's figures for these, too, where their packages are installed: TensorBoard (in the run's "
        "folder) or Weights & Biases (which uploads them).",
        choices=("", "tensorboard", "wandb", "all"),
    )
    training_comment: str = option("", "Comment in the LoRA file's metadata.")
    metadata_title: str = option("", "Title in the LoRA file's metadata; empty for its name.")
    metadata_author: str = option("", "Author in the LoRA file's metadata.")
    metadata_description: str = option("", "Description in the LoRA file's metadata.")
    metadata_license: str = option("", "Licence in the LoRA file's metadata.")
    metadata_tags: str = option("", "Tags in the LoRA file's metadata.")
    metadata_trigger_phrase: str = option(
        "", "Trigger words in the LoRA file's metadata; empty for those of the dataset's only folder."
    )
    metadata_usage_hint: str = option("", "A hint on how to use it in the LoRA file's metadata.")
    metadata_merged_from: str = option("", "What it was merged from, in the LoRA file's metadata.")
    metadata_preprocessor: str = option("", "How its input was prepared, in the LoRA file's metadata.")
    metadata_thumbnail: str = option("", "Thumbnail image in the LoRA file's metadata, as a data URL.")
    no_metadata: bool = option(
        False, "Say nothing of images, captions and settings in the LoRA file's metadata; only what programs need."
    )


@dataclass(frozen=True)
class SampleConfig(Group):
    """Sample images during training."""

    sample_prompts: str = option(
        "", "Prompts for sample images, one per line, or a file of them; empty for a caption of the dataset."
    )
    sample_every_n_epochs: int = option(0, "Make sample images every n epochs; 0 for never.", minimum=0)
    sample_every_n_steps: int = option(
        0, "Make sample images every n steps, if sample_every_n_epochs is 0; 0 for never.", minimum=0
    )
    sample_at_first: bool = option(True, "Also sample before the first step, to compare with (if sampling is on).")
    sample_sampler: str = option("euler_a", "Sampler for the sample images.")
