"""A1111 with --medvram, which has one part of the model on the card at a time: trained in, held and given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.webui.server import WebUI, kind_of, same, tensors

pytestmark = pytest.mark.slow
PROMPT = "a red circle"
HELD = {"base_8bit": "always", "blocks_in_cpu_memory": 4, "network_train_unet_only": True, "seed": 1}


@pytest.fixture(scope="module")
def medvram(webui_dir: Path, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    if not kind_of(webui_dir).tiny:
        pytest.skip("the forks have no such mode")
    found = WebUI(webui_dir, tmp_path_factory.mktemp("medvram"), "--medvram")
    found.install([demo_checkpoint])
    with found:
        yield found


@pytest.mark.parametrize("cached", [True, False])
def test_weights_held_in_another_way_give_the_same_lora_as_without_medvram(
    medvram: WebUI, webui: WebUI, dataset: Path, cached: bool
) -> None:
    before, picture = medvram.probe("checksum"), medvram.picture(PROMPT)
    config = {**HELD, "cache_latents": cached, "cache_text_encoder_outputs": cached, "sample_every_n_steps": 3}
    config |= {"sample_prompts": PROMPT, "max_train_steps": 6}
    made = []
    for place in (medvram, webui):
        status = place.train(f"swapped-{cached}", dataset, config=config)
        assert status["state"] == "done", status
        made.append(tensors(place.data / "models" / "Lora" / f"swapped-{cached}.safetensors"))
    assert made[0] == made[1]
    assert medvram.probe("checksum") == before
    assert same(medvram.picture(PROMPT), picture)
