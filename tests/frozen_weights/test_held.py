"""Weights that are held in another way: the same gradients, nothing of them kept, and put back bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from lora_trainer.config import RunConfig
from lora_trainer.frozen_weights.eight_bit import from_8_bits, size_in_8_bits, to_8_bits
from lora_trainer.frozen_weights.held import HeldWeight
from lora_trainer.frozen_weights.lending import layers
from lora_trainer.network.network import LoraNetwork
from lora_trainer.training.checkpointing import checkpoint_blocks
from lora_trainer.training.memory_plan.counting import Live, count_step
from tests.support.tiny_host import TinyModel

BF16 = torch.bfloat16


class Step:
    """A training step of the tiny model, whose blocks' weights can be held in another way."""

    def __init__(self, half: bool = False) -> None:
        self.model, self.half = TinyModel(), half
        self.blocks, self.weights = self.model.blocks(), self.model.weights
        config = RunConfig().replace(network_dim=4, network_train_unet_only=True)
        self.network = LoraNetwork.create(self.model.unet, [], self.model.info, config, 1)
        for parameter in self.network.parameters():
            parameter.data.add_(0.01)
        self.noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        self.conditioning = self.model.encode_captions(["a"], 75, 1)

    def loss(self) -> Tensor:
        self.network.begin_step(1, samples=[0])
        return self.model.predict(self.noisy, torch.tensor([5]), self.conditioning, []).square().mean()

    def gradients(self, recomputed: Sequence[nn.Module] = (), lean: bool = True) -> tuple[Tensor, int, int]:
        """Of the whole LoRA, in one row; bytes held between the passes; the most at once."""
        live = Live()
        others = self.weights.in_step([], BF16 if self.half and lean else None)
        with (
            torch.autocast("cpu", BF16, enabled=self.half), others, self.network, checkpoint_blocks(recomputed), live,
        ):  # fmt: skip
            loss = self.loss()
            held = live.now()
            loss.backward()
        found = torch.cat([parameter.grad.flatten() for parameter in self.network.parameters()])  # type: ignore[union-attr]
        for parameter in self.network.parameters():
            parameter.grad = None
        return found, held, live.peak()


def test_casting_a_weight_keeps_no_copy_of_it() -> None:
    """bf16 arithmetic on fp32 weights: the same bits, without a second model between the passes."""
    step = Step(half=True)
    usual, kept, _ = step.gradients(lean=False)
    lean, little, _ = step.gradients()
    copies = sum(2 * module.weight.numel() for module in layers([step.model.unet]))  # type: ignore[operator, union-attr]
    assert torch.equal(lean, usual)
    assert 0.8 * copies < kept - little <= copies, "all but those in front of the first LoRA"
    assert not any("weight" in vars(module) or module._forward_hooks for module in step.model.unet.modules())


@pytest.mark.parametrize("half", [False, True])
def test_weights_in_cpu_memory_give_the_same_bits(half: bool) -> None:
    step = Step(half)
    usual, again = step.gradients()[0], step.gradients(step.blocks)[0]
    step.weights.choose((), step.blocks[2:9])
    step.weights.take()
    assert torch.equal(step.gradients()[0], usual) and torch.equal(step.gradients(step.blocks)[0], again)


def test_weights_in_8_bits_are_made_again_and_close() -> None:
    step = Step()
    usual, kept, _ = step.gradients()
    step.weights.choose(step.blocks, step.blocks[:3])
    step.weights.take()
    found, held, peak = step.gradients()
    assert held == kept, "no copy of a weight is kept for the backward pass"
    assert 0 < torch.linalg.norm(found - usual) < 0.05 * torch.linalg.norm(usual)
    again, _, less = step.gradients(step.blocks)
    assert torch.equal(again, found) and less < peak
    exact = [weight.detach().clone() for weight in step.weights.chosen()]
    step.weights.put_back()
    for module, weight in zip(layers(step.blocks), exact, strict=True):  # by hand: the rounded weights, kept as usual
        module.weight.data = from_8_bits(*to_8_bits(weight), torch.float32)  # type: ignore[union-attr]
    assert torch.equal(step.gradients()[0], found)


