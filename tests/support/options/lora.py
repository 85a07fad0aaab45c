"""The LoRA: which modules it has, of which rank, and what its dropout and its limits do to the weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from safetensors import safe_open
from support.options.run import LOSS, UPDATE, WORD, Case, Check, Outcome

BOTH = {"text_encoder_lr": None}  # text encoder and UNet at learning_rate
RANKS = [2] * 6 + [4] * 7 + [6] * 12  # one a block: down, middle, up
ALPHAS = [1.0] * 6 + [2.0] * 7 + [3.0] * 12
FILE = {"network_weights": "{world}/rank4.safetensors"}
SHAPES = {"modules", "memory"} | UPDATE
MODULES = {"alphas", "gradient"} | SHAPES
GROUPS = {"groups", "rates"} | UPDATE


def ranks(run: Outcome) -> dict[str, int]:
    """Rank of every module, by key."""
    suffix = ".lora_down.weight"
    return {key.removesuffix(suffix): len(x) for key, x in run.weights().items() if key.endswith(suffix)}


def alphas(run: Outcome) -> dict[str, float]:
    """Alpha of every module, by key."""
    return {key.removesuffix(".alpha"): float(x) for key, x in run.weights().items() if key.endswith(".alpha")}


def is_large(key: str) -> bool:
    """Whether a module is a 3x3 convolution."""
    return key.endswith(("conv1", "conv2", "samplers_0_conv"))


def all_are(
    of: Callable[[Outcome], dict[str, float]], down: float, middle: float, up: float, large: bool = False
) -> Check:
    """``of`` gives these numbers for the modules of the three parts of the UNet, of small or of large kernel."""

    def check(base: Outcome, changed: Outcome) -> None:
        expected = {"down_blocks": down, "mid_block": middle, "up_blocks": up}
        found = {key: value for key, value in of(changed).items() if is_large(key) == large}
        assert found and {next(part for part in expected if part in key) for key in found} == set(expected)
        assert all(value == expected[next(part for part in expected if part in key)] for key, value in found.items())

    return check


def only(prefix: str) -> Check:
    """The file has modules of this part alone; without the option it has others, too."""

    def check(base: Outcome, changed: Outcome) -> None:
        assert all(key.startswith(prefix) for key in changed.weights())
        assert {key.startswith(prefix) for key in base.weights()} == {True, False}

    return check


def rates_by_block(part: str, factor: float) -> Check:
    """The blocks of one part of the UNet have this share of the rate, and all others the whole."""
    blocks = {"down": range(13), "mid": range(12, 13), "up": range(13, 25)}[part]

    def check(base: Outcome, changed: Outcome) -> None:
        (full,) = base.rates[0].values()
        rates = {int(name.removeprefix("unet_block")): rate for name, rate in changed.rates[0].items()}
        own = {block: rate for block, rate in rates.items() if block in blocks and (part != "down" or block < 12)}
        assert own and set(own.values()) == {full * factor}
        assert {rate for block, rate in rates.items() if block not in own} == {full}

    return check


def the_word_is_learned(base: Outcome, changed: Outcome) -> None:
    """The file has the word's vectors, which have moved from the table's; nothing else is new in it."""
    (key,) = changed.weights().keys() - base.weights().keys()
    assert key == "bundle_emb.zork.string_to_param.*"
    table = changed.model.text.get_input_embeddings().weight[WORD]
    moved = (changed.weights()[key] - table).norm(dim=1)
    assert moved.shape == (2,) and bool((moved > 0).all())


def norms_are_limited(base: Outcome, changed: Outcome) -> None:
    """The largest change of a weight is exactly the limit."""

    def norms(run: Outcome) -> list[float]:
        weights, scales = run.weights(), alphas(run)
        return [
            float((weights[f"{key}.lora_up.weight"].flatten(1) @ weights[f"{key}.lora_down.weight"].flatten(1)).norm())
            * scales[key] / rank
            for key, rank in ranks(run).items()
        ]  # fmt: skip

    assert max(norms(changed)) == pytest.approx(0.002, rel=1e-4) and max(norms(base)) > 0.004


def goes_on_from_the_file(base: Outcome, changed: Outcome) -> None:
    """At hardly any rate, what is saved at the end is what was in the file."""
    still = base.world.run(learning_rate=1e-12, **FILE).weights()
    with safe_open(base.world.root / "rank4.safetensors", "pt") as file:
        assert sorted(file.keys()) == sorted(still)
        for key, tensor in still.items():
            torch.testing.assert_close(tensor, file.get_tensor(key))


def taken_from_the_file(base: Outcome, changed: Outcome) -> None:
    all_are(alphas, 4, 4, 4)(base, changed)
    smaller = base.world.run(network_weights="{world}/rank2.safetensors", dim_from_weights=True)
    all_are(ranks, 2, 2, 2)(base, smaller)


def some_sit_out(base: Outcome, changed: Outcome) -> None:
    """After one step some modules are as they were made, and some aren't."""
    weights = changed.world.run(module_dropout=0.5, max_train_steps=1).weights()
    moved = {bool(tensor.any()) for key, tensor in weights.items() if "lora_up" in key}
    assert moved == {True, False}


