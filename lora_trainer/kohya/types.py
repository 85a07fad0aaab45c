"""Network types by kohya's and LyCORIS' names: ``LoRA_type`` of the form, ``network_module`` and ``network_args``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_trainer.config import OPTIONS
from lora_trainer.config.network import LYCORIS_PRESETS, OWN_ARGUMENTS
from lora_trainer.errors import ConfigError, quoted
from lora_trainer.kohya.draft import NETWORK_ARGS, Draft, is_off, same, sd_default
from lora_trainer.kohya.names import FORM_DEFAULTS, no_effect_reason

LYCORIS = "lycoris.kohya"
OLD_LYCORIS = ("locon.locon_kohya",)
OFT = "networks.oft"
MODULES = {
    "networks.lora": "lora", "networks.lora_fa": "lora_fa", "networks.dylora": "dylora", "networks.loha": "loha",
    "networks.lokr": "lokr", OFT: "oft",
}  # fmt: skip
ALGOS = {  # LyCORIS' name -> ours
    "lora": "lora", "locon": "lora", "dylora": "dylora", "loha": "loha", "lokr": "lokr", "ia3": "ia3",
    "diag-oft": "diag-oft", "boft": "boft",
}  # fmt: skip
TYPE_OPTIONS = (
    "dora_wd", "wd_on_output", "rs_lora", "use_tucker", "factor", "decompose_both", "full_matrix", "train_on_input",
    "train_norm", "unit", "constraint", "rescaled",
)  # fmt: skip
OTHER_NAMES = {  # of arguments, and of fields of the form -> ours
    "use_cp": "use_tucker", "use_conv_cp": "use_tucker", "dropout": "network_dropout", "constrain": "constraint",
    "block_size": "unit", "weight_decompose": "dora_wd",
}  # fmt: skip
NO_SAY = {  # arguments of LyCORIS that change nothing here
    "bypass_mode": "changes the speed only",
    "rank_dropout_scale": "what is dropped is always made up for here",
    "disable_conv_cp": "use_tucker says it",
    "use_scalar": "a number beside the weights, which can learn it themselves",
    "verbose": "it says how much is told",
}
BLOCKS = (
    "block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "down_lr_weight", "mid_lr_weight",
    "up_lr_weight", "block_lr_zero_threshold",
)  # fmt: skip
_CONV = ("conv_dim", "conv_alpha")
_LYCORIS_FORM = (*_CONV, "dora_wd", "train_norm", "LyCORIS_preset", "bypass_mode", "use_scalar", "rank_dropout_scale")


@dataclass(frozen=True)
class FormType:
    """A ``LoRA_type``: our type, sd-scripts' module, and the fields of the form that it is given."""

    algo: str
    module: str
    fields: tuple[str, ...] = ()


TYPES: dict[str, FormType] = {
    "Standard": FormType("lora", "networks.lora", BLOCKS),
    "Kohya LoCon": FormType("lora", "networks.lora", (*_CONV, *BLOCKS)),
    "LoRA-FA": FormType("lora_fa", "networks.lora_fa", BLOCKS),
    "Kohya LoHa": FormType("loha", "networks.loha", (*_CONV, "use_tucker")),
    "Kohya LoKr": FormType("lokr", "networks.lokr", (*_CONV, "use_tucker", "factor")),
    "Kohya DyLoRA": FormType("dylora", "networks.dylora", (*_CONV, "unit")),
    "LyCORIS/LoCon": FormType("lora", LYCORIS, (*_LYCORIS_FORM, "use_tucker")),
    "LyCORIS/LoHa": FormType("loha", LYCORIS, (*_LYCORIS_FORM, "use_tucker")),
    "LyCORIS/LoKr": FormType("lokr", LYCORIS, (*_LYCORIS_FORM, "use_cp", "factor", "decompose_both")),
    "LyCORIS/DyLoRA": FormType("dylora", LYCORIS, (*_CONV, "LyCORIS_preset", "train_norm", "unit")),
    "LyCORIS/Diag-OFT": FormType(
        "diag-oft", LYCORIS, (*_CONV, "LyCORIS_preset", "train_norm", "constrain", "rescaled")
    ),
    "LyCORIS/BOFT": FormType("boft", LYCORIS, (*_CONV, "LyCORIS_preset", "train_norm")),
    "LyCORIS/iA3": FormType("ia3", LYCORIS, (*_CONV, "LyCORIS_preset", "train_on_input")),
}
OLD_TYPES = {"LoCon": "LyCORIS/LoCon"}
FORM_FIELDS = (
    *_CONV, *TYPE_OPTIONS, "LyCORIS_preset", "bypass_mode", "use_scalar", "rank_dropout_scale", "use_cp", "constrain",
)  # fmt: skip


