"""T-LoRA: which ranks are trained at which timestep, and that the file knows nothing of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lycoris.modules.tlora import compute_timestep_mask

from lora_trainer.network.control import Control
from lora_trainer.network.targets import Target
from lora_trainer.network.tlora import TIMESTEPS, TLoraModule, rank_mask
from tests.support.layers import layer, lora

TIMES = torch.tensor([0, 400, 999])


def made(kind: str, part: str = "unet") -> tuple[TLoraModule, torch.nn.Module, torch.Tensor]:
    """One with a non-zero up matrix, in training at TIMES, with its layer and an input of three images."""
    module, x = layer(kind)
    target = Target("k", "path", module, tuple(module.weight.shape), part)  # type: ignore[arg-type, union-attr]
    adapter = TLoraModule(target, 4, 2.0, Control(timesteps=TIMES), seed=1, min_rank=0.5)
    adapter.up.data.copy_(lora(module).up)
    return adapter, module, x


@pytest.mark.parametrize(("rank", "least"), [(4, 2), (16, 8), (7, 1), (3, 3)])
def test_the_mask_is_lycoris(rank: int, least: int) -> None:
    times = torch.arange(0, TIMESTEPS, 37)
    ours = rank_mask(times, rank, least)
    theirs = torch.cat([compute_timestep_mask(int(t), TIMESTEPS, rank, least) for t in times])
    # Their division comes before the product: it falls below a whole number that it should reach.
    exact = (TIMESTEPS - times) * (rank - least) % TIMESTEPS == 0
    assert torch.equal(ours[~exact].float(), theirs[~exact])
    assert ours.sum(1)[0] == rank and ours.sum(1)[-1] == (least if rank > least else rank)


@pytest.mark.parametrize("kind", ["linear", "conv3"])
def test_an_images_timestep_decides_which_ranks_it_trains(kind: str) -> None:
    adapter, module, x = made(kind)
    plain = module(x)
    adapter.attach()
    output = module(x)
    for row, ranks in enumerate((4, 3, 2)):
        down, up = adapter.down[:ranks], adapter.up[:, :ranks]
        change = torch.einsum("or,r...->o...", up.flatten(1), down) * adapter.scale
        alone = F.linear(x[row], change) if kind == "linear" else F.conv2d(x[row : row + 1], change, padding=1)[0]
        torch.testing.assert_close(output[row] - plain[row], alone, rtol=1e-4, atol=1e-5)
    module(x)[2].square().sum().backward()
    moved = adapter.down.grad
    assert moved is not None and bool(moved[:2].any()) and not bool(moved[2:].any())


def test_a_picture_is_made_with_all_ranks_and_so_is_what_has_no_timestep() -> None:
    for kind in ("linear", "conv3"):
        adapter, module, x = made(kind)
        whole = lora(module)
        adapter.control.training = False
        text, _, _ = made(kind, "text_encoder")
        for other in (adapter, text):
            assert torch.equal(other.add_to(module(x), x), whole.add_to(module(x), x))
    assert adapter.file_parts().keys() == whole.file_parts().keys() and adapter.label == whole.label == "LoRA"