def whole_ranks_drop(base: Outcome, changed: Outcome) -> None:
    """In one step on one image, a dropped rank's column of ``up`` stays zero, and the others move."""
    run = changed.world.run(rank_dropout=0.5, max_train_steps=1, train_batch_size=1)
    columns = [tensor.flatten(1).any(0) for key, tensor in run.weights().items() if "lora_up" in key]
    assert {bool(column.all()) for column in columns} == {True, False}
    assert 0.3 < float(torch.cat(columns).float().mean()) < 0.7


def has_only(*parts: str) -> Check:
    """Every module of the file has one of these parts, and none had before."""

    def check(base: Outcome, changed: Outcome) -> None:
        modules = {key.partition(".")[0] for key in changed.weights()}
        assert all(any(f"{module}.{part}" in changed.weights() for part in parts) for module in modules)
        assert not any(key.endswith(parts) for key in base.weights())

    return check


def new_modules(*endings: str) -> Check:
    """Only modules with these endings came, and those did."""

    def check(base: Outcome, changed: Outcome) -> None:
        came = {key.partition(".")[0] for key in changed.weights().keys() - base.weights().keys()}
        assert came and all(key.endswith(endings) for key in came)
        assert all(any(key.endswith(ending) for key in came) for ending in endings)

    return check


def sizes(part: str, **shapes: tuple[int, ...]) -> Check:
    """The part of the module with this ending has this shape."""

    def check(base: Outcome, changed: Outcome) -> None:
        for ending, shape in shapes.items():
            found = {tuple(t.shape) for key, t in changed.weights().items() if key.endswith(f"{ending}.{part}")}
            assert found == {shape}

    return check


def first_parts_are_products(base: Outcome, changed: Outcome) -> None:
    """The smaller part of some weights is a product of two matrices of rank 1, and whole without the option."""
    products = [tuple(t.shape) for key, t in changed.weights().items() if key.endswith("lokr_w1_a")]
    assert products and all(shape[1] == 1 for shape in products)
    assert not any("lokr_w1_a" in key for key in base.weights())


def on_inputs(base: Outcome, changed: Outcome) -> None:
    """Every number of the file is for an input; by the preset, only those of the feedforward's end were."""
    found = {key.removesuffix(".on_input"): bool(t) for key, t in changed.weights().items() if "on_input" in key}
    before = {key.removesuffix(".on_input"): bool(t) for key, t in base.weights().items() if "on_input" in key}
    assert found.keys() == before.keys() and all(found.values())
    assert all(value == key.endswith("ff_net_2") for key, value in before.items())


def magnitudes_are_trained(base: Outcome, changed: Outcome) -> None:
    """At hardly any rate a magnitude is the norm of the weight over its outputs; at a rate it moves."""
    unet = dict(changed.model.unet.named_modules())
    still = changed.world.run(dora_wd=True, learning_rate=1e-12).weights()
    key = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    weight = unet["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"].weight
    scale = f"lora_unet_{key}.dora_scale"
    torch.testing.assert_close(still[scale], weight.detach().norm(dim=0, keepdim=True))
    assert not torch.equal(still[scale], changed.weights()[scale])


LOKR: dict[str, object] = {"algo": "lokr", "conv_dim": 4}
TYPE = {"modules", "alphas", "gradient", "memory"} | UPDATE


def nothing_of_it_is_saved(base: Outcome, changed: Outcome) -> None:
    """The new LoRA begins from what any begins from, not from the file."""
    start, own = (changed.world.run(**given, learning_rate=1e-12, seed=7).weights() for given in (
        {"base_weights": "{world}/rank4.safetensors"}, {},
    ))  # fmt: skip
    assert all(torch.allclose(start[key], own[key], atol=1e-9) for key in own)


