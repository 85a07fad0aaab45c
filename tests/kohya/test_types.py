"""Network types by kohya's and LyCORIS' names."""

from __future__ import annotations

from typing import Any

import pytest

from lora_trainer.kohya import export_toml, load_kohya
from lora_trainer.kohya.types import TYPES
from tests.support.kohya_form import FORM, form, notices, refused

SHOWN = {  # what the form writes into every file
    "LyCORIS_preset": "full", "factor": -1, "use_cp": False, "use_tucker": False, "use_scalar": False, "unit": 1,
    "rank_dropout_scale": False, "dora_wd": False, "train_norm": False, "train_on_input": True, "decompose_both": False,
    "bypass_mode": False, "constrain": 0.0, "rescaled": False, "conv_dim": 8, "conv_alpha": 4, "network_dim": 24,
    "network_alpha": 2,
}  # fmt: skip


def network(**values: Any) -> dict[str, Any]:
    """What of the network isn't at its default."""
    config = form(**{**SHOWN, **values}).network
    default = type(config)()
    return {name: value for name, value in vars(config).items() if value != getattr(default, name)}


COMMON = {"network_dim": 24, "network_alpha": 2.0}
CONV = {**COMMON, "conv_dim": 8, "conv_alpha": 4.0}


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("Standard", {}, COMMON),
        ("Kohya LoCon", {}, CONV),
        ("LoRA-FA", {}, {**COMMON, "algo": "lora_fa"}),
        ("Kohya LoHa", {"use_tucker": True, "dora_wd": True}, {**CONV, "algo": "loha", "use_tucker": True}),
        ("Kohya LoKr", {"factor": 4}, {**CONV, "algo": "lokr", "factor": 4}),
        ("LoCon", {"dora_wd": "True"}, {**CONV, "lycoris_preset": "full", "dora_wd": True}),
        ("LyCORIS/LoHa", {"use_tucker": True}, {**CONV, "algo": "loha", "lycoris_preset": "full", "use_tucker": True}),
        ("LyCORIS/LoKr", {"use_cp": True, "decompose_both": True, "factor": "6", "LyCORIS_preset": "attn-mlp"},
         {**CONV, "algo": "lokr", "lycoris_preset": "attn-mlp", "use_tucker": True, "decompose_both": True,
          "factor": 6}),
        ("Kohya DyLoRA", {"unit": 4}, {**CONV, "algo": "dylora", "unit": 4}),
        ("LyCORIS/DyLoRA", {"unit": "2"}, {**CONV, "algo": "dylora", "lycoris_preset": "full", "unit": 2}),
        ("LyCORIS/Diag-OFT", {}, {**CONV, "algo": "diag-oft", "lycoris_preset": "full"}),
        ("LyCORIS/Diag-OFT", {"constrain": 0.001, "rescaled": True},
         {**CONV, "algo": "diag-oft", "lycoris_preset": "full", "constraint": 0.001, "rescaled": True}),
        ("LyCORIS/BOFT", {}, {**CONV, "algo": "boft", "lycoris_preset": "full"}),
        ("LyCORIS/iA3", {}, {**CONV, "algo": "ia3", "lycoris_preset": "full", "train_on_input": True}),
        ("LyCORIS/iA3", {"LyCORIS_preset": "", "train_on_input": 0}, {**CONV, "algo": "ia3", "lycoris_preset": "ia3"}),
    ],
)  # fmt: skip
def test_types_of_the_form(kind: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert network(LoRA_type=kind, **given) == expected


def test_every_type_of_the_table_loads() -> None:
    for kind, row in TYPES.items():
        assert form(**{**SHOWN, "LoRA_type": kind}).network.algo == row.algo


def test_fields_that_the_type_isnt_given_are_told() -> None:
    lines = notices(**{**SHOWN, "LoRA_type": "LyCORIS/LoHa", "decompose_both": True, "block_dims": "4," * 24 + "4"})
    assert lines == ["No effect: decompose_both, block_dims (LoRA_type LyCORIS/LoHa has none)."]
    lines = notices(**{**SHOWN, "LoRA_type": "LyCORIS/LoKr", "network_dropout": 0.3, "rank_dropout_scale": True})
    assert len(lines) == 2 and "network_dropout (algo lokr has none)" in lines[1]
    assert "DoRA is trained" in notices(**{**SHOWN, "LoRA_type": "LyCORIS/LoCon", "dora_wd": True})[0]


def flat(args: list[str], module: str = "lycoris.kohya", **values: Any) -> dict[str, Any]:
    """The network of a configuration with sd-scripts' names."""
    data = {"network_module": module, "network_dim": 24, "network_alpha": 2, "network_args": args, **values}
    config = load_kohya(data).config.network
    default = type(config)()
    return {name: value for name, value in vars(config).items() if value != getattr(default, name)}


def test_arguments_of_lycoris_and_what_it_takes_for_granted() -> None:
    whole = {**COMMON, "conv_dim": 24, "conv_alpha": 2.0, "lycoris_preset": "full"}
    assert flat([]) == whole
    assert flat(["algo=lokr", "factor=8", "use_cp=True"]) == {
        **whole, "algo": "lokr", "factor": 8, "use_tucker": True}  # fmt: skip
    assert flat(["algo=loha", "preset=attn-mlp", "conv_dim=0", "dora_wd=True", "wd_on_output=True"]) == {
        **COMMON, "algo": "loha", "lycoris_preset": "attn-mlp", "conv_alpha": 2.0, "dora_wd": True,
        "wd_on_output": True,
    }  # fmt: skip
    assert flat(["algo=locon", "dropout=0.2"])["network_dropout"] == 0.2
    assert flat(["algo=LoCon ", "conv_dim = 4"], "locon.locon_kohya")["conv_dim"] == 4
    assert flat(["weight_decompose=True"])["dora_wd"] is True
    told = load_kohya({"network_module": "lycoris.kohya", "network_args": ["use_scalar=True", "ggpo_beta=1"]}).notices
    assert any("use_scalar" in line for line in told) and any("ggpo_beta (for Flux" in line for line in told)
    assert flat(["algo=ia3"])["lycoris_preset"] == "ia3"
    assert flat(["algo=dylora"]) == {**whole, "algo": "dylora", "unit": 4}
    assert flat(["algo=dylora", "block_size=2"])["unit"] == flat(["unit=2"], "networks.dylora")["unit"] == 2
    assert flat(["algo=boft", "constrain=0.01"]) == {**whole, "algo": "boft", "constraint": 0.01}
    assert flat(["conv_dim=4"], "networks.loha") == {**COMMON, "algo": "loha", "conv_dim": 4}
    assert flat(["conv_dim=4"], "networks.lora_fa")["algo"] == "lora_fa"


def test_sd_scripts_oft_has_its_constraint_for_alpha_and_trains_the_attention() -> None:
    oft = {"network_dim": 24, "algo": "oft", "constraint": 2.0, "network_train_unet_only": True}
    assert flat([], "networks.oft") == {**oft, "lycoris_preset": "attn-only"}
    assert flat(["enable_all_linear=True"], "networks.oft") == oft
    both = flat(["enable_all_linear=True", "enable_conv=True"], "networks.oft")
    assert both == {**oft, "conv_dim": 24}
    config = load_kohya({"network_module": "networks.oft", "network_dim": 4}).config
    assert config.network.constraint == 1.0, "sd-scripts' own alpha"
    for given in ([], ["enable_all_linear=True"], ["enable_all_linear=True", "enable_conv=True"]):
        data = {"network_module": "networks.oft", "network_dim": 4, "network_alpha": 1e-3, "network_args": given}
        config = load_kohya(data).config
        export = export_toml(config)
        assert load_kohya(export.data).config == config and not [line for line in export.lost if "oft" in line]
    wanted = config.replace(lycoris_preset="full", conv_dim=3, network_train_unet_only=False)
    assert len([line for line in export_toml(wanted).lost if "oft" in line]) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"network_module": "lycoris.kohya", "network_args": ["algo=glora"]},
            "network_args algo=glora (choose one of lora",
        ),
        (
            {"network_module": "lycoris.kohya", "network_args": ["preset=my.toml"]},
            "network_args preset my.toml (choose",
        ),
        ({"network_module": "networks.lora", "network_args": ["factor=8"]}, "network_args factor"),
        (
            {"network_module": "networks.lora_flux"},
            "network_module networks.lora_flux (choose one of networks.lora, networks.lora_fa, networks.dylora",
        ),
        (
            {"network_module": "networks.oft", "network_args": ["enable_conv=True"]},
            "enable_conv without enable_all_linear",
        ),
        (
            {**FORM, "LoRA_type": "LyCORIS/GLoRA"},
            "LoRA_type LyCORIS/GLoRA (choose Standard, Kohya LoCon, LoRA-FA",
        ),
        ({**FORM, "LoRA_type": "LyCORIS/LoHa", "LyCORIS_preset": "/x/my.toml"}, "LyCORIS_preset /x/my.toml"),
    ],
)
def test_what_isnt_offered_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    assert words in refused(values)
