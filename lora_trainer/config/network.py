"""The options of the LoRA network: its type, its size, and which parts of the model it changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lora_trainer.config.groups import Group, option

ALGOS = {  # LyCORIS' and kohya's names, and a sentence on each
    "lora": "LoRA: the usual one; with a rank for the convolutions it is called LoCon",
    "lora_fa": "LoRA-FA: half of every LoRA stays as it was drawn; needs less memory and learns a little less",
    "tlora": "T-LoRA: fewer ranks where the noise is strong, against learning the few images themselves",
    "dylora": "DyLoRA: a LoRA that also works when it is cut down to its first ranks; learns more slowly",
    "loha": "LoHa: more expressive than a LoRA of the same file size; slower; often used for styles",
    "lokr": "LoKr: the smallest files, or with whole matrices the strongest change; slower",
    "ia3": "(IA)³: only scales what the layers do; tiny files; needs a much higher learning rate",
    "diag-oft": "OFT: only turns what the layers do, in blocks as large as the rank; has no alpha; slower",
    "oft": "OFT as in sd-scripts: the same, and the rank is the number of blocks",
    "boft": "BOFT: OFT whose blocks are crossed; a little more freedom for the same size; much slower",
}
OFTS = ("diag-oft", "oft", "boft")
FROM_ZERO = ("lora_fa", "ia3", *OFTS)  # all that these train is zero at first
LYCORIS_PRESETS = (
    "", "full", "full-lin", "attn-mlp", "attn-only", "unet-only", "unet-transformer-only", "unet-convblock-only", "ia3",
)  # fmt: skip
OWN_ARGUMENTS: dict[str, tuple[str, ...]] = {  # options that only some types have
    "use_tucker": ("lora", "loha", "lokr"),
    "factor": ("lokr",),
    "decompose_both": ("lokr",),
    "full_matrix": ("lokr",),
    "train_on_input": ("ia3",),
    "dora_wd": ("lora", "lora_fa", "loha", "lokr"),
    "rs_lora": ("lora", "lora_fa", "tlora", "dylora", "loha", "lokr"),
    "tlora_min_rank": ("tlora",),
    "unit": ("dylora",),
    "constraint": OFTS,
    "rescaled": OFTS,
    "scale_weight_norms": ("lora", "lora_fa", "tlora", "dylora", "loha", "lokr", "ia3"),
    "network_dropout": ("lora", "lora_fa", "tlora", "dylora"),
    "loraplus_lr_ratio": ("lora", "tlora", "dylora"),
    "loraplus_unet_lr_ratio": ("lora", "tlora", "dylora"),
    "loraplus_text_encoder_lr_ratio": ("lora", "tlora", "dylora"),
}


@dataclass(frozen=True)
class NetworkConfig(Group):
    """The LoRA network."""

    algo: str = option(
        "lora",
        "Network type: how the change of each weight is made up.",
        choices=tuple(ALGOS),
        words=ALGOS,
    )
    dora_wd: bool = option(
        False, "DoRA: strength and direction of each weight are trained apart; often closer to full training, slower."
    )
    wd_on_output: bool = option(
        False, "DoRA with a strength for each output instead of each input; AUTOMATIC1111 1.10 can't read that."
    )
    rs_lora: bool = option(False, "rsLoRA: scales by alpha / √rank, so that high ranks learn as fast as low ones.")
    network_dim: int = option(16, "Rank of the LoRA: how much it can learn, and how large its file is.", minimum=1)
    network_alpha: float = option(8.0, "Alpha: the LoRA is scaled by alpha / rank; 0 means alpha = rank.", minimum=0.0)
    conv_dim: int = option(0, "Rank for the 3x3 convolutions; 0 leaves them out, as in a plain LoRA.", minimum=0)
    conv_alpha: float = option(1.0, "Alpha for the 3x3 convolutions.", minimum=0.0)
    use_tucker: bool = option(
        False, "Tucker decomposition: convolutions get a small core, for smaller files; LoRA, LoHa and LoKr."
    )
    factor: int = option(
        -1, "LoKr: how the weights are split; the smaller, the larger the file; -1 for the smallest.", minimum=-1
    )
    decompose_both: bool = option(False, "LoKr: a low rank for both parts, not only for the larger one.")
    full_matrix: bool = option(False, "LoKr: both parts whole, without a rank; the strongest, and the largest file.")
    train_on_input: bool = option(False, "(IA)³: scale the inputs of all layers instead of the outputs.")
    tlora_min_rank: float = option(
        0.5, "T-LoRA: share of the ranks that is trained at the noisiest timestep; without noise it is all of them.",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    unit: int = option(1, "DyLoRA: how many ranks are trained at a step.", minimum=1)
    constraint: float = option(
        0.0, "OFT and BOFT: how far a layer may be turned, times its outputs, such as 0.001; 0 for no limit.",
        minimum=0.0,
    )  # fmt: skip
    rescaled: bool = option(False, "OFT and BOFT: also scale each output of a layer.")
    train_norm: bool = option(False, "Also train the norm layers of the blocks that are trained.")
    lycoris_preset: str = option(
        "",
        "Which layers are trained, as a preset of LyCORIS; empty for kohya's: attention blocks, and the residual "
        "blocks if conv_dim is above 0.",
        choices=LYCORIS_PRESETS,
    )
    network_dropout: float = option(
        0.0, "Dropout: fraction of the values inside the LoRA set to zero at each step.", minimum=0.0, maximum=0.99
    )
    rank_dropout: float = option(
        0.0, "Rank dropout: fraction of the ranks set to zero, anew for each image.", minimum=0.0, maximum=0.99
    )
    module_dropout: float = option(
        0.0, "Module dropout: probability that a module's LoRA is skipped at a step.", minimum=0.0, maximum=0.99
    )
    block_dims: tuple[int, ...] = option(
        (), "Rank for each UNet block: 25 numbers (SD 1.x, 2.x) or 23 (SDXL); empty for network_dim.", minimum=0
    )
    block_alphas: tuple[float, ...] = option((), "Alpha for each UNet block, as many as block_dims.", minimum=0.0)
    conv_block_dims: tuple[int, ...] = option((), "Rank for the 3x3 convolutions of each UNet block.", minimum=0)
    conv_block_alphas: tuple[float, ...] = option((), "Alpha for the 3x3 convolutions of each UNet block.", minimum=0.0)
    down_lr_weight: str = option(
        "", "Learning-rate factors, down blocks: numbers, or cosine, sine, linear, reverse_linear or zeros (+base)."
    )
    mid_lr_weight: str = option("", "Learning-rate factor, middle block; or one for each of its parts.")
    up_lr_weight: str = option("", "Learning-rate factors, up blocks, given as in down_lr_weight.")
    block_lr_zero_threshold: float = option(
        0.0, "Blocks with a learning-rate factor up to this aren't trained.", minimum=0.0
    )
    network_train_unet_only: bool = option(False, "Train only the UNet, not the text encoders.")
    network_train_text_encoder_only: bool = option(False, "Train only the text encoders, not the UNet.")
    pivotal_tuning: bool = option(
        False,
        "Pivotal tuning: also learn the trigger word itself, as an embedding inside the LoRA file, which only "
        "AUTOMATIC1111 reads.",
    )
    network_weights: str = option("", "LoRA file to continue from (weights only); empty to start anew.")
    base_weights: tuple[str, ...] = option(
        (), "LoRA files that are trained upon: for the run they belong to the model, and nothing of them is saved."
    )
    base_weights_multiplier: tuple[float, ...] = option((), "Strength of each of base_weights; 1 where none is given.")
    dim_from_weights: bool = option(False, "Take rank and alpha from the network_weights file.")
    scale_weight_norms: float = option(
        0.0, "Max norm: after every step, each module's change is scaled down to this; 0 for off.", minimum=0.0
    )


def type_contradictions(values: dict[str, object], algo: str) -> Iterator[str]:
    """Sentences on options that the network type doesn't have.

    Args:
        values: of the options in :data:`OWN_ARGUMENTS` that aren't at their default.
    """
    for name, types in OWN_ARGUMENTS.items():
        if name in values and algo not in types:
            yield (
                f"{name} is an option of {' and '.join(types)}, and algo is {algo}; leave it at its default or choose "
                f"{'that type' if len(types) == 1 else 'one of those types'}."
            )
    if "network_dropout" in values and (values.get("dora_wd") or values.get("use_tucker")):
        other = "dora_wd" if values.get("dora_wd") else "use_tucker"
        yield f"network_dropout doesn't go with {other}; use rank_dropout or module_dropout instead."
