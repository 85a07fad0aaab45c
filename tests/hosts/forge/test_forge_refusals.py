"""Models that can't be trained on Forge's kind of WebUI are refused in one sentence, by what their weights are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.fake_forge import Forge

pytest.importorskip("ldm", reason="needs the package stable-diffusion-sdkit, which make test installs")

from lora_trainer.errors import UnsupportedModelError
from lora_trainer.training.events import CancelToken


def unet_of(forge: Forge) -> Any:
    return forge.model.forge_objects_original.unet.model


def first_weight(forge: Forge, make: Callable[[Any], Any]) -> None:
    layer = unet_of(forge).diffusion_model.out[2]
    layer.weight = nn.Parameter(make(layer.weight.detach().clone()), requires_grad=False)


def mark(forge: Forge, **values: Any) -> None:
    vars(unet_of(forge).diffusion_model.out[2].weight).update(values)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda f: first_weight(f, lambda w: w.to(torch.float8_e4m3fn)), "float8"),
        (lambda f: first_weight(f, lambda w: w.to(torch.int8)), "int8"),
        (lambda f: mark(f, gguf_cls=object()), "GGUF"),
        (lambda f: mark(f, quant_type="nf4"), "nf4"),
        (lambda f: setattr(unet_of(f).diffusion_model.out[2], "qweight", 1), "nunchaku"),
        (lambda f: setattr(unet_of(f).predictor, "prediction_type", "const"), "rectified-flow"),
        (lambda f: setattr(unet_of(f), "diffusion_model", nn.Linear(1, 1)), "no UNet"),
        (lambda f: setattr(f.model, "text_processing_engine", None), "text encoders"),
    ],
)
def test_refusals(forge: Forge, host: Any, spoil: Callable[[Forge], Any], word: str) -> None:
    forge.sd_models.forge_model_reload()
    spoil(forge)
    with pytest.raises(UnsupportedModelError, match=word) as error, host.working("task(x)", CancelToken()):
        raise AssertionError("not refused")
    assert str(error.value).count(". ") == 0 and str(error.value).endswith(".")
    assert not forge.call_queue.queue_lock._lock.locked()
