"""What sd-scripts calls a network: ``network_module`` and ``network_args``, for the files' metadata."""

from __future__ import annotations

from lora_trainer.config import RunConfig

_PER_NETWORK = (
    "conv_dim", "conv_alpha", "rank_dropout", "module_dropout", "block_dims", "block_alphas", "conv_block_dims",
    "conv_block_alphas", "down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold",
)  # fmt: skip
_PLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
_LYCORIS = (
    "dora_wd", "rs_lora", "use_tucker", "factor", "decompose_both", "full_matrix", "train_on_input", "train_norm",
    "constraint", "rescaled",
)  # fmt: skip
_ALGOS = {
    "lora": "locon",
    "lora_fa": "locon",
    "tlora": "locon",
    "oft": "diag-oft",
}  # LyCORIS' names where they aren't ours
_OWN = {
    "lora": "networks.lora",
    "lora_fa": "networks.lora_fa",
    "tlora": "networks.lora",
    "dylora": "networks.dylora",
}  # kohya's own


def network_module(config: RunConfig) -> str:
    """The module that trains such a network: kohya's own, or LyCORIS'."""
    network = config.network
    if network.algo in _OWN and not _of_lycoris(config) and not network.lycoris_preset:
        return _OWN[network.algo]
    return "lycoris.kohya"


def network_arguments(config: RunConfig) -> dict[str, str]:
    """What the module takes as ``network_args``: only those that are set; LyCORIS' convolutions have to be named."""
    given = {name: getattr(config.network, name) for name in _PER_NETWORK}
    given |= {name: getattr(config.optimizer, name) for name in _PLUS}
    if not given["conv_dim"]:
        del given["conv_alpha"]
    if config.network.algo == "dylora":
        given["unit"] = config.network.unit
    said = {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in given.items()
        if value
    }
    if network_module(config) != "lycoris.kohya":
        return said
    network = config.network
    said |= {"algo": _ALGOS.get(network.algo, network.algo), "conv_dim": str(network.conv_dim)}
    said |= {name: str(getattr(network, name)) for name in _of_lycoris(config)}
    if network.lycoris_preset:
        said["preset"] = network.lycoris_preset
    return said | ({"wd_on_output": str(network.wd_on_output)} if network.dora_wd else {})


def _of_lycoris(config: RunConfig) -> list[str]:
    """The options of LyCORIS that are set."""
    return [name for name in _LYCORIS if getattr(config.network, name) not in (False, -1)]
