"""A whole model's LoRA: creation, groups, norms, continuing, attaching."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.network.file import write_lora
from lora_trainer.network.network import LoraNetwork

Make = Callable[[str], Any]


def weights_of(model: Any) -> dict[str, Tensor]:
    """All weights of the model's parts."""
    parts = {"unet": model.unet} | {encoder.prefix: encoder.module for encoder in model.encoders}
    return {f"{part}.{name}": t.clone() for part, module in parts.items() for name, t in module.state_dict().items()}


def fingerprint(network: LoraNetwork) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(("family", "unet", "text"), [("sd1", 192, 12), ("sd2", 192, 12), ("sdxl", 192, 30)])
def test_new_network_changes_nothing_and_a_filled_one_everything(
    tiny: Make, models: Any, family: str, unet: int, text: int
) -> None:
    model = tiny(family)
    plain, texts = model.predict(), [model.encode(i) for i in range(len(model.encoders))]
    network = model.network(network_dim=2, conv_dim=0)
    parts = [module.target.part for module in network.modules]
    assert (parts.count("unet"), parts.count("text_encoder")) == (unet, text)
    with network:
        assert torch.equal(model.predict(), plain)
        assert all(torch.equal(model.encode(i), own) for i, own in enumerate(texts))
        models.fill(network)
        assert float((model.predict() - plain).detach().abs().max()) > 1e-3
        assert all(float((model.encode(i) - own).detach().abs().max()) > 1e-3 for i, own in enumerate(texts))
    assert torch.equal(model.predict(), plain)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_training_step_changes_the_lora_only(tiny: Make, models: Any, family: str) -> None:
    model = tiny(family)
    before = weights_of(model)
    network = models.fill(model.network(network_dim=2, conv_dim=2))
    old = network.state_dict()
    optimizer = torch.optim.AdamW(network.parameter_groups(RunConfig().replace(learning_rate=1e-2)))
    with network:
        texts = sum((model.encode(i) ** 2).mean() for i in range(len(model.encoders)))
        loss = (model.predict() ** 2).mean() + texts
        loss.backward()
    optimizer.step()
    missing = [module.key for module in network.modules if module.up.grad is None or module.down.grad is None]
    assert missing == []
    new = network.state_dict()
    assert all(torch.equal(old[name], new[name]) == name.endswith("alpha") for name in old)
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad or p.grad is not None for p in model.unet.parameters())


def test_gradients_through_the_unet_reach_the_text_encoder(tiny: Make, models: Any) -> None:
    model = tiny("sd1")
    network = models.fill(model.network(network_dim=2))
    with network:
        (model.predict(model.encode()) ** 2).mean().backward()
    text = [module for module in network.modules if module.target.part == "text_encoder"]
    assert all(module.up.grad is not None and float(module.up.grad.abs().sum()) > 0 for module in text)


def test_one_side_only(tiny: Make) -> None:
    model = tiny("sdxl")
    for option, part in (("network_train_unet_only", "unet"), ("network_train_text_encoder_only", "text_encoder")):
        network = model.network(network_dim=2, **{option: True})
        assert {module.target.part for module in network.modules} == {part}
    assert {m.target.part for m in model.network(network_dim=2, text_encoder_lr=0.0).modules} == {"unet"}


def test_same_seed_same_weights_from_any_thread(tiny: Make) -> None:
    model = tiny("sd1")
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = fingerprint(model.network(seed=5, network_dim=2))
    assert torch.equal(torch.random.get_rng_state(), state)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(fingerprint(model.network(seed=5, network_dim=2))))
    thread.start()
    thread.join()
    assert found == [first] != [fingerprint(model.network(seed=6, network_dim=2))]


