"""Several checkpoints in one WebUI: training each family, and choosing another one in the middle of a run."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.webui.server import WebUI, remarks

pytestmark = pytest.mark.slow


def choose(webui: WebUI, name: str) -> None:
    webui.post("/sdapi/v1/options", {"sd_model_checkpoint": name})


def load(webui: WebUI, name: str) -> None:
    """Choose a checkpoint, and have it loaded where that is put off until the next picture."""
    choose(webui, name)
    if webui.kind.lazy:
        webui.picture("a ball")


def test_every_family_trains(webui: WebUI, dataset: Path, demo_checkpoint: Path, more_checkpoints: list[Path]) -> None:
    try:
        for checkpoint in more_checkpoints:
            load(webui, checkpoint.name)
            before, condition = webui.probe("checksum"), webui.probe("condition")
            assert condition["checkpoint"] == checkpoint.name
            picture = webui.picture("a ball")
            captions = webui.probe("captions", texts=["a red ball, wood"], length=75, clip_skip=1)
            assert captions["difference"] < 1e-5 and captions["pooled"] < 1e-5
            assert webui.probe("latents") < 1e-4
            assert webui.probe("prediction") < 1e-4
            webui.probe("opened")
            condition = webui.probe("condition")
            status = webui.train(
                f"family-{checkpoint.stem}", dataset,
                config={"gradient_checkpointing": True, "learning_rate": 0.02},
            )  # fmt: skip
            assert status["state"] == "done" and remarks(status) == [], status
            touched = webui.probe("opened")
            assert sum("Stable-diffusion" in name for name in touched) <= 1, "its header, once"
            assert webui.probe("checksum") == before
            assert webui.probe("condition") == condition
            assert webui.picture("a ball").tobytes() == picture.tobytes()
            assert webui.picture(f"a ball <lora:family-{checkpoint.stem}:1>").tobytes() != picture.tobytes()
    finally:
        load(webui, demo_checkpoint.name)


def test_another_checkpoint_chosen_during_a_run(
    webui: WebUI, dataset: Path, demo_checkpoint: Path, more_checkpoints: list[Path]
) -> None:
    lora = webui.data / "models" / "Lora"
    config = {"max_train_steps": 30, "sample_every_n_steps": 5, "sample_prompts": "a ball --w 64 --h 64 --s 1"}
    webui.train("steady", dataset, config=config)
    webui.train("switched", dataset, wait=False, config=config)
    webui.reached(2)
    change = threading.Thread(target=choose, args=(webui, more_checkpoints[0].name))
    change.start()
    try:
        status = webui.finished()
        assert status["state"] == "done", status
        change.join()
        webui.picture("a ball")
        assert webui.probe("condition")["checkpoint"] == more_checkpoints[0].name, "the choice isn't lost"
        one, other = (tensors(lora / f"{name}.safetensors") for name in ("steady", "switched"))
        assert one == other
    finally:
        change.join()
        load(webui, demo_checkpoint.name)


def test_a_request_for_another_checkpoint_is_told_so(
    webui: WebUI, dataset: Path, demo_checkpoint: Path, more_checkpoints: list[Path]
) -> None:
    webui.train("held", dataset, wait=False, config={"max_train_steps": 2000})
    webui.reached(1)
    body = {"prompt": "x", "steps": 1, "width": 64, "height": 64}
    code, answer = webui.call(
        "POST", "/sdapi/v1/txt2img", {**body, "override_settings": {"sd_model_checkpoint": more_checkpoints[0].name}}
    )
    assert code == 500 and "is training" in str(answer), (code, answer)
    assert webui.status()["state"] == "training"
    webui.post("/lora-trainer/stop")
    assert webui.finished()["state"] == "stopped"
    assert webui.probe("condition")["checkpoint"] == demo_checkpoint.name


def test_the_webui_manages_its_memory_as_before(
    webui: WebUI, dataset: Path, demo_checkpoint: Path, more_checkpoints: list[Path]
) -> None:
    """After a run: another checkpoint, unloading and loading again, and a LoRA merged and taken out."""
    webui.train("managed", dataset, config={"learning_rate": 0.02})
    prompts = ("a ball", "a ball <lora:managed:1>")
    before = [webui.picture(prompt).tobytes() for prompt in prompts]
    assert before[0] != before[1]
    choose(webui, more_checkpoints[0].name)
    try:
        webui.picture("a ball")
        assert webui.probe("condition")["checkpoint"] == more_checkpoints[0].name
    finally:
        choose(webui, demo_checkpoint.name)
    assert [webui.picture(prompt).tobytes() for prompt in prompts] == before
    webui.post("/sdapi/v1/unload-checkpoint")
    webui.call("POST", "/sdapi/v1/reload-checkpoint", {})  # where there is none, a picture loads it
    assert [webui.picture(prompt).tobytes() for prompt in reversed(prompts)] == before[::-1]


def tensors(path: Path) -> bytes:
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]
