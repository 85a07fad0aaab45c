"""open_clip's text tower: attention in one nn.MultiheadAttention whose parts are never called as modules."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lora_trainer.config import RunConfig
from lora_trainer.hosts.base import TextEncoder
from lora_trainer.network.network import LoraNetwork
from lora_trainer.network.targets import text_targets

WIDTH, HEADS, LAYERS, RANK = 12, 2, 3, 4


class Block(nn.Module):
    """open_clip's residual attention block."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        self.ln_2 = nn.LayerNorm(WIDTH)
        parts = [("c_fc", nn.Linear(WIDTH, 2 * WIDTH)), ("gelu", nn.GELU()), ("c_proj", nn.Linear(2 * WIDTH, WIDTH))]
        self.mlp = nn.Sequential(OrderedDict(parts))  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """A text tower; takes and gives [B, T, C]."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList([Block(batch_first) for _ in range(LAYERS)])
        self.visual = nn.Module()
        self.visual.transformer = nn.Module()
        self.visual.transformer.resblocks = nn.ModuleList([Block(batch_first)])

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1).to(x)
        x = x if self.batch_first else x.transpose(0, 1)
        for block in self.transformer.resblocks:  # type: ignore[union-attr]
            x = block(x, mask)
        return x if self.batch_first else x.transpose(0, 1)


@pytest.fixture(params=[False, True], ids=["sequence first", "batch first"])
def tower(request: pytest.FixtureRequest) -> Tower:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Tower(request.param)
        for parameter in made.parameters():
            parameter.data.normal_(0, 0.3)
    return made.requires_grad_(False).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(4))


def network(models: Any, tower: nn.Module, **options: Any) -> LoraNetwork:
    """A text encoder's network; the UNet isn't trained and not needed."""
    config = RunConfig().replace(network_train_text_encoder_only=True, network_dim=RANK, network_alpha=2.0, **options)
    return LoraNetwork.create(
        nn.Module(), [TextEncoder(tower, "lora_te2", "open_clip")], models.info("sdxl"), config, 1
    )


def merged(tower: Tower, net: LoraNetwork) -> dict[str, Tensor]:
    """The tower's weights with W + alpha/r · B·A written into the packed attention weight."""
    weights = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    part = {"self_attn_q_proj": 0, "self_attn_k_proj": 1, "self_attn_v_proj": 2}
    for name, tensor in net.state_dict().items():
        key, _, kind = name.partition(".")
        if kind != "lora_down.weight":
            continue
        change = net.state_dict()[f"{key}.lora_up.weight"] @ tensor * (2.0 / RANK)
        layer, leaf = key.removeprefix("lora_te2_text_model_encoder_layers_").split("_", 1)
        block = f"transformer.resblocks.{layer}"
        if leaf in part:
            rows = slice(part[leaf] * WIDTH, (part[leaf] + 1) * WIDTH)
            weights[f"{block}.attn.in_proj_weight"][rows] += change
        else:
            own = {"self_attn_out_proj": "attn.out_proj", "mlp_fc1": "mlp.c_fc", "mlp_fc2": "mlp.c_proj"}[leaf]
            weights[f"{block}.{own}.weight"] += change
    return weights


def test_keys_are_those_of_the_transformers_layout(models: Any, tower: Tower) -> None:
    keys = {module.key for module in network(models, tower).modules}
    names = [f"self_attn_{slot}_proj" for slot in ("q", "k", "v", "out")] + ["mlp_fc1", "mlp_fc2"]
    assert keys == {f"lora_te2_text_model_encoder_layers_{i}_{name}" for i in range(LAYERS) for name in names}


def test_sd2_leaves_the_unused_last_layer_out(models: Any, tower: Tower) -> None:
    found = text_targets([TextEncoder(tower, "lora_te", "open_clip")], models.info("sd2"))
    assert len(found) == (LAYERS - 1) * 6
    assert {target.path.split(".")[2] for target in found} == {"0", "1"}


def test_output_is_that_of_merged_weights(models: Any, tower: Tower, x: Tensor) -> None:
    net = models.fill(network(models, tower))
    plain = tower(x)
    other = Tower(tower.batch_first).eval()
    other.load_state_dict(merged(tower, net))
    with net:
        y = tower(x)
    torch.testing.assert_close(y, other(x), rtol=1e-4, atol=1e-5)
    assert float((y - plain).detach().abs().max()) > 0.1
    assert torch.equal(tower(x), plain)


@pytest.mark.parametrize("mode", ["training", "generating"])
def test_new_network_changes_nothing(models: Any, tower: Tower, x: Tensor, mode: str) -> None:
    with torch.set_grad_enabled(mode == "training"):  # without gradients torch may take its fused attention
        x.requires_grad_(mode == "training")
        plain = tower(x)
        with network(models, tower):
            assert torch.equal(tower(x), plain)