def read_form_type(draft: Draft, data: dict[str, Any]) -> None:
    """``LoRA_type``, and of the fields around it those that the type is given."""
    kind = str(data.get("LoRA_type") or "Standard")
    kind = OLD_TYPES.get(kind, kind)
    row = TYPES.get(kind)
    if row is None:
        draft.refuse(f"LoRA_type {kind} (choose {', '.join(TYPES)})")
        return
    draft.module = row.module
    draft.set("algo", row.algo)
    for name in (*FORM_FIELDS, *BLOCKS):
        if name in row.fields:
            if name in _CONV or name in data:
                _read(draft, name, data.get(name, 1), name)
        elif name in BLOCKS:
            if draft.values.pop(name, None) and not is_off(data.get(name)):
                draft.idle(name, f"LoRA_type {kind} has none")
        elif not is_off(data.get(name)) and not same(data[name], FORM_DEFAULTS.get(name, 1 if name in _CONV else None)):
            draft.idle(name, f"LoRA_type {kind} has none")
    if row.module == LYCORIS and is_off(data.get("LyCORIS_preset")):
        draft.set("lycoris_preset", _usual_preset(row.algo))


def read_module(draft: Draft, value: Any) -> None:
    """``network_module``; what LyCORIS takes for granted is filled in at the end, by :func:`settle_type`."""
    if is_off(value):
        return
    if value in (LYCORIS, *OLD_LYCORIS):
        if draft.module != LYCORIS and draft.args is None:
            draft.args = {}  # its defaults
        draft.module = LYCORIS
    elif value in MODULES:
        draft.module = str(value)
        draft.set("algo", MODULES[draft.module])
    else:
        draft.refuse(f"network_module {value} (choose one of {', '.join(MODULES)}, {LYCORIS})")


def read_network_args(draft: Draft, value: Any) -> None:
    """A new list replaces the whole of what the form would have sent."""
    for option in (*NETWORK_ARGS, *TYPE_OPTIONS, "lycoris_preset"):
        draft.values.pop(option, None)
    parts = value.split() if isinstance(value, str) else value or []
    if not isinstance(parts, list):
        raise ConfigError(f"{draft.where('network_args')}: network_args can't be {quoted(value)}; write name=value.")
    draft.args = {}
    for part in parts:
        name, equals, text = str(part).strip("\"'").partition("=")
        if not equals:
            raise ConfigError(f"{draft.where('network_args')}: network_args has {quoted(part)}; write name=value.")
        draft.args[name.strip()] = text.strip(" \"'")


def settle_type(draft: Draft) -> None:
    """Read the arguments now that the module is known, and leave out what its type doesn't have."""
    if draft.args is not None or draft.module == OFT:
        _settle_args(draft, draft.args or {})
    values = draft.values
    algo = values.get("algo", "lora")
    for name, types in OWN_ARGUMENTS.items():
        given = values.get(name, OPTIONS[name].default)
        if given != OPTIONS[name].default and algo not in types:
            del values[name]
            draft.idle(name, f"algo {algo} has none")
    if values.get("network_dropout") and (values.get("dora_wd") or values.get("use_tucker")):
        del values["network_dropout"]
        draft.idle("network_dropout", "LyCORIS has none with DoRA or Tucker decomposition")
    if values.get("dora_wd") and "wd_on_output" not in values:
        draft.notices.append(
            "DoRA is trained with a strength for each input (wd_on_output false), as AUTOMATIC1111 1.10 reads it; "
            "today's LyCORIS takes one for each output."
        )
    if values.get("wd_on_output") and not values.get("dora_wd"):
        del values["wd_on_output"]


