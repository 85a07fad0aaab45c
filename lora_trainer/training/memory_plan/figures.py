"""What a run will need, told before any model is loaded: from figures that were counted at the models' true size.

``python -m lora_trainer bench --suite`` counts them anew, and measures where there is a card; a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.config import OptimizerConfig, RunConfig
from lora_trainer.families import SD1, SD2, SDXL, Family

GB = 2**30
PIXELS = 1e6


@dataclass(frozen=True)
class Figures:
    """GiB in half precision, on a card whose attention keeps no scores."""

    unet: float
    unet_8bit: float  # with the blocks' weights in 8 bits, and one block's made of them
    text_encoders: float
    vae: float  # in fp32, as pictures are encoded
    encoding: float  # for each million pixels, beside the VAE
    kept: float  # by a step, for each million pixels of its batch
    recomputed: float  # the same with every block recomputed
    unet_lora: int  # numbers of the LoRA for each rank
    text_lora: int


COUNTED: dict[Family, Figures] = {
    SD1: Figures(1.60, 1.02, 0.23, 0.31, 2.40, 4.46, 1.13, 423_936, 165_888),
    SD2: Figures(1.61, 1.03, 0.64, 0.31, 2.40, 4.36, 1.05, 432_128, 529_920),
    SDXL: Figures(4.78, 2.60, 1.52, 0.31, 2.40, 7.27, 0.79, 2_659_840, 903_168),
}


@dataclass(frozen=True)
class Expected:
    """GiB at most, while images are encoded and while a step is computed."""

    images: float
    training: float
    least: float  # training, with everything recomputed, one image at a time and, where that may be, weights in 8 bits

    @property
    def most(self) -> float:
        """What the run needs in all."""
        return max(self.images, self.training)


def expected(family: Family, config: RunConfig, own_memory: bool = True) -> Expected:
    """What a run needs, if the card has room for it; a smaller one makes do with as little as ``least``.

    Args:
        own_memory: whether the device has memory beside the machine's, so that weights are held in 8 bits if it helps.
    """
    figures, data = COUNTED[family], config.dataset
    pixels = data.resolution[0] * data.resolution[1] / PIXELS
    precise = 2 if config.memory.mixed_precision == "no" else 1  # everything in fp32
    parts = figures.unet * precise
    if config.tunes_text or not config.memory.cache_text_encoder_outputs:
        parts += figures.text_encoders * precise
    each = config.trains_unet * figures.unet_lora + config.trains_text_encoder * figures.text_lora
    fixed = parts + config.network.network_dim * each * (8 + state_bytes(config.optimizer)) / GB
    kept = figures.recomputed if config.memory.gradient_checkpointing else figures.kept
    in_8_bits = own_memory and config.memory.base_8bit != "never"
    saved = figures.unet * precise - figures.unet_8bit if in_8_bits else 0.0
    return Expected(
        images=figures.vae + figures.encoding * pixels * config.memory.vae_batch_size,
        training=fixed + kept * precise * pixels * data.train_batch_size,
        least=fixed - saved + figures.recomputed * precise * pixels,
    )


STATE_BYTES = {"lion": 4, "sgd": 4, "adafactor": 1, "prodigy": 16, "dadapt": 16}  # of a parameter; of others two fp32


def state_bytes(config: OptimizerConfig) -> int:
    """About how much memory the optimiser keeps for each number of the LoRA, in bytes."""
    name = config.optimizer_type.rsplit(".", 1)[-1].lower()
    known = next((size for part, size in STATE_BYTES.items() if part in name), 8)
    return max(known // 4, 1) if "8bit" in name else known
