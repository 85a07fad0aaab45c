"""Recomputing blocks: the same gradients, fewer bytes kept, everything put back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from lora_trainer.seeds import torch_generator
from lora_trainer.training.checkpointing import checkpoint_blocks


class Native(torch.autograd.Function):
    """The checkpointing inside ldm's blocks: it asks for gradients of the block's own (frozen) parameters."""

    @staticmethod
    def forward(ctx: Any, run: Any, count: int, *tensors: Tensor) -> Tensor:
        ctx.run, ctx.inputs, ctx.params = run, tensors[:count], tensors[count:]
        with torch.no_grad():
            return run(*ctx.inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        inputs = [x.detach().requires_grad_() for x in ctx.inputs]
        with torch.enable_grad():
            output = ctx.run(*inputs)
        return None, None, *torch.autograd.grad(output, [*inputs, *ctx.params], grads, allow_unused=True)


class Block(nn.Module):
    """A transformer block in the manner of ldm: ``forward(x, context)`` may recompute by itself."""

    def __init__(self, width: int = 16, checkpoint: bool = False) -> None:
        super().__init__()
        self.norm, self.query, self.key = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 8 * width), nn.Linear(8 * width, width)
        self.checkpoint = checkpoint

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if self.checkpoint and context is not None:
            return Native.apply(self._forward, 2, x, context, *self.parameters())
        return self._forward(x, context)

    def _forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        context = x if context is None else context
        attention = (self.query(self.norm(x)) @ self.key(context).transpose(1, 2)).softmax(-1)
        x = x + attention @ context
        return x + self.narrow(torch.nn.functional.gelu(self.wide(x)))


class Model(nn.Module):
    """Frozen blocks with a trained low-rank change, attached by hooks as the LoRA is."""

    def __init__(self, checkpoint: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(checkpoint=checkpoint) for _ in range(3))
        generator = torch_generator("weights")
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator) * 0.2
        self.requires_grad_(False)
        self.changes = nn.ParameterList()
        for block in self.blocks:
            for layer in (block.query, block.wide):
                down = nn.Parameter(torch.randn(2, layer.in_features, generator=generator))
                up = nn.Parameter(torch.randn(layer.out_features, 2, generator=generator))
                self.changes.extend((down, up))
                layer.register_forward_hook(lambda _, args, y, a=down, b=up: y + args[0] @ a.T.to(y) @ b.T.to(y))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, context=context)  # as a keyword
        return x


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch_generator("inputs")
    return torch.randn(2, 24, 16, generator=generator), torch.randn(2, 5, 16, generator=generator)


def measure(
    model: nn.Module, trained: Sequence[Tensor], blocks: Sequence[nn.Module], *args: Any, **kwargs: Any
) -> tuple:
    """Gradients, and the bytes of distinct tensors that autograd keeps between forward and backward."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    autocast = kwargs.pop("autocast", None)
    with checkpoint_blocks(blocks) if blocks else nullcontext():
        with torch.autocast("cpu", autocast) if autocast else nullcontext(), saved_tensors_hooks(keep, lambda t: t):
            loss = model(*args, **kwargs).float().square().mean()
        gradients = torch.autograd.grad(loss, trained)
    own = {p.data_ptr() for p in model.parameters()}
    return gradients, sum(t.numel() * t.element_size() for at, t in kept.items() if at not in own)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_gradients_are_bit_equal_and_fewer_bytes_are_kept(autocast: torch.dtype | None) -> None:
    model, args = Model(), inputs()
    plain, all_bytes = measure(model, list(model.changes), [], *args, autocast=autocast)
    recomputed, few_bytes = measure(model, list(model.changes), model.blocks, *args, autocast=autocast)
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in plain)
    assert few_bytes < all_bytes / 5
    one_block = measure(model, list(model.changes), model.blocks[:1], *args, autocast=autocast)[1]
    assert few_bytes < one_block < all_bytes


def test_the_autocast_of_the_forward_pass_holds_in_the_recomputation() -> None:
    model, args = Model(), inputs()
    seen: list[torch.dtype] = []
    model.blocks[0].query.register_forward_hook(lambda _, __, y: seen.append(y.dtype))
    measure(model, list(model.changes), model.blocks, *args, autocast=torch.bfloat16)
    assert seen == [torch.bfloat16] * 2  # forward and recomputation; backward ran outside of autocast


def test_native_checkpointing_of_a_block_is_off_meanwhile() -> None:
    model, args = Model(checkpoint=True), inputs()
    args = tuple(x.requires_grad_() for x in args)
    with pytest.raises(RuntimeError):  # what happens without: the frozen parameters have no gradient
        measure(model, list(model.changes), [], *args)
    reference = Model()
    plain = measure(reference, list(reference.changes), [], *args)[0]
    recomputed = measure(model, list(model.changes), model.blocks, *args)[0]
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert all(block.checkpoint is True for block in model.blocks)


def test_everything_is_put_back_also_after_an_exception() -> None:
    model = Model()

    def hijacked(x: Tensor, context: Tensor | None = None) -> Tensor:
        return Block.forward(model.blocks[1], x, context)

    model.blocks[1].forward = hijacked  # a host may have replaced it on the instance
    with pytest.raises(KeyError), checkpoint_blocks(model.blocks):
        assert all("forward" in block.__dict__ for block in model.blocks)
        assert model.blocks[1].forward is not hijacked
        raise KeyError
    assert model.blocks[1].forward is hijacked
    assert all("forward" not in model.blocks[i].__dict__ for i in (0, 2))
    with checkpoint_blocks(model.blocks), checkpoint_blocks(model.blocks[:1]):
        pass
    assert "forward" not in model.blocks[0].__dict__


def test_without_gradients_blocks_run_once_as_they_are() -> None:
    model, args = Model(), inputs()
    calls: list[int] = []
    model.blocks[0].wide.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad(), checkpoint_blocks(model.blocks):
        out = model(*args)
    assert torch.equal(out, model(*args).detach())
    assert len(calls) == 2  # one here, one for the comparison


def test_the_global_generator_is_left_alone() -> None:
    model, args = Model(), inputs()
    before = torch.random.get_rng_state()
    measure(model, list(model.changes), model.blocks, *args)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_blocks_of_a_diffusers_unet() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    unet.requires_grad_(False).eval()
    trained = [p.requires_grad_() for name, p in unet.named_parameters() if "to_q.weight" in name]
    assert len(trained) == 8
    names = ("BasicTransformerBlock", "ResnetBlock2D", "Downsample2D", "Upsample2D")
    blocks = [module for module in unet.modules() if type(module).__name__ in names]
    generator = torch_generator("unet")
    x, context = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 7, 8, generator=generator)
    call = {"sample": x, "timestep": torch.tensor([5]), "encoder_hidden_states": context, "return_dict": False}

    class First(nn.Module):
        def forward(self, **kwargs: Any) -> Tensor:
            return unet(**kwargs)[0]

    plain, all_bytes = measure(First(), trained, [], **call)
    recomputed, few_bytes = measure(First(), trained, blocks, **call)
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert few_bytes < all_bytes / 2
