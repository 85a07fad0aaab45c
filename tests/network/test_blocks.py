"""Per-block ranks and learning rates, against sd-scripts' formulas written out."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lora_trainer.config import NetworkConfig
from lora_trainer.config.lr_weights import curve_weights
from lora_trainer.errors import ConfigError
from lora_trainer.network.blocks import BlockPlan, lr_weights
from lora_trainer.network.targets import Target


def target(block: int, shape: tuple[int, ...] = (8, 8)) -> Target:
    return Target(f"b{block}", "path", None, shape, "unet", block=block)  # type: ignore[arg-type]


def test_curves_by_formula() -> None:
    n = 12
    sine = [math.sin(math.pi / 2 * i / (n - 1)) for i in range(n)]
    linear = [i / (n - 1) for i in range(n)]
    assert curve_weights("sine", n) == pytest.approx(sine)
    assert curve_weights("cosine", n) == pytest.approx(sine[::-1])
    assert curve_weights("cosine", n) == pytest.approx([math.cos(math.pi / 2 * i / (n - 1)) for i in range(n)])
    assert curve_weights("linear", n) == pytest.approx(linear)
    assert curve_weights("reverse_linear", n) == pytest.approx(linear[::-1])
    assert curve_weights("zeros", n, 0.25) == [0.25] * n
    assert curve_weights("linear", n, 0.5) == pytest.approx([0.5 + value for value in linear])


def test_factors_cover_every_block() -> None:
    assert lr_weights(NetworkConfig(), "sd1") is None
    config = NetworkConfig(down_lr_weight="linear", mid_lr_weight="0.5", up_lr_weight="zeros+.25")
    sd = lr_weights(config, "sd1")
    assert sd is not None and len(sd) == 25
    assert sd == pytest.approx([i / 11 for i in range(12)] + [0.5] + [0.25] * 12)
    xl = lr_weights(config, "sdxl")
    assert xl is not None and len(xl) == 23
    assert xl == pytest.approx([1] + [i / 8 for i in range(9)] + [0.5, 1, 1] + [0.25] * 9 + [1])


def test_short_lists_are_filled_long_ones_cut_and_small_factors_dropped(caplog: pytest.LogCaptureFixture) -> None:
    config = NetworkConfig(down_lr_weight="0.1, 0.2,0.3", mid_lr_weight="0.1,9", block_lr_zero_threshold=0.1)
    assert lr_weights(config, "sd1") == pytest.approx([0, 0.2, 0.3, *[1] * 9, 0, *[1] * 12])
    assert "mid_lr_weight has 2 numbers" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"down_lr_weight": "cosin"}, ["down_lr_weight", "'cosin'", "reverse_linear"]),
        ({"up_lr_weight": "1,x"}, ["up_lr_weight", "'1,x'"]),
        ({"up_lr_weight": "1,-1"}, ["up_lr_weight", "at least 0"]),
        ({"mid_lr_weight": "sine"}, ["mid_lr_weight", "'sine'"]),
        ({"block_dims": (4, 4)}, ["block_dims", "2 numbers", "SD 1.x needs 25"]),
        ({"conv_block_dims": (4,) * 23}, ["conv_block_dims", "23 numbers"]),
        ({"block_dims": (4,) * 24 + (-1,)}, ["block_dims", "-1"]),
    ],
)
def test_bad_lists_are_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        BlockPlan.of(NetworkConfig(**options), "sd1")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_ranks_and_alphas_by_block() -> None:
    dims, alphas = tuple(range(25)), tuple(float(10 + i) for i in range(25))
    config = NetworkConfig(network_dim=99, block_dims=dims, block_alphas=alphas, conv_dim=7, conv_alpha=3.0)
    plan = BlockPlan.of(config, "sd1")
    assert plan.rank_and_alpha(target(5)) == (5, 15.0)
    assert plan.rank_and_alpha(target(0))[0] == 0
    assert plan.rank_and_alpha(target(5, (8, 8, 1, 1))) == (5, 15.0)
    assert plan.rank_and_alpha(target(5, (8, 8, 3, 3))) == (7, 3.0)
    conv = BlockPlan.of(NetworkConfig(conv_block_dims=dims, conv_block_alphas=alphas), "sd1")
    assert conv.convolutions and conv.rank_and_alpha(target(5, (8, 8, 3, 3))) == (5, 15.0)
    text = Target("t", "path", None, (8, 8), "text_encoder")  # type: ignore[arg-type]
    assert plan.rank_and_alpha(text)[0] == 99


def test_alpha_zero_means_the_rank() -> None:
    plan = BlockPlan.of(NetworkConfig(network_dim=6, network_alpha=0.0), "sd1")
    assert plan.rank_and_alpha(target(5)) == (6, 6.0)


def test_blocks_with_factor_zero_get_no_lora() -> None:
    plan = BlockPlan.of(NetworkConfig(down_lr_weight="zeros", up_lr_weight="0.5"), "sd1")
    assert [plan.rank_and_alpha(target(block))[0] for block in (1, 11, 12, 13)] == [0, 0, 16, 16]
    assert plan.factor(target(13)) == 0.5 and plan.factor(target(14)) == 1.0