CASES: dict[str, Case] = {
    "algo": Case("loha", TYPE - {"alphas"}, check=has_only("hada_w1_a")),
    "dora_wd": Case(True, TYPE - {"alphas"}, check=magnitudes_are_trained),
    "wd_on_output": Case(
        True, {"modules", "gradient", "memory"} | UPDATE, {"dora_wd": True},
        sizes("dora_scale", down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k=(8, 1))),
    "rs_lora": Case(True, {"alphas", "gradient"} | UPDATE, check=all_are(alphas, 8, 8, 8)),
    "use_tucker": Case(
        True, TYPE - {"alphas"}, {"conv_dim": 2}, sizes("lora_mid.weight", conv1=(2, 2, 3, 3)), idle=[{}]),
    "factor": Case(2, TYPE, LOKR, sizes("lokr_w1", attn1_to_k=(2, 2)), idle=[]),
    "decompose_both": Case(
        True, TYPE - {"alphas"}, {"algo": "lokr", "network_dim": 1}, first_parts_are_products),
    "full_matrix": Case(
        True, TYPE - {"alphas"}, {"algo": "lokr", "network_dim": 1, "network_alpha": 1}, has_only("lokr_w2")),
    "train_on_input": Case(
        True, {"modules", "gradient"} | UPDATE, {"algo": "ia3"}, on_inputs),
    "tlora_min_rank": Case(0.25, {"gradient"} | UPDATE, {"algo": "tlora"}, idle=[]),
    "unit": Case(2, {"gradient"} | UPDATE, {"algo": "dylora"}, idle=[]),
    "constraint": Case(1e-6, UPDATE | {"alphas", "memory"}, {"algo": "diag-oft"}, idle=[]),
    "rescaled": Case(True, {"modules", "gradient", "memory"} | UPDATE, {"algo": "diag-oft"}, idle=[]),
    "train_norm": Case(
        True, {"modules", "gradient", "memory"} | UPDATE, check=new_modules("_norm", "norm1", "norm2", "norm3")),
    "lycoris_preset": Case(
        "full-lin", MODULES, check=new_modules("linear_1", "linear_2", "time_emb_proj", "conv_shortcut")),
    "network_dim": Case(2, SHAPES | {"gradient"}, check=all_are(ranks, 2, 2, 2)),
    "network_alpha": Case(2, {"alphas", "gradient"} | UPDATE, check=all_are(alphas, 2, 2, 2)),
    "conv_dim": Case(2, MODULES, check=all_are(ranks, 2, 2, 2, large=True)),
    "conv_alpha": Case(2, {"alphas", "gradient"} | UPDATE, {"conv_dim": 2}, all_are(alphas, 2, 2, 2, True), idle=[{}]),
    "network_dropout": Case(0.5, {"gradient", "memory"} | UPDATE),
    "rank_dropout": Case(0.5, {"gradient", "memory"} | UPDATE, check=whole_ranks_drop),
    "module_dropout": Case(0.5, {"gradient", "memory"} | UPDATE, check=some_sit_out),
    "block_dims": Case(RANKS, MODULES - {"alphas"}, check=all_are(ranks, 2, 4, 6)),
    "block_alphas": Case(ALPHAS, {"alphas", "gradient"} | UPDATE, {"block_dims": RANKS}, all_are(alphas, 1, 2, 3)),
    "conv_block_dims": Case(
        RANKS, MODULES, {"block_dims": [4] * 25}, all_are(ranks, 2, 4, 6, large=True)),
    "conv_block_alphas": Case(
        ALPHAS, {"alphas", "gradient"} | UPDATE, {"block_dims": [4] * 25, "conv_block_dims": RANKS},
        all_are(alphas, 1, 2, 3, large=True)),
    "down_lr_weight": Case(",".join(["0.5"] * 12), GROUPS, check=rates_by_block("down", 0.5)),
    "mid_lr_weight": Case("0.5", GROUPS, check=rates_by_block("mid", 0.5)),
    "up_lr_weight": Case(",".join(["0.5"] * 12), GROUPS, check=rates_by_block("up", 0.5)),
    "block_lr_zero_threshold": Case(
        0.6, {"modules", "alphas", "gradient", "memory"} | GROUPS, {"mid_lr_weight": "0.5"}, idle=[{}]),
    # The base model's losses need its own encoding of the captions only where the text encoder is trained.
    "network_train_unet_only": Case(
        True, {"modules", "alphas", "gradient", "memory", "encoding", "texts"} | GROUPS, BOTH, only("lora_unet_")),
    "network_train_text_encoder_only": Case(
        True, {"modules", "alphas", "gradient", "memory"} | GROUPS, BOTH, only("lora_te_")),
    "pivotal_tuning": Case(
        True, {"modules", "groups", "rates", "gradient", "memory", "texts", "encoding"} | UPDATE,
        check=the_word_is_learned,
    ),
    "network_weights": Case("{world}/rank4.safetensors", LOSS, check=goes_on_from_the_file),
    "base_weights": Case("{world}/rank4.safetensors", {"memory"} | LOSS, check=nothing_of_it_is_saved),
    "base_weights_multiplier": Case(30, LOSS, {"base_weights": "{world}/rank4.safetensors"}),
    "dim_from_weights": Case(
        True, {"alphas", "gradient"} | UPDATE, {"network_alpha": 2, **FILE}, taken_from_the_file),
    "scale_weight_norms": Case(0.002, UPDATE, check=norms_are_limited),
}  # fmt: skip
