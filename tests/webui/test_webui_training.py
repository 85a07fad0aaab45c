"""Training inside a real WebUI: what it leaves behind, whom it serves meanwhile, and what becomes of the result."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from lora_trainer.demo import SETTINGS
from tests.webui.server import WebUI, remarks, same, tensors

pytestmark = pytest.mark.slow
PROMPT = "a red circle"


def without(condition: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in condition.items() if key not in keys}


def test_a_run_leaves_no_trace(webui: WebUI, dataset: Path) -> None:
    before, picture = webui.probe("checksum"), webui.picture(PROMPT)
    condition, history = webui.probe("condition"), (webui.data / "params.txt").read_text()
    webui.probe("opened")
    config = {
        "sample_every_n_steps": 3, "gradient_checkpointing": True,
        "sample_prompts": "a ball --w 64 --h 64 --s 2 --d 5\nanother --w 64 --h 64 --s 1",
    }  # fmt: skip
    status = webui.train("trace", dataset, config=config)
    assert status["state"] == "done", status
    assert [row["step"] for row in status["samples"]] == [0, 0, 3, 3, 6, 6]
    assert len(status["losses"]) == 6 and status["outputs"][-1].endswith("trace.safetensors")
    touched = webui.probe("opened")
    assert sum("Stable-diffusion" in name for name in touched) <= 1, "its header is read, once; its weights never"
    assert webui.probe("condition") == condition
    assert webui.probe("checksum") == before
    assert (webui.data / "params.txt").read_text() == history
    assert same(webui.picture(PROMPT), picture)
    sample = webui.get(status["samples"][-1]["url"])
    assert isinstance(sample, bytes) and sample.startswith(b"\x89PNG")


@pytest.mark.parametrize("how", ["stop", "interrupt", "exception"])
def test_a_run_that_is_cut_short_leaves_no_trace(webui: WebUI, dataset: Path, how: str) -> None:
    before, picture, condition = webui.probe("checksum"), webui.picture(PROMPT), webui.probe("condition")
    if how == "exception":
        webui.probe("fail_at", step=3)
    held = {"base_8bit": "always", "blocks_in_cpu_memory": 4}  # and put back bit by bit
    webui.train(f"short-{how}", dataset, wait=False, config={"max_train_steps": 400, **held})
    if how != "exception":
        webui.reached(2)
        at = webui.status()["step"]
        webui.post("/lora-trainer/stop" if how == "stop" else "/sdapi/v1/interrupt")
    status = webui.finished()
    if how == "exception":
        assert status["state"] == "failed" and "broken by the test" in status["error"]
        assert "Traceback" in webui.log() and "Traceback" not in status["error"]
    else:
        assert status["state"] == "stopped" and at <= status["step"] < 400
        assert (webui.data / "models" / "Lora" / f"short-{how}.safetensors").is_file()
    assert webui.probe("checksum") == before
    assert webui.probe("condition") == condition
    assert same(webui.picture(PROMPT), picture)


def test_ten_pictures_during_a_run(webui: WebUI, dataset: Path) -> None:
    seeds = range(100, 110)
    expected = {seed: webui.picture(PROMPT, seed=seed) for seed in seeds}
    config = {"max_train_steps": 40}
    assert webui.train("undisturbed", dataset, config=config)["state"] == "done"
    webui.train("disturbed", dataset, wait=False, config=config)
    webui.reached(1)
    with ThreadPoolExecutor(10) as pool:
        made = dict(zip(seeds, pool.map(lambda seed: webui.picture(PROMPT, seed=seed), seeds), strict=True))
    assert webui.status()["state"] == "training", "all were served before the run ended"
    assert [seed for seed in seeds if not same(made[seed], expected[seed])] == []
    assert webui.finished()["state"] == "done"
    folder = webui.data / "models" / "Lora"
    one, other = (tensors(folder / f"{name}.safetensors") for name in ("undisturbed", "disturbed"))
    assert one == other


def test_pictures_wait_where_the_setting_is_off(webui: WebUI, dataset: Path) -> None:
    webui.probe("disturb", what="option", value=["lora_trainer_serve_generation", False])
    try:
        webui.train("waiting", dataset, wait=False, config={"max_train_steps": 10})
        webui.reached(1)
        webui.picture(PROMPT)
        assert webui.status()["state"] == "done"
    finally:
        webui.probe("disturb", what="option", value=["lora_trainer_serve_generation", True])


def test_progress_busy_pause_and_answers_in_time(webui: WebUI, dataset: Path) -> None:
    job = webui.train("busy", dataset, wait=False, config={"max_train_steps": 300})["job"]
    webui.reached(2)
    code, answer = webui.call("POST", "/lora-trainer/train", {"name": "second", "dataset": str(dataset)})
    assert code == 409 and "busy" in answer["error"]
    progress = webui.get("/sdapi/v1/progress?skip_current_image=true")
    assert progress["state"]["job_count"] == 300 and 0 < progress["progress"] < 1 and progress["eta_relative"] > 0
    bar = webui.post("/internal/progress", {"id_task": job, "live_preview": False})
    assert bar["active"] and "Step" in bar["textinfo"]
    durations = []
    for _ in range(20):
        started = time.perf_counter()
        webui.status()
        durations.append(time.perf_counter() - started)
    assert sorted(durations)[10] < 0.2, durations
    webui.post("/lora-trainer/pause")
    webui.wait_for(lambda: webui.status()["state"] == "paused", "the pause")
    step = webui.status()["step"]
    webui.picture(PROMPT)
    assert webui.status()["step"] == step
    webui.post("/lora-trainer/resume")
    webui.reached(step + 2)
    webui.post("/lora-trainer/stop")
    assert webui.finished()["state"] == "stopped"
    assert not webui.post("/internal/progress", {"id_task": job, "live_preview": False})["active"]


def test_a_retrained_lora_is_really_used(webui: WebUI, dataset: Path) -> None:
    prompt = f"{PROMPT} <lora:again:1>"
    strong = {"learning_rate": 0.02, "max_train_steps": 8}
    base = webui.picture(PROMPT)
    first_run = webui.train("again", dataset, config=strong)
    assert remarks(first_run) == [], "as many modules are applied as were trained"
    first = webui.picture(prompt)
    assert not same(first, base)
    webui.train("again", dataset, config={**strong, "seed": 8})
    second = webui.picture(prompt)
    webui.train("other", dataset, config={**strong, "seed": 8})
    assert same(second, webui.picture(f"{PROMPT} <lora:other:1>"))
    assert not same(first, second)
    assert same(webui.picture(PROMPT), base)


def test_a_learned_word_is_what_the_prompt_means_while_its_lora_is_there(webui: WebUI, dataset: Path) -> None:
    folder, word = webui.data / "models" / "Lora", "zorb"
    before = webui.picture(word)
    config = {"pivotal_tuning": True, "embedding_lr": 0.2, "learning_rate": 0.005, "network_train_unet_only": True}
    status = webui.train("worded", dataset, config={**config, "save_precision": "float"})
    assert status["state"] == "done" and remarks(status) == [], status
    held = load_file(folder / "worded.safetensors")
    key = f"bundle_emb.{word}.string_to_param.*"
    assert len(held[key].shape) == 2
    save_file({name: tensor for name, tensor in held.items() if name != key}, folder / "bare.safetensors")
    webui.post("/sdapi/v1/refresh-loras")
    worded, bare = (webui.picture(f"{word} <lora:{name}:1>") for name in ("worded", "bare"))
    assert same(worded, bare) == (webui.kind.name != "a1111"), "the others load such a file, and leave the word out"
    assert same(*(webui.picture(f"{PROMPT} <lora:{name}:1>") for name in ("worded", "bare")))
    assert same(webui.picture(word), before)


def test_training_does_not_begin_from_a_leftover_lora(webui: WebUI, dataset: Path) -> None:
    folder = webui.data / "models" / "Lora"
    webui.train("left", dataset, config={"learning_rate": 0.02})
    webui.train("clean", dataset)
    webui.picture(f"{PROMPT} <lora:left:1>")
    webui.train("after", dataset)
    assert tensors(folder / "clean.safetensors") == tensors(folder / "after.safetensors")


def test_what_is_neutralised(webui: WebUI, dataset: Path) -> None:
    folder = webui.data / "models" / "Lora"
    webui.train("plain", dataset)
    webui.probe("disturb", what="tiling", value=True)
    try:
        condition = webui.probe("condition")
        assert "circular" in condition["padding"] or webui.kind.name == "forge", "it tiles nothing at present"
        webui.train("tiled", dataset)
        assert webui.probe("condition") == condition
        assert tensors(folder / "plain.safetensors") == tensors(folder / "tiled.safetensors")
    finally:
        webui.probe("disturb", what="tiling", value=False)
    webui.probe("disturb", what="attention", value=True)
    try:
        assert webui.probe("condition")["attention"] == "dead"
        assert webui.train("attended", dataset)["state"] == "done"
        assert webui.probe("condition")["attention"] == "dead"
    finally:
        webui.probe("disturb", what="attention", value=False)


def test_card_preview_and_test(webui: WebUI, dataset: Path) -> None:
    config = {"sample_every_n_steps": 6, "sample_prompts": "zorb --w 64 --h 64 --s 1"}
    assert webui.train("carded", dataset, config=config)["state"] == "done"
    plan = {"lora": "carded", "steps": 2, "seeds": "1", "strengths": "0,1"}
    short = {} if webui.kind.tiny else {"steps": 1, "prompts": ["zorb in a forest"], "measures": False}  # half an hour
    webui.post("/lora-trainer/test", {**plan, **short})
    status = webui.finished()
    assert status["state"] == "done", status
    folder = webui.data / "models" / "Lora"
    assert (folder / "carded.json").is_file() and (folder / "carded.png").is_file()
    assert "carded" in [row["name"] for row in webui.get("/sdapi/v1/loras")]
    report = webui.get("/lora-trainer/report/carded")
    assert report["trigger"] == "zorb" and report["images"]
    assert webui.get(status["report"]).startswith(b"<!")
    shot = next(row for row in status["tests"] if row["kind"] == "strength" and row["strength"] == 1.0)
    assert "<lora:carded:1.0>" in shot["infotext"] and "Lora hashes" in shot["infotext"]
    served = webui.get(shot["url"])
    assert served.startswith(b"\x89PNG")


def test_bad_requests(webui: WebUI, dataset: Path) -> None:
    for body, word in (
        ({"name": "x"}, "dataset"),
        ({"name": "x", "dataset": "/no/such/folder"}, "doesn't exist"),
        ({"name": "a:b", "dataset": str(dataset)}, "name"),
        ({"name": "x", "dataset": str(dataset), "config": {"network_dims": 4}}, "network_dim"),
    ):
        code, answer = webui.call("POST", "/lora-trainer/train", body)
        assert code == 400 and word in answer["error"], (code, answer)
    for path in ("nothing", "..%2f..", "%2e%2e", "trace/..%2f..%2fconfig.json", "trace/%2e%2e/%2e%2e/config.json"):
        code, _ = webui.call("GET", f"/lora-trainer/report/{path}")
        assert code == 404, path


def test_captions_are_literal(webui: WebUI) -> None:
    plain = "a red ball on a table, " * 3
    assert webui.probe("captions", texts=[plain], length=75, clip_skip=1)["difference"] < 1e-6
    assert webui.probe("captions", texts=[plain], length=75, clip_skip=2)["difference"] < 1e-5
    long = ", ".join(f"a ball number {n} of wood" for n in range(14))
    both = webui.probe("captions", texts=[long], length=150, clip_skip=1)
    assert both["ours"] == both["theirs"] and both["difference"] < 1e-6
    escaped = webui.probe("captions", texts=["a (red:1.5) ball"], length=75, clip_skip=1)
    assert escaped["difference"] > 1e-3
    assert webui.probe("latents") < 1e-4
    assert webui.probe("prediction") < 1e-4


def test_recomputation_gives_the_same_gradients(webui: WebUI) -> None:
    """On the blocks of this very WebUI: some write to what recomputation begins from."""
    apart = webui.probe("gradients")
    assert apart["weights"] > 250 and apart["overall"] < 1e-5 and apart["worst"] < 1e-3, apart


def test_reload_ui_keeps_the_run(webui: WebUI, dataset: Path) -> None:
    webui.train("reloaded", dataset, wait=False, config={"max_train_steps": 2000})
    job = webui.reached(1)["job"]
    starts = webui.log().count("Startup time")
    webui.probe("disturb", what="reload_ui", value=True)
    webui.wait_for(lambda: webui.log().count("Startup time") > starts, "the page after Reload UI")
    status = webui.status()
    assert status["job"] == job and status["state"] == "training"
    webui.reached(status["step"] + 2)
    webui.post("/lora-trainer/stop")
    assert webui.finished()["state"] == "stopped"
    webui.picture(PROMPT)


def test_the_practice_project_is_installed_and_applied_whole(webui: WebUI) -> None:
    assert "lora_trainer_practice_install" in json.dumps(webui.get("/config")), "the tab has the button"
    made = webui.post("/lora-trainer/practice")
    assert Path(made["checkpoint"]).parent == webui.data / "models" / "Stable-diffusion"
    assert webui.post("/lora-trainer/practice") == made, "what is there is left alone"
    config = {**json.loads(SETTINGS.read_text("utf-8")), "max_train_steps": 1, "save_every_n_epochs": 0}
    status = webui.train("practice", Path(made["dataset"]), config=config)
    assert status["state"] == "done", status
    (remark,) = remarks(status)  # none of modules: as many are applied as were trained, 3x3 convolutions too
    assert 'have "zorbo" somewhere inside' in remark, "what the check thinks of its captions"


def test_as_many_blocks_are_recomputed_as_it_takes(webui: WebUI, dataset: Path) -> None:
    limit, files = 20.0, []
    for name in ("roomy", "tight"):
        status = webui.train(name, dataset, config={"memory_limit_gb": limit})
        assert status["state"] == "done" and status["plan"], status
        *_, training = status["plan"]["phases"]
        assert 0 < training["gb"] <= limit and training["measured_minutes"] is not None
        assert ("recomputed" in status["plan"]["text"]) == (name == "tight"), status["plan"]
        files.append(tensors(webui.data / "models" / "Lora" / f"{name}.safetensors"))
        limit = round(training["gb"] - 0.003, 6)
    webui.train("away", dataset, config={"memory_limit_gb": 20.0, "blocks_in_cpu_memory": 4})
    assert "4 of" in webui.status()["plan"]["text"] and "in CPU memory" in webui.status()["plan"]["text"]
    files.append(tensors(webui.data / "models" / "Lora" / "away.safetensors"))
    assert files[0] == files[1] == files[2], "and the result is the same"
