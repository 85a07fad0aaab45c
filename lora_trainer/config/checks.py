"""Checks of options against each other; each sentence names both and the way out."""

from __future__ import annotations

from collections.abc import Iterator

from lora_trainer.config.dataset import DatasetConfig
from lora_trainer.config.groups import OptimizerConfig
from lora_trainer.config.lr_weights import read_lr_weights
from lora_trainer.config.memory import MemoryConfig
from lora_trainer.config.network import OWN_ARGUMENTS, NetworkConfig, type_contradictions
from lora_trainer.config.settings import Settings
from lora_trainer.errors import ConfigError, quoted
from lora_trainer.families import TRAITS

BLOCK_COUNTS = tuple(dict.fromkeys(row.blocks for row in TRAITS.values()))
MOST_BLOCKS = max(row.down_blocks for row in TRAITS.values())  # of a side
WITHOUT_WARMUP = ("constant", "piecewise_constant", "adafactor")  # schedules that know no warm-up


def check_together(config: Settings) -> None:
    """Refuse combinations that contradict each other.

    Raises:
        ConfigError: with the first contradiction found.
    """
    for checks in (_dataset, _network, _rates, _schedule, _loss, _memory):
        for sentence in checks(config):
            raise ConfigError(sentence)


def finds_one_rate(optimizer: str) -> bool:
    """Whether an optimiser, by its name or class path, finds one rate for all weights: Prodigy and D-Adaptation.

    Others that find their rates, such as ProdigyPlusScheduleFree, find one for each group.
    """
    name = optimizer.strip().rpartition(".")[2].lower()
    return name.startswith("dadapt") or name == "prodigy"


def without_warmup(config: Settings) -> str:
    """What keeps the run from having a warm-up, in words; "" if it can have one."""
    o, s = config.optimizer, config.schedule
    kind = o.optimizer_type.lower()
    if kind.endswith("adafactor") and o.optimizer_args.get("relative_step", True):
        return f"{o.optimizer_type} with relative_step"
    if "schedulefree" in kind:
        return o.optimizer_type
    if s.lr_scheduler_type:
        return f"lr_scheduler_type {s.lr_scheduler_type}"
    return f"lr_scheduler {s.lr_scheduler}" if s.lr_scheduler in WITHOUT_WARMUP else ""


def _dataset(config: Settings) -> Iterator[str]:
    yield from dataset_contradictions(config.dataset)
    yield from varied_but_cached(config.dataset, config.memory)


def varied_but_cached(d: DatasetConfig, memory: MemoryConfig) -> Iterator[str]:
    """Sentences on what changes an image at every use, where images are encoded once."""
    for name, on in (("color_aug", d.color_aug), ("random_crop", d.random_crop)):
        if on and memory.cache_latents:
            yield f"{name} changes the images each time, so latents can't be cached; set cache_latents to false."


def dataset_contradictions(d: DatasetConfig) -> Iterator[str]:
    """Sentences on what doesn't go together of the options of a dataset."""
    yield from _resolutions(d)
    low, high = d.min_bucket_reso, d.max_bucket_reso
    if d.enable_bucket and not d.bucket_no_upscale:
        if low > high:
            yield f"min_bucket_reso ({low}) is above max_bucket_reso ({high}); swap them."
        if min(d.resolution) < low or max(d.resolution) > high:
            yield (
                f"resolution {d.resolution[0]},{d.resolution[1]} isn't between min_bucket_reso ({low}) and "
                f"max_bucket_reso ({high}); change one of them, or switch bucket_no_upscale on."
            )
    if not d.enable_bucket and any(side % 8 for side in d.resolution):
        yield (
            f"resolution {d.resolution[0]},{d.resolution[1]} needs sides that are multiples of 8 when enable_bucket "
            "is off; round it, or switch enable_bucket on."
        )


def _resolutions(d: DatasetConfig) -> Iterator[str]:
    try:
        extra = [side for side, _ in d.resolutions[1:]]
    except ValueError:
        extra = [0]
    low = max([64, *([d.min_bucket_reso] if d.enable_bucket and not d.bucket_no_upscale else [])])
    width, height = d.resolution
    if any(side < low or side * side >= width * height for side in extra):
        yield (
            f"extra_resolutions can't be {quoted(d.extra_resolutions)}; give whole numbers, such as 384,256, of at "
            f"least {low} and smaller than resolution ({width},{height})."
        )
    elif not d.enable_bucket and any(side % 8 for side in extra):
        yield "extra_resolutions need multiples of 8 when enable_bucket is off; round them, or switch enable_bucket on."


