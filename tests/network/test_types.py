"""The network types: against W + ΔW, against LyCORIS, their gradients, their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import Tensor

from lora_trainer.network.control import Control
from lora_trainer.network.file import read_lora, write_lora
from lora_trainer.network.kinds import ALGOS, create
from lora_trainer.network.lokr import split
from lora_trainer.network.targets import Target
from tests.support.network_types import ALPHA, LAYERS, RANK, TYPES, filled, frozen, new, options, rebuilt

LYCORIS = {
    **dict.fromkeys(("lora", "lora_fa", "tlora", "dylora"), LoConModule), "loha": LohaModule, "lokr": LokrModule,
    "ia3": IA3Module, "diag-oft": DiagOFTModule, "boft": ButterflyOFTModule,
}  # fmt: skip
KEY = "lora_unet_down_blocks_0_attentions_0_proj_in"


def apply(module: Any, weight: Tensor, x: Tensor) -> Tensor:
    """The layer's output with another weight, in float64."""
    bias = None if module.bias is None else module.bias.double()
    if weight.dim() == 2:
        return F.linear(x.double(), weight, bias)
    return F.conv2d(x.double(), weight, bias, module.stride, module.padding)


def test_every_type_is_tested() -> None:
    assert {given.get("algo", "lora") for given in TYPES.values()} == set(ALGOS)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("strength", [1.0, -0.6])
def test_output_is_that_of_the_changed_weight(name: str, kind: str, strength: float) -> None:
    module, x = frozen(kind)
    made = filled(name, module, multiplier=strength)
    change = rebuilt(made.file_parts(), module.weight)
    expected = apply(module, module.weight.double() + strength * change, x)
    plain = module(x)
    made.attach()
    torch.testing.assert_close(module(x).double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.delta_weight().double(), change, rtol=1e-4, atol=1e-5)
    assert float(made.norm()) == pytest.approx(float(change.norm()), rel=1e-4)
    made.detach()
    assert torch.equal(module(x), plain) and not torch.allclose(plain.double(), expected, atol=1e-2)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_new_one_changes_no_bit_and_is_drawn_from_seed_and_key(name: str, kind: str) -> None:
    module, x = frozen(kind)
    plain = module(x)
    made = new(name, module)
    made.attach()
    assert torch.equal(module(x), plain)
    made.detach()
    same, others = new(name, module), [new(name, module, key="other"), new(name, module, seed=2)]
    for part, tensor in made.file_parts().items():
        assert torch.equal(tensor, same.file_parts()[part])
        drawn = bool(tensor.any()) and part not in ("alpha", "on_input", "dora_scale", "rescale")
        assert all(torch.equal(tensor, other.file_parts()[part]) != drawn for other in others)


