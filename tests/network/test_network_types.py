"""Networks of every type on a whole model: what is trained, what files bring back, which layers a preset chooses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lycoris.kohya
import pytest
import torch

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.network.chosen import PRESETS
from lora_trainer.network.file import read_lora, write_lora
from lora_trainer.network.network import LoraNetwork
from tests.support.network_types import TYPES

Make = Callable[[str], Any]
SMALL = {"network_dim": 2, "network_alpha": 1.0, "conv_dim": 2}
WHOLE = {
    name: given
    for name, given in TYPES.items()
    if name in ("lokr whole", "loha tucker", "dora", "dokr", "lora_fa", "oft")
}
WHOLE |= {"ia3": {"algo": "ia3"}, "norm": {"train_norm": True, "lycoris_preset": "full"}}


def filled(network: LoraNetwork) -> LoraNetwork:
    """Values in all weights, as training would leave them."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data.add_(torch.empty_like(parameter).uniform_(-0.2, 0.2, generator=generator))
    return network


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_module_is_trained_and_comes_back_from_the_file(
    tiny: Make, family: str, name: str, tmp_path: Path
) -> None:
    model = tiny(family)
    plain = model.predict()
    network = model.network(**{**SMALL, **WHOLE[name]})
    with network:
        assert torch.equal(model.predict(), plain)
        filled(network)
        changed = model.predict()
        (changed.square().mean() + sum(model.encode(i).square().mean() for i in range(len(model.encoders)))).backward()
    still = [m.key for m in network.modules for w in m.weights.values() if w.grad is None or not bool(w.grad.any())]
    assert not still and not torch.allclose(changed, plain, atol=1e-3)
    path = tmp_path / "a.safetensors"
    write_lora(path, network.state_dict(), {})
    again = LoraNetwork.from_file(path, model.unet, model.encoders, model.info)
    assert again.notices == [] and len(again.modules) == len(network.modules)
    with again, torch.no_grad():
        torch.testing.assert_close(model.predict(), changed.detach(), rtol=1e-4, atol=1e-5)
    if name == "lora_fa":
        return  # the file doesn't say it
    for given in ({}, {"dim_from_weights": True}):
        options = {**SMALL, **WHOLE[name], "network_weights": str(path), **given}
        options |= {"network_dim": 7, "rs_lora": False} if given else {}
        continued = model.network(**options)
        assert continued.notices == []
        with continued, torch.no_grad():
            torch.testing.assert_close(model.predict(), changed.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lokr", "loha tucker", "locon tucker", "rslora"])
def test_lycoris_loads_the_whole_file(tiny: Make, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It makes a network of its own first, whose targets only get in its way.
    monkeypatch.setattr(lycoris.kohya.LycorisNetworkKohya, "UNET_TARGET_REPLACE_MODULE", [])
    monkeypatch.setattr(lycoris.kohya.LycorisNetworkKohya, "UNET_TARGET_REPLACE_NAME", [])
    model = tiny("sd1")
    network = filled(model.network(**SMALL, **TYPES[name], lycoris_preset="full", network_train_unet_only=True))
    path = tmp_path / "a.safetensors"
    write_lora(path, network.state_dict(), {})
    with network, torch.no_grad():
        ours = model.predict()
    theirs, _ = lycoris.kohya.create_network_from_weights(1.0, str(path), None, None, model.unet)
    assert len(theirs.unet_loras) == len(network.modules)
    for module in theirs.unet_loras:
        module.eval().apply_to()
    with torch.no_grad():
        torch.testing.assert_close(model.predict(), ours, rtol=1e-3, atol=1e-4)


def test_a_state_brings_every_bit_back(tiny: Make) -> None:
    model = tiny("sd1")
    for given in WHOLE.values():
        network = filled(model.network(**{**SMALL, **given}))
        other = model.network(seed=9, **{**SMALL, **given})
        other.load_state_dict(network.state_dict())
        ours, theirs = network.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_lora_fa_trains_half_of_it(tiny: Make) -> None:
    model = tiny("sd1")
    full, half = model.network(**SMALL), model.network(**SMALL, algo="lora_fa")
    assert {name for module in half.modules for name in module.weights} == {"up"}
    assert full.state_dict().keys() == half.state_dict().keys()
    before = {key: tensor for key, tensor in half.state_dict().items() if ".lora_down" in key}
    groups = half.parameter_groups(RunConfig().replace(learning_rate=0.1))
    optimizer = torch.optim.SGD(groups)
    with half:
        (model.predict().square().mean()).backward()
    optimizer.step()
    assert all(torch.equal(half.state_dict()[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"ia3", "attn-only"}))
def test_presets_choose_the_modules_that_lycoris_chooses(
    tiny: Make, preset: str, norms: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rules = tiny("sd1"), dict(lycoris.kohya.PRESET[preset])
    # Of another model family; in Stable Diffusion it is found twice then, which LyCORIS itself refuses.
    rules["unet_target_module"] = [name for name in rules["unet_target_module"] if name != "TimestepEmbedding"]
    monkeypatch.setitem(lycoris.kohya.PRESET, preset, rules)
    network = model.network(**SMALL, lycoris_preset=preset, train_norm=norms)
    theirs = lycoris.kohya.create_network(
        1.0, 2, 1.0, None, model.encoders[0].module, model.unet, preset=preset, conv_dim=2, train_norm=norms,
        warn_on_unmatched=False,
    )  # fmt: skip
    assert {module.key for module in network.modules} == {
        re.sub("lora_te_(?!text_model)", "lora_te_text_model_", module.lora_name) for module in theirs.loras
    }
    with_text = any(module.target.part == "text_encoder" for module in network.modules)
    assert with_text == (not preset.startswith("unet-"))


def test_presets_by_name_of_layer(tiny: Make) -> None:
    def endings(**options: Any) -> set[str]:
        keys = [module.key for module in tiny("sd1").network(network_dim=2, **options).modules]
        return {re.sub(r".*(?:transformer_blocks_0_|self_attn_|mlp_)", "", key) for key in keys}

    expected = {"attn1_to_k", "attn1_to_v", "attn2_to_k", "attn2_to_v", "ff_net_2", "k_proj", "v_proj", "fc2"}
    assert endings(lycoris_preset="ia3") == endings(algo="ia3") == expected
    projections = {f"attn{i}_to_{x}" for i in (1, 2) for x in ("q", "k", "v", "out_0")}
    assert endings(lycoris_preset="attn-only") == projections | {f"{x}_proj" for x in ("q", "k", "v", "out")}


def test_norm_layers_follow_their_blocks(tiny: Make) -> None:
    def norms(**options: Any) -> int:
        network = tiny("sd1").network(**SMALL, train_norm=True, **options)
        return sum(module.target.is_norm for module in network.modules)

    transformers, residuals = 16 * 4, 22 * 2
    assert norms(lycoris_preset="full") == transformers + residuals
    assert norms(lycoris_preset="attn-mlp") == transformers and norms(lycoris_preset="attn-only") == 0


def test_files_of_another_type_or_width_are_refused(tiny: Make, tmp_path: Path) -> None:
    model, path = tiny("sd1"), tmp_path / "a.safetensors"
    write_lora(path, model.network(**SMALL, algo="loha").state_dict(), {})
    with pytest.raises(FileError, match=r"is a LoHa .*makes a LoRA; switch dim_from_weights on"):
        model.network(**SMALL, network_weights=str(path))
    tensors = model.network(**SMALL, dora_wd=True).state_dict()
    wide = {key: t.repeat(1, 2, *(1,) * (t.dim() - 2)) if "dora_scale" in key else t for key, t in tensors.items()}
    write_lora(path, wide, {})
    with pytest.raises(FileError, match=r"magnitudes, for a weight of \d+ outputs"):
        LoraNetwork.from_file(path, model.unet, model.encoders, model.info)
    assert read_lora(path).modules


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algo": "loha", "factor": 4}, "factor is an option of lokr, and algo is loha"),
        ({"algo": "ia3", "dora_wd": True}, "dora_wd is an option of lora and lora_fa and loha and lokr"),
        ({"algo": "lokr", "network_dropout": 0.1}, "network_dropout is an option of lora"),
        ({"dora_wd": True, "network_dropout": 0.1}, "network_dropout doesn't go with dora_wd"),
        ({"wd_on_output": True}, "switch dora_wd on"),
        ({"algo": "loha", "loraplus_lr_ratio": 16}, "loraplus_lr_ratio is an option of lora"),
        ({"algo": "lora_fa", "network_weights": "a", "dim_from_weights": True}, "says nothing of lora_fa"),
        ({"algo": "glora"}, "algo can't be 'glora'"),
        ({"unit": 2}, "unit is an option of dylora"),
        ({"algo": "diag-oft", "scale_weight_norms": 1}, "scale_weight_norms is an option of lora"),
    ],
)
def test_options_of_another_type_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RunConfig().replace(**options)