def _network(config: Settings) -> Iterator[str]:
    n = config.network
    if n.network_train_unet_only and n.network_train_text_encoder_only:
        yield "network_train_unet_only and network_train_text_encoder_only can't both be on; switch one of them off."
    given = {name: value for name in OWN_ARGUMENTS if (value := _value(config, name)) != _default(name)}
    yield from type_contradictions(given, n.algo)
    if n.wd_on_output and not n.dora_wd:
        yield "wd_on_output says how DoRA is done, and dora_wd is off; switch dora_wd on or wd_on_output off."
    if n.algo in ("lora_fa", "tlora", "dylora") and n.dim_from_weights:
        yield f"dim_from_weights takes the network type from the file, which says nothing of {n.algo}; switch one off."
    if len(n.base_weights_multiplier) > len(n.base_weights):
        yield (
            f"base_weights_multiplier has {len(n.base_weights_multiplier)} numbers and base_weights "
            f"{len(n.base_weights)} files; give one number for each file."
        )
    if n.base_weights and n.dora_wd:
        yield "base_weights doesn't go with dora_wd; merge that LoRA into the checkpoint first, or switch dora_wd off."
    if n.dim_from_weights and not n.network_weights:
        yield "dim_from_weights takes the rank from another LoRA; set network_weights to its file."
    weights = {name: getattr(n, name) for name in ("down_lr_weight", "mid_lr_weight", "up_lr_weight")}
    for name, text in weights.items():
        read_lr_weights(name, text, MOST_BLOCKS)
    for name in ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas"):
        count = len(getattr(n, name))
        if count and count not in BLOCK_COUNTS:
            yield f"{name} has {count} numbers; give 25 for SD 1/2 or 23 for SDXL."
        if count and n.block_dims and count != len(n.block_dims):
            yield f"{name} has {count} numbers and block_dims {len(n.block_dims)}; both must have the same number."
        if count and not n.block_dims and not any(weights.values()):
            yield f"{name} has no effect without block_dims; set block_dims too."
    if n.conv_block_alphas and not n.conv_block_dims:
        yield "conv_block_alphas has no effect without conv_block_dims; set conv_block_dims too."


def _value(config: Settings, name: str) -> object:
    """An option of the network or of the optimiser."""
    return getattr(config.network, name) if hasattr(config.network, name) else getattr(config.optimizer, name)


def _default(name: str) -> object:
    """Its value where nothing is set."""
    return getattr(NetworkConfig, name) if hasattr(NetworkConfig, name) else getattr(OptimizerConfig, name)


def _rates(config: Settings) -> Iterator[str]:
    o = config.optimizer
    if not config.trains_unet and not config.trains_text_encoder:
        yield "Nothing would be trained: unet_lr and text_encoder_lr are both 0 or switched off; switch one of them on."
    if o.max_train_steps == 0 and o.max_train_epochs == 0:
        yield "max_train_steps and max_train_epochs are both 0; set one of them."
    if config.network.pivotal_tuning and finds_one_rate(o.optimizer_type):
        yield (
            f"{o.optimizer_type} finds one rate for all weights, and a word needs a higher one; switch pivotal_tuning "
            "off or choose another optimiser."
        )
    if o.embedding_lr == 0 and config.network.pivotal_tuning:
        yield "pivotal_tuning with an embedding_lr of 0 would learn nothing; raise it or switch pivotal_tuning off."
    if o.ema_decay and "schedulefree" in o.optimizer_type.lower():
        yield f"{o.optimizer_type} averages the weights itself, so ema_decay adds nothing; set ema_decay to 0."
    if finds_one_rate(o.optimizer_type):
        for name in ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"):
            if getattr(o, name) is not None:
                yield f"{o.optimizer_type} finds one rate for all weights, so {name} can't be used; leave it empty."


def _schedule(config: Settings) -> Iterator[str]:
    s = config.schedule
    for name in ("lr_warmup_steps", "lr_decay_steps"):
        value = getattr(s, name)
        if value > 1 and value != int(value):
            yield f"{name} can't be {value}; give a whole number of steps, or a fraction of all steps below 1."
    what = without_warmup(config)
    if s.lr_warmup_steps and what:
        remedy = " or choose constant_with_warmup" if what == "lr_scheduler constant" else ""
        yield f"{what} has no warm-up; set lr_warmup_steps to 0{remedy}."


def _loss(config: Settings) -> Iterator[str]:
    loss = config.loss
    if loss.min_timestep >= loss.max_timestep:
        yield f"min_timestep ({loss.min_timestep}) must be below max_timestep ({loss.max_timestep})."
    if loss.diff_output_preservation and not loss.preservation_class.strip():
        yield "diff_output_preservation needs the class word, such as man or dog; set preservation_class."
    if loss.adaptive_noise_scale and not loss.noise_offset:
        yield "adaptive_noise_scale needs noise_offset; set noise_offset above 0 or adaptive_noise_scale to 0."


def _memory(config: Settings) -> Iterator[str]:
    if config.memory.full_bf16 and config.memory.full_fp16:
        yield "full_bf16 and full_fp16 can't both be on; switch one of them off."
    if config.memory.cache_latents_to_disk and not config.memory.cache_latents:
        yield "cache_latents_to_disk needs cache_latents; switch that on too."
    if config.memory.cache_text_encoder_outputs_to_disk and not config.memory.cache_text_encoder_outputs:
        yield "cache_text_encoder_outputs_to_disk needs cache_text_encoder_outputs; switch that on too."