def _settle_args(draft: Draft, args: dict[str, str]) -> None:
    """What ``network_args`` say to the module that they are for."""
    lycoris = draft.module == LYCORIS
    if lycoris:
        algo = args.get("algo", "lora").lower()
        if algo not in ALGOS:
            draft.refuse(f"network_args algo={algo} (choose one of {', '.join(ALGOS)})")
            return
        draft.set("algo", ALGOS[algo])
        draft.set("lycoris_preset", _usual_preset(ALGOS[algo]))
        for name, other in (("conv_dim", "network_dim"), ("conv_alpha", "network_alpha")):
            draft.set(name, draft.values.get(other, OPTIONS[other].default))
        if algo == "dylora":
            args = {"block_size": "4", **args}  # its default
    elif draft.module == OFT:
        args = _settle_oft(draft, args)
    elif draft.module in ("networks.loha", "networks.lokr"):
        args = {name: text for name, text in args.items() if name not in ("algo", "preset")}
    known = (*NETWORK_ARGS, *TYPE_OPTIONS, *_OTHER_ARGS, *NO_SAY) if draft.module != "networks.lora" else NETWORK_ARGS
    for name, text in args.items():
        if name == "algo" and lycoris:
            continue
        if name in known or name in NO_SAY:
            _read(draft, name, text, f"network_args {name}")
        elif reason := no_effect_reason(name):
            draft.idle(name, reason)
        else:
            draft.refuse(f"network_args {name}")


def _settle_oft(draft: Draft, args: dict[str, str]) -> dict[str, str]:
    """sd-scripts' OFT: alpha is the constraint, and two arguments say which layers of the UNet are trained."""
    draft.set("constraint", draft.values.pop("network_alpha", sd_default("network_alpha")), "network_alpha")
    draft.set("network_train_unet_only", True)
    wide, large = (not is_off(args.get(name)) for name in ("enable_all_linear", "enable_conv"))
    if large and not wide:
        draft.refuse("network_args enable_conv without enable_all_linear")
    draft.set("lycoris_preset", "" if wide else "attn-only")
    draft.set("conv_dim", draft.values.get("network_dim", sd_default("network_dim")) if large else 0)
    return {name: text for name, text in args.items() if name not in ("enable_all_linear", "enable_conv")}


_OTHER_ARGS = ("preset", *OTHER_NAMES, "unbalanced_factorization")


def _read(draft: Draft, name: str, value: Any, shown: str) -> None:
    """One field or argument of a type."""
    if name in ("LyCORIS_preset", "preset"):
        if value and value not in LYCORIS_PRESETS:
            draft.refuse(f"{shown} {value} (choose one of {', '.join(filter(None, LYCORIS_PRESETS))})")
        elif value:
            draft.set("lycoris_preset", value, shown)
    elif name in OTHER_NAMES:
        if not is_off(value) or OTHER_NAMES[name] not in draft.values:
            draft.set(OTHER_NAMES[name], value, shown)
    elif name == "unbalanced_factorization":
        if not is_off(value):
            draft.refuse(shown)
    elif name in NO_SAY:
        if not is_off(value):
            draft.idle(name, NO_SAY[name])
    else:
        draft.set(name, value, shown)


def _usual_preset(algo: str) -> str:
    """What LyCORIS trains where no preset is named; its own advice for (IA)³ is a preset of that name."""
    return "ia3" if algo == "ia3" else "full"