class Products(TorchDispatchMode):
    """Records the operations whose rounding depends on the processor, with the shape and strides of all they read."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[Any, ...]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        read = [(tuple(x.shape), x.stride()) for x in args if isinstance(x, Tensor)]
        own = any(RANK in shape for shape, _ in read)  # the LoRA's
        if not own and (name in ("mm", "addmm", "bmm", "baddbmm") or "attention" in name):
            self.seen.append((name, read))
        return func(*args, **(kwargs or {}))


def test_the_path_is_torchs_own(models: Any, tower: Tower, x: Tensor) -> None:
    x.requires_grad_(True)
    with Products() as plain:
        tower(x)
    with models.fill(network(models, tower)), Products() as changed:
        tower(x)
    assert changed.seen == plain.seen and len(plain.seen) == 5 * LAYERS


@pytest.mark.parametrize("option", ["network_dropout", "rank_dropout"])
def test_dropout_goes_by_image_not_by_token(models: Any, tower: Tower, x: Tensor, option: str) -> None:
    net = models.fill(network(models, tower, **{option: 0.5}))
    with net:
        net.begin_step(7, samples=[3, 8])
        both = tower(x)
        net.begin_step(7, samples=[8])
        torch.testing.assert_close(tower(x[1:]), both[1:], rtol=1e-4, atol=1e-5)
        net.begin_step(7, samples=[9])
        assert float((tower(x[1:]) - both[1:]).detach().abs().max()) > 1e-2


def test_strength_zero_takes_the_towers_own_path(models: Any, tower: Tower, x: Tensor) -> None:
    net = models.fill(network(models, tower))
    with torch.no_grad():
        plain = tower(x)  # torch's fused attention in inference
        with net, net.inference(0.0):
            assert torch.equal(tower(x), plain)


def test_gradients_equal_those_of_merged_weights(models: Any, tower: Tower, x: Tensor) -> None:
    net = models.fill(network(models, tower))
    first, second = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    with net:
        (tower(first) ** 2).sum().backward()
    packed = {name: tensor.requires_grad_(True) for name, tensor in merged(tower, net).items()}
    (torch.func.functional_call(Tower(tower.batch_first).eval(), packed, (second,)) ** 2).sum().backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-3, atol=1e-4)
    attention = packed["transformer.resblocks.1.attn.in_proj_weight"].grad
    assert attention is not None
    values = next(module for module in net.modules if module.key.endswith("layers_1_self_attn_v_proj"))
    grad = attention[2 * WIDTH :]  # of the value projection's merged weight
    torch.testing.assert_close(values.up.grad, grad @ values.down.T * 0.5, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(values.down.grad, values.up.T @ grad * 0.5, rtol=1e-3, atol=1e-4)
    assert all(module.up.grad is not None for module in net.modules)
    assert all(parameter.grad is None for parameter in tower.parameters())


def test_the_tower_is_left_as_it_was(models: Any, tower: Tower, x: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    own = {id(module): set(module.__dict__) for module in tower.modules()}
    net = models.fill(network(models, tower))
    with pytest.raises(ZeroDivisionError), net:
        tower(x.requires_grad_(True)).sum().backward()
        raise ZeroDivisionError
    assert all(torch.equal(before[name], tensor) for name, tensor in tower.state_dict().items())
    assert own == {id(module): set(module.__dict__) for module in tower.modules()}


def test_a_hosts_own_forward_comes_back(models: Any, tower: Tower, x: Tensor) -> None:
    attention: Any = tower.transformer.resblocks[0].attn  # type: ignore[index, union-attr]
    plain = tower(x)
    calls: list[int] = []
    original = attention.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    attention.forward = counted
    with network(models, tower):
        pass
    assert attention.forward is counted
    assert torch.equal(tower(x), plain) and calls == [1]


def test_two_networks_add_up_and_leave_in_any_order(models: Any, tower: Tower, x: Tensor) -> None:
    first, second = models.fill(network(models, tower), 3), models.fill(network(models, tower), 4)
    plain = tower(x)
    with second:
        alone = tower(x)
    changes = merged(tower, first)
    for name, tensor in merged(tower, second).items():
        changes[name] = changes[name] + tensor - tower.state_dict()[name]
    both = Tower(tower.batch_first).eval()
    both.load_state_dict(changes)
    first.attach()
    second.attach()
    torch.testing.assert_close(tower(x), both(x), rtol=1e-4, atol=1e-5)
    first.detach()
    assert torch.equal(tower(x), alone)
    second.detach()
    assert torch.equal(tower(x), plain)


@pytest.mark.parametrize("kind", ["bool", "per head"])
def test_other_masks_mean_the_same(models: Any, kind: str, x: Tensor) -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval().requires_grad_(False)
    holder = nn.Module()
    holder.transformer = nn.Module()
    block = Block(True)
    block.attn = attention
    holder.transformer.resblocks = nn.ModuleList([block])
    mask = torch.ones(7, 7, dtype=torch.bool).triu(1)
    if kind == "per head":
        mask = mask.expand(2 * HEADS, 7, 7).clone()
        mask[1, 3, :2] = True
    x.requires_grad_(True)
    plain = attention(x, x, x, need_weights=False, attn_mask=mask)[0]
    with network(models, holder.requires_grad_(False)):
        torch.testing.assert_close(attention(x, x, x, need_weights=False, attn_mask=mask)[0], plain)
        other = x * 0.5
        crossed = attention(x, other, other * 2, need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(crossed, attention(x, other, other * 2, need_weights=False, attn_mask=mask)[0])


def test_calls_that_clip_doesnt_make_are_refused(models: Any, tower: Tower, x: Tensor) -> None:
    attention: Any = tower.transformer.resblocks[0].attn  # type: ignore[index, union-attr]
    with network(models, tower), pytest.raises(NotImplementedError):
        attention(x, x, x, need_weights=True)
    mask = torch.zeros(x.shape[1], x.shape[1], dtype=torch.bool)
    for more in ({"is_causal": True, "attn_mask": mask}, {"key_padding_mask": mask[:1].expand(x.shape[0], -1)}):
        with network(models, tower), pytest.raises(NotImplementedError):
            attention(x, x, x, need_weights=False, **more)


def test_half_precision_inputs(models: Any, tower: Tower, x: Tensor) -> None:
    net = models.fill(network(models, tower))
    with net:
        full = tower(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = tower(x)
    assert float((F.mse_loss(half.float(), full) / full.var()).detach()) < 1e-3