@pytest.mark.parametrize("name", [name for name in TYPES if name != "oft counted"])  # of fewer blocks than LyCORIS can
@pytest.mark.parametrize("kind", LAYERS)
def test_lycoris_makes_the_same_output_from_the_same_tensors(name: str, kind: str) -> None:
    given = dict(TYPES[name])
    module, x = frozen(kind)
    made = filled(name, module)
    made.attach()
    ours = module(x).detach()
    made.detach()
    arguments = {
        "use_tucker": given.get("use_tucker", False), "factor": given.get("factor", -1),
        "decompose_both": given.get("decompose_both", False), "full_matrix": given.get("full_matrix", False),
        "weight_decompose": given.get("dora_wd", False), "wd_on_out": given.get("wd_on_output", False),
        "rs_lora": given.get("rs_lora", False), "train_on_input": given.get("train_on_input", False),
        "constraint": given.get("constraint", 0), "rescaled": given.get("rescaled", False),
    }  # fmt: skip
    theirs: Any = LYCORIS[given.get("algo", "lora")]("k", module, 1.0, lora_dim=made.rank, alpha=ALPHA, **arguments)
    theirs.eval().apply_to()
    tensors = {part: tensor.float().clone() for part, tensor in made.file_parts().items()}
    if name == "lokr whole":
        del tensors["alpha"]  # LyCORIS ignores it, too
    if "alpha" in tensors:
        assert float(theirs.alpha) == pytest.approx(float(tensors["alpha"]))
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert unexpected == [] and set(missing) <= {"alpha"}
    with torch.no_grad():
        torch.testing.assert_close(module(x), ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("kind", ["bias", "conv3"])
def test_gradients_by_finite_differences(name: str, kind: str) -> None:
    module, x = frozen(kind, torch.float64)
    made = filled(name, module, multiplier=0.7)
    for weight in made.weights.values():
        weight.data = weight.data.double()
    if name == "lora_fa":
        made.to(torch.float64)  # the frozen half
    made.attach()
    weights = list(made.weights.values())
    inputs = x[:1].requires_grad_(True)
    direction = torch.Generator().manual_seed(3)
    output = (module(inputs) ** 2).sum()
    gradients = torch.autograd.grad(output, [inputs, *weights])
    for tensor, gradient in zip([inputs, *weights], gradients, strict=True):
        step = torch.randn(tensor.shape, generator=direction, dtype=torch.float64)
        with torch.no_grad():
            sides = []
            for sign in (1e-5, -1e-5):
                tensor.add_(sign * step)
                sides.append(float((module(inputs) ** 2).sum()))
                tensor.sub_(sign * step)
        expected = (sides[0] - sides[1]) / 2e-5
        assert float((gradient * step).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_file_comes_back_as_it_was_written(name: str, kind: str, tmp_path: Path) -> None:
    module, _ = frozen(kind)
    made = filled(name, module)
    path = tmp_path / "a.safetensors"
    write_lora(path, {f"{KEY}.{part}": tensor.float() for part, tensor in made.file_parts().items()}, {})
    weights = read_lora(path).modules[KEY]
    target = Target(KEY, "", module, tuple(module.weight.shape), "unet")
    again = weights.adapter(target, Control(), path)
    continued = new(name, module)
    assert continued.label == weights.label and weights.rank == continued.rank
    continued.copy_from(weights, path)
    for other in (again, continued):
        assert sorted(other.file_parts()) == sorted(made.file_parts())
        torch.testing.assert_close(other.delta_weight(), made.delta_weight(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TYPES)
def test_another_alpha_keeps_the_change(name: str, tmp_path: Path) -> None:
    module, _ = frozen("conv3")
    made = filled(name, module)
    if "alpha" not in made.file_parts() or name == "lokr whole":
        return
    path = tmp_path / "a.safetensors"
    write_lora(path, {f"{KEY}.{part}": tensor.float() for part, tensor in made.file_parts().items()}, {})
    control, target = Control(), Target(KEY, "", module, tuple(module.weight.shape), "unet")
    other = create(target, RANK, 7.0, control, 1, options(name))
    other.copy_from(read_lora(path).modules[KEY], path)
    torch.testing.assert_close(other.delta_weight(), made.delta_weight(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in TYPES if "oft" not in name])  # of which no multiple is a rotation
@pytest.mark.parametrize("kind", ["linear", "conv3"])
def test_shrinking_halves_what_the_norm_limit_holds_for(name: str, kind: str) -> None:
    module, _ = frozen(kind)
    made = filled(name, module)
    limited = made.limited
    before = limited.delta_weight().clone()
    made.shrink(torch.tensor(0.5))
    torch.testing.assert_close(limited.delta_weight(), before / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in TYPES if "lora" not in name and name != "locon tucker"])
def test_rank_dropout_drops_rows_by_step_and_keeps_the_mean(name: str) -> None:
    module, x = frozen("bias")
    made = filled(name, module, rank_dropout=0.5)
    plain = module(x)
    made.attach()
    made.control.step_key = (11, 1)
    first = module(x)
    assert torch.equal(module(x), first)
    made.control.step_key = (11, 2)
    assert not torch.equal(module(x), first)
    if not TYPES[name].get("dora_wd"):
        rows = (first - plain).flatten(0, 1).detach().abs().amax(0) > 1e-6
        assert 0 < int(rows.sum()) < len(rows)  # whole outputs are left out
        full = (made.delta_weight() @ x.reshape(-1, 12).T).T.view_as(first)
        torch.testing.assert_close((first - plain)[..., rows], 2 * full[..., rows], rtol=1e-4, atol=1e-4)


def test_lokr_splits_as_lycoris_does() -> None:
    from lycoris.functional import factorization

    for size in [*range(1, 200), 320, 640, 768, 1024, 1280, 2048, 2560, 5120, 10240]:
        for factor in (-1, 1, 2, 3, 4, 6, 8, 16, 100):
            assert split(size, factor) == factorization(size, factor), (size, factor)
