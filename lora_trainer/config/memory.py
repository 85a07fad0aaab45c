"""The options of precision, memory and caches."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.config.groups import Group, option


@dataclass(frozen=True)
class MemoryConfig(Group):
    """Precision, memory and caches."""

    mixed_precision: str = option(
        "no", "Precision of the model's calculations; the LoRA's weights stay in fp32.", choices=("no", "fp16", "bf16")
    )
    full_bf16: bool = option(
        False,
        "Keep the LoRA's weights at numbers of bf16, as kohya does; they are rounded at random after every step, so "
        "that small changes add up. Saves no memory: a LoRA is small.",
    )
    full_fp16: bool = option(False, "The same with numbers of fp16.")
    gradient_checkpointing: bool = option(
        False,
        "Gradient checkpointing in all blocks: much less memory, about a third more time. Off: in as many as it takes "
        "to fit.",
    )
    base_8bit: str = option(
        "auto",
        "Hold the frozen weights of the UNet's blocks in 8 bits: half the memory, a slightly different result. auto: "
        "only where nothing milder fits.",
        choices=("auto", "always", "never"),
    )
    blocks_in_cpu_memory: int = option(
        -1,
        "Number of the UNet's blocks whose weights stay in CPU memory and are brought for every use (block swap); -1 "
        "for as many as it takes to fit.",
        minimum=-1,
    )
    memory_limit_gb: float = option(
        0.0, "GB that the run may take, model and all; 0 for what is free on the GPU.", minimum=0.0
    )
    cache_latents: bool = option(True, "Encode every image once, before training.")
    cache_latents_to_disk: bool = option(False, "Keep encoded images in the run's folder for next time.")
    cache_text_encoder_outputs: bool = option(
        True, "Encode every caption once, before training (only if the text encoders aren't trained)."
    )
    cache_text_encoder_outputs_to_disk: bool = option(False, "Keep encoded captions in the run's folder for next time.")
    vae_batch_size: int = option(1, "Number of images encoded at once when caching latents.", minimum=1)