def test_initialisation_survives_a_host_that_patches_nn_init(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("sd1")
    expected = fingerprint(model.network(seed=5, network_dim=2))
    for name in ("kaiming_uniform_", "_no_grad_uniform_", "_no_grad_normal_", "zeros_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor, raising=False)
    monkeypatch.setattr(nn.Linear, "__init__", lambda *args, **kwargs: pytest.fail("a host may patch nn.Linear"))
    assert fingerprint(model.network(seed=5, network_dim=2)) == expected


def test_blocks_ranks_alphas_and_rates(tiny: Make) -> None:
    model = tiny("sd1")
    dims = tuple(2 + i % 3 for i in range(25))
    config = RunConfig().replace(
        block_dims=dims, block_alphas=tuple(float(i + 1) for i in range(25)), conv_dim=3,
        down_lr_weight="zeros", mid_lr_weight="0.5", learning_rate=1e-3, text_encoder_lr=2e-4,
    )  # fmt: skip
    network = LoraNetwork.create(model.unet, model.encoders, model.info, config, 1)
    unet = [module for module in network.modules if module.target.part == "unet"]
    assert {module.target.block for module in unet} == set(range(12, 25))
    for module in unet:
        block = module.target.block
        assert block is not None
        three = module.target.large_kernel
        assert (module.rank, module.alpha) == ((3, 1.0) if three else (dims[block], block + 1.0))
    groups = network.parameter_groups(config)
    assert [group["name"] for group in groups] == ["text_encoder", *(f"unet_block{i}" for i in range(12, 25))]
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["text_encoder"] == 2e-4 and rates["unet_block12"] == 5e-4 and rates["unet_block20"] == 1e-3


def test_groups_are_lists_and_hold_every_parameter_once(tiny: Make) -> None:
    model = tiny("sdxl")
    options = {"network_dim": 2, "learning_rate": 1e-3, "text_encoder_lr": 1e-4}
    cases: list[tuple[dict[str, Any], dict[str, float]]] = [
        ({}, {"text_encoder": 1e-4, "unet": 1e-3}),
        ({"loraplus_lr_ratio": 16.0},
         {"text_encoder": 1e-4, "text_encoder plus": 16e-4, "unet": 1e-3, "unet plus": 16e-3}),
        ({"loraplus_lr_ratio": 4.0, "loraplus_unet_lr_ratio": 8.0},
         {"text_encoder": 1e-4, "text_encoder plus": 4e-4, "unet": 1e-3, "unet plus": 8e-3}),
        ({"loraplus_text_encoder_lr_ratio": 2.0}, {"text_encoder": 1e-4, "text_encoder plus": 2e-4, "unet": 1e-3}),
    ]  # fmt: skip
    for more, expected in cases:
        config = RunConfig().replace(**options, **more)
        network = LoraNetwork.create(model.unet, model.encoders, model.info, config, 1)
        groups = network.parameter_groups(config)
        assert {group["name"]: group["lr"] for group in groups} == pytest.approx(expected)
        assert all(isinstance(group["params"], list) for group in groups)
        held = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())
        ups = {id(module.up) for module in network.modules}
        for group in groups:
            if group["name"].endswith("plus"):
                assert {id(parameter) for parameter in group["params"]} <= ups


def test_nothing_to_train_is_refused(tiny: Make) -> None:
    with pytest.raises(ConfigError, match="Nothing would be trained"):
        tiny("sd1").network(network_train_unet_only=True, block_dims=(0,) * 25)


@pytest.mark.parametrize("limit", [0.5, 3.0, 1000.0])
def test_norm_limit_by_its_closed_form(tiny: Make, models: Any, limit: float) -> None:
    network = models.fill(tiny("sd1").network(network_dim=3, network_alpha=5.0, conv_dim=2))
    before = {module.key: module.delta_weight().double() for module in network.modules}
    halves = {module.key: (module.down.clone(), module.up.clone()) for module in network.modules}
    report = network.scale_weight_norms(limit)
    scaled, norms = 0, []
    for module in network.modules:
        norm = max(float(before[module.key].norm()), limit / 2)
        ratio = min(norm, limit) / norm
        torch.testing.assert_close(module.delta_weight().double(), before[module.key] * ratio, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(module.down, halves[module.key][0] * ratio**0.5, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(module.up, halves[module.key][1] * ratio**0.5, rtol=1e-4, atol=1e-6)
        scaled += ratio < 1
        norms.append(float(before[module.key].norm()) * ratio)
    assert abs(report.scaled - scaled) <= 1  # one may sit on the limit within rounding
    assert report.mean == pytest.approx(sum(norms) / len(norms), rel=1e-4)
    assert report.largest == pytest.approx(max(norms), rel=1e-4)
    assert (scaled > 0) == (limit < 1000) and report.largest <= limit * 1.0001


def test_state_goes_round_and_keeps_every_bit(tiny: Make, models: Any) -> None:
    model = tiny("sd2")
    first = models.fill(model.network(network_dim=2, conv_dim=2))
    second = model.network(seed=9, network_dim=2, conv_dim=2)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second)
    with pytest.raises(FileError, match="doesn't fit this configuration"):
        model.network(network_dim=3).load_state_dict(first.state_dict())


def test_sd2_writes_projections_as_convolutions_and_reads_both(tiny: Make, models: Any, tmp_path: Path) -> None:
    model = tiny("sd2")  # its projections are linears
    network = models.fill(model.network(network_dim=2))
    tensors = network.state_dict()
    for name, tensor in tensors.items():
        if not name.endswith("alpha"):
            assert (tensor.dim() == 4) == ("_proj_in." in name or "_proj_out." in name), name
    flat = {name: tensor.flatten(1) if tensor.dim() == 4 else tensor for name, tensor in tensors.items()}
    for number, variant in enumerate((tensors, flat)):
        write_lora(tmp_path / f"{number}.safetensors", variant, {})
        read = LoraNetwork.from_file(tmp_path / f"{number}.safetensors", model.unet, model.encoders, model.info)
        assert fingerprint(read) == fingerprint(network)
    sdxl = tiny("sdxl").network(network_dim=2).state_dict()
    assert all(tensor.dim() < 4 for tensor in sdxl.values())


def test_continuing_keeps_the_models_output(tiny: Make, models: Any, tmp_path: Path) -> None:
    model = tiny("sd1")
    first = models.fill(model.network(network_dim=2, network_alpha=2.0))
    write_lora(tmp_path / "first.safetensors", first.state_dict(), {})
    with first, torch.no_grad():
        expected = model.predict(model.encode())
    weights = {"network_weights": str(tmp_path / "first.safetensors")}
    for options in ({"network_dim": 2, "network_alpha": 1.0}, {"network_dim": 8, "dim_from_weights": True}):
        second = model.network(seed=4, **weights, **options)
        with second, torch.no_grad():
            torch.testing.assert_close(model.predict(model.encode()), expected, rtol=1e-4, atol=1e-5)
    assert {(module.rank, module.alpha) for module in second.modules} == {(2, 2.0)}  # dim_from_weights
    assert second.notices == []
    with pytest.raises(FileError, match=r"first\.safetensors has rank 2 .* 8; switch dim_from_weights on"):
        model.network(network_dim=8, **weights)


def test_continuing_with_more_or_fewer_modules_says_so(tiny: Make, models: Any, tmp_path: Path) -> None:
    model = tiny("sd1")
    whole = models.fill(model.network(network_dim=2))
    path = tmp_path / "whole.safetensors"
    write_lora(path, whole.state_dict(), {})
    unet = model.network(network_dim=2, network_weights=str(path), network_train_unet_only=True)
    assert len(unet.modules) == 192 and "Not used: 12 of the 204 modules of whole.safetensors" in unet.notices[0]
    more = model.network(network_dim=2, network_weights=str(path), conv_dim=2)
    assert len(more.modules) == 278 + 12 and "so trained from scratch: 86 of 290" in more.notices[-1]
    fewer = model.network(network_weights=str(path), dim_from_weights=True, conv_dim=2, down_lr_weight="zeros")
    assert min(module.target.block or 99 for module in fewer.modules) == 12


def test_a_lora_of_another_family_is_refused(tiny: Make, models: Any, tmp_path: Path) -> None:
    xl, path = tiny("sdxl"), tmp_path / "xl.safetensors"
    write_lora(path, models.fill(xl.network(network_dim=2)).state_dict(), {})
    model = tiny("sd1")
    with pytest.raises(FileError, match=r"xl\.safetensors is a LoRA for SDXL, but tiny\.safetensors is SD 1"):
        LoraNetwork.from_file(path, model.unet, model.encoders, model.info)


def test_a_lora_for_other_sizes_is_refused(tiny: Make, models: Any, tmp_path: Path) -> None:
    model, path = tiny("sd1"), tmp_path / "small.safetensors"
    write_lora(path, models.fill(model.network(network_dim=2)).state_dict(), {})
    model.unet = models.unet(models.TINY["sd1"], block_out_channels=(16, 16, 24, 24))
    with pytest.raises(FileError, match=r"small\.safetensors doesn't fit this model: .* has shape"):
        LoraNetwork.from_file(path, model.unet, model.encoders, model.info)


def test_reading_reproduces_the_output_at_every_strength(tiny: Make, models: Any, tmp_path: Path) -> None:
    model, path = tiny("sdxl"), tmp_path / "a.safetensors"
    network = models.fill(model.network(network_dim=2, conv_dim=2, rank_dropout=0.5))
    write_lora(path, network.state_dict(), {})
    read = LoraNetwork.from_file(path, model.unet, model.encoders, model.info)
    assert len(read.modules) == len(network.modules) and read.notices == []
    with torch.no_grad():
        plain = model.predict()
        for strength in (0.0, 0.4, 1.2):
            with network, network.inference(strength):
                expected = model.predict()
            with read, read.inference(strength):
                assert torch.equal(model.predict(), expected)
            assert torch.equal(expected, plain) == (strength == 0)
    assert (network.multiplier, network.control.training) == (1.0, True)


def test_attaching_twice_is_refused_and_failing_to_attach_leaves_nothing(
    tiny: Make, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("sd1")
    plain = model.predict()
    network = models.fill(model.network(network_dim=2))
    with network, pytest.raises(RuntimeError, match="attached already"):
        network.attach()
    assert torch.equal(model.predict(), plain)
    last = network.modules[-1]

    def fail() -> None:
        raise MemoryError

    monkeypatch.setattr(last, "attach", fail)
    with pytest.raises(MemoryError):
        network.attach()
    assert torch.equal(model.predict(), plain)
    assert not any(module._forward_hooks for module in model.unet.modules())
    monkeypatch.undo()
    with network:
        assert not torch.equal(model.predict(), plain)
    with network, network.left_out():
        assert torch.equal(model.predict(), plain)