def test_counting_knows_which_copies_are_not_kept() -> None:
    step = Step(half=True)
    step.weights.choose(step.blocks, ())
    step.weights.take()
    _, held, _ = step.gradients()
    weights = [*step.model.unet.parameters(), *step.network.parameters()]
    with torch.autocast("cpu", BF16), step.weights.in_step([], BF16), step.network:
        cost = count_step(step.loss, step.blocks, weights, 1, step.weights.lends)
    assert cost.held(()) == pytest.approx(held, rel=0.02)


def test_every_weight_is_put_back_also_after_an_error() -> None:
    step = Step()
    before = {name: (weight.clone(), weight.data_ptr()) for name, weight in step.model.unet.state_dict().items()}
    step.weights.choose(step.blocks[:6], step.blocks[4:])
    step.weights.take()
    broken: nn.Module = layers(step.blocks)[-1]
    broken.register_buffer("nothing", None)
    handle = broken.register_forward_pre_hook(_break)
    with pytest.raises(ValueError, match="broken"):
        step.gradients()
    handle.remove()
    step.weights.put_back()
    for name, weight in step.model.unet.state_dict().items():
        assert torch.equal(weight, before[name][0]) and weight.data_ptr() == before[name][1]
    assert not any("weight" in vars(module) or module._forward_hooks for module in step.model.unet.modules())


def test_where_weights_cannot_be_held_otherwise_all_are_as_they_were() -> None:
    """The last one is of a model that was unloaded meanwhile: it has a shape and no numbers."""
    step = Step()
    usual = step.gradients()[0]
    last: nn.Module = layers(step.blocks)[-1]
    own = last.weight
    last.weight = nn.Parameter(own.to("meta"), requires_grad=False)
    step.weights.choose(step.blocks, step.blocks)
    with pytest.raises(NotImplementedError):
        step.weights.take()
    last.weight = own
    assert torch.equal(step.gradients()[0], usual)


def test_weights_that_found_no_memory_are_put_back_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a sample picture, for which all are put back."""
    step = Step()
    step.weights.choose(step.blocks, step.blocks)
    step.weights.take()
    usual, held = step.gradients()[0], list(step.weights._held.values())
    put_back, calls = HeldWeight.put_back, list[HeldWeight]()

    def scarce(weight: HeldWeight, device: torch.device) -> None:
        calls.append(weight)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        put_back(weight, device)

    monkeypatch.setattr(HeldWeight, "put_back", scarce)
    with pytest.raises(torch.OutOfMemoryError):
        step.weights.put_back()
    step.weights.take()
    assert torch.equal(step.gradients()[0], usual)
    step.weights.put_back()
    assert set(held) <= set(calls[:2] + calls[3:]), "each by the one that knows where it was"


def _break(module: nn.Module, args: object) -> None:
    raise ValueError("broken")


@pytest.mark.parametrize("shape", [(7, 33), (4, 3, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, BF16])
def test_8_bits_are_within_half_a_step_of_the_weight(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * torch.logspace(-6, 2, shape[0]).view(
        -1, *(1 for _ in shape[1:])
    )
    weight[0] = 0
    numbers, factor = to_8_bits(weight.to(dtype))
    made = from_8_bits(numbers, factor, dtype)
    assert made.dtype == dtype and numbers.nbytes + factor.nbytes == size_in_8_bits(weight)
    step = weight.to(dtype).float().flatten(1).abs().amax(1).view_as(factor) / 127
    rounding = weight.abs() * torch.finfo(dtype).eps + torch.finfo(dtype).tiny
    assert bool(((made.float() - weight.to(dtype).float()).abs() <= step * 0.501 + rounding).all())
