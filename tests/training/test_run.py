"""Whole runs on a tiny model: what is trained, what is saved, stop and resume, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from support.tiny_host import TinyHost, TinyModel, make_dataset

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError, TrainingDivergedError, UnsupportedModelError
from lora_trainer.training.events import CancelToken, Event, Finished, Preparing, Sampled, Saved, Started, StepDone
from lora_trainer.training.run import RunRequest, train

SMALL: dict[str, Any] = {
    "resolution": 64, "network_dim": 4, "network_alpha": 4, "max_train_epochs": 2, "learning_rate": 1e-2, "seed": 7,
    "text_encoder_lr": 0, "save_every_n_epochs": 0, "save_precision": "float",
}  # fmt: skip


def run(tmp_path: Path, name: str = "zork", host: TinyHost | None = None, *, resume: bool = False,
        stop_at: int = 0, **options: Any) -> tuple[TinyHost, list[Event]]:  # fmt: skip
    data = tmp_path / "data"
    if not data.exists():
        make_dataset(data)
    host = host or TinyHost(tmp_path / "loras")
    token, events = CancelToken(), []
    request = RunRequest(name, data, RunConfig().replace(**{**SMALL, **options}), tmp_path / "out", resume=resume)
    for event in train(host, request, token):
        events.append(event)
        if isinstance(event, StepDone) and event.step == stop_at:
            token.cancel()
    return host, events


def of(events: list[Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def test_a_run_trains_and_saves_what_it_says(tmp_path: Path) -> None:
    before = TinyModel().unet.state_dict()
    host, events = run(tmp_path, max_train_epochs=8)
    started, steps, finished = of(events, Started)[0], of(events, StepDone), of(events, Finished)[0]
    assert (started.step, started.steps, started.epochs, started.images) == (0, 80, 8, 5)
    assert [step.step for step in steps] == list(range(1, 81))
    assert not finished.stopped and finished.path == host.lora_dir / "zork.safetensors"
    assert sum(s.loss for s in steps[-20:]) < sum(s.loss for s in steps[:20])  # it learns
    saved = tensors(finished.path)
    assert len([key for key in saved if key.endswith("lora_up.weight")]) == started.modules
    assert all(saved[key].abs().max() > 0 for key in saved if key.endswith("lora_up.weight"))
    after = host.model.unet.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)  # base weights are bit-identical
    assert not host.taken and not any(m._forward_hooks for m in host.model.unet.modules())
    log = [json.loads(line) for line in (tmp_path / "out/zork/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, 81)) and log[0]["loss"] == steps[0].loss
    facts = json.loads((tmp_path / "out/zork/run.json").read_text())
    assert facts["config"]["seed"] == 7 and facts["versions"]["torch"] == torch.__version__


def test_neither_vae_nor_text_encoder_runs_in_the_loop(tmp_path: Path) -> None:
    host, events = run(tmp_path, shuffle_caption=True, caption_dropout_rate=0.3, flip_aug=True)
    model = host.model
    assert model.images_encoded == 10  # five images, plain and mirrored, once each
    assert len(model.captions_encoded) == len(set(model.captions_encoded)) > 5
    assert model.parked == ["vae", "text_encoders"]
    last = max(i for i, event in enumerate(events) if isinstance(event, Preparing))
    assert last < next(i for i, event in enumerate(events) if isinstance(event, Started))


def test_uncached_gives_the_same_file(tmp_path: Path) -> None:
    run(tmp_path, "cached", shuffle_caption=True)
    host, _ = run(tmp_path, "live", shuffle_caption=True, cache_latents=False, cache_text_encoder_outputs=False)
    assert host.model.images_encoded > 5
    cached, live = (tensors(tmp_path / f"loras/{name}.safetensors") for name in ("cached", "live"))
    for key in cached:
        torch.testing.assert_close(cached[key], live[key], atol=1e-5, rtol=1e-4)


def test_disk_caches_are_used_again_and_keyed_by_the_models(tmp_path: Path) -> None:
    disk = {"cache_latents_to_disk": True, "cache_text_encoder_outputs_to_disk": True}
    run(tmp_path, "a", **disk)
    second, _ = run(tmp_path, "b", **disk)
    assert second.model.images_encoded == 0 and not second.model.captions_encoded
    from dataclasses import replace

    other = TinyHost(tmp_path / "loras", TinyModel(info=replace(TinyModel().info, vae_fingerprint="vae-2")))
    run(tmp_path, "c", other, **disk)
    assert other.model.images_encoded == 5 and not other.model.captions_encoded
    a, b = (tensors(tmp_path / f"loras/{name}.safetensors") for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_same_seed_same_bytes_other_seed_other_file(tmp_path: Path) -> None:
    for place, seed in (("one", 7), ("two", 7), ("three", 8)):
        run(tmp_path / place, seed=seed)
    one, two, three = ((tmp_path / place / "loras/zork.safetensors").read_bytes() for place in ("one", "two", "three"))
    assert one == two and one != three


@pytest.mark.parametrize(
    ("optimizer", "stop_at"),
    [
        ("AdamW", 3),
        ("AdamW", 10),
        ("Lion", 13),
        ("Prodigy", 3),
        ("Adafactor", 13),
    ],  # in an epoch, at its end, in the next
)
def test_resumed_equals_uninterrupted(tmp_path: Path, optimizer: str, stop_at: int) -> None:
    options = {
        "optimizer_type": optimizer, "shuffle_caption": True, "network_dropout": 0.1, "lr_scheduler": "cosine",
        "noise_offset": 0.1, "save_every_n_epochs": 1, "optimizer_args": {},
    }  # fmt: skip
    if optimizer == "Prodigy":
        options["learning_rate"] = 1.0
    if optimizer == "Adafactor":
        options |= {"optimizer_args": {"relative_step": False, "scale_parameter": False}}
    run(tmp_path / "whole", **options)
    _, events = run(tmp_path / "cut", stop_at=stop_at, **options)
    finished = of(events, Finished)[0]
    assert finished.stopped and finished.step <= stop_at + 2
    _, events = run(tmp_path / "cut", resume=True, **options)
    assert of(events, Started)[0].step == finished.step and not of(events, Finished)[0].stopped
    for name in ("zork.safetensors", "zork-000001.safetensors"):
        whole, cut = ((tmp_path / place / "loras" / name).read_bytes() for place in ("whole", "cut"))
        assert whole == cut, name
    log = [json.loads(line)["step"] for line in (tmp_path / "cut/out/zork/log.jsonl").read_text().splitlines()]
    assert log == list(range(1, 21))


def test_resume_refuses_what_would_change_the_result(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nothing to resume"):
        run(tmp_path, resume=True)
    run(tmp_path, stop_at=3)
    with pytest.raises(ConfigError, match=r"network_alpha was 4.0, now 2.0"):
        run(tmp_path, resume=True, network_alpha=2)
    (tmp_path / "data/2_zork/0.txt").write_text("another caption")
    with pytest.raises(ConfigError, match="dataset isn't the one"):
        run(tmp_path, resume=True)
    state = tmp_path / "out/zork/state/state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(FileError, match="damaged"):
        run(tmp_path, resume=True)


def test_saves_keep_the_last_and_never_double_the_end(tmp_path: Path) -> None:
    _, events = run(tmp_path, max_train_epochs=5, save_every_n_epochs=1, save_last_n_epochs=2)
    assert [saved.path.name for saved in of(events, Saved)] == [
        "zork-000001.safetensors", "zork-000002.safetensors", "zork-000003.safetensors", "zork-000004.safetensors",
        "zork.safetensors",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "loras").iterdir()) == [
        "zork-000003.safetensors", "zork-000004.safetensors", "zork.safetensors",
    ]  # fmt: skip
    with safe_open(tmp_path / "loras/zork-000003.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_output_name"] == "zork-000003" and metadata["ss_epoch"] == "3" and metadata["ss_steps"] == "30"


def test_step_saves(tmp_path: Path) -> None:
    run(tmp_path, save_every_n_steps=4, save_last_n_steps=8)
    names = sorted(path.name for path in (tmp_path / "loras").iterdir())
    assert names == [
        "zork-step00000008.safetensors", "zork-step00000012.safetensors", "zork-step00000016.safetensors",
        "zork.safetensors",
    ]  # fmt: skip


def test_samples_come_at_first_and_at_epochs_with_fixed_seeds(tmp_path: Path) -> None:
    prompts = "zork in a box --n blurry, dark --w 128 --h 72 --d 5 --l 3.5 --s 4 --ss ddim\n# no\na plain picture"
    host, events = run(tmp_path, sample_every_n_epochs=1, sample_prompts=prompts)
    assert [(s.step, s.prompt) for s in of(events, Sampled)] == [
        (step, prompt) for step in (0, 10, 20) for prompt in ("zork in a box", "a plain picture")
    ]
    first, second = host.model.generated[:2]
    assert (first.negative_prompt, first.width, first.height, first.seed) == ("blurry, dark", 128, 72, 5)
    assert (first.cfg_scale, first.steps, first.sampler) == (3.5, 4, "ddim")
    assert second.width == second.height == 64 and host.model.generated[3].seed == second.seed
    assert of(events, Sampled)[-1].path.is_file()


def test_nan_stops_with_everything_saved(tmp_path: Path) -> None:
    host = TinyHost(tmp_path / "loras")
    original, calls = host.model.predict, []

    def poisoned(*args: Any) -> torch.Tensor:
        calls.append(1)
        return original(*args) * (float("nan") if len(calls) == 6 else 1.0)

    host.model.predict = poisoned  # type: ignore[method-assign]
    with pytest.raises(TrainingDivergedError, match=r"loss became NaN or infinite in step 6 with \d.png; .* step 5 is"):
        run(tmp_path, host=host)
    assert all(t.isfinite().all() for t in tensors(tmp_path / "loras/zork.safetensors").values())
    calls.append(1)
    run(tmp_path, host=host, resume=True)
    run(tmp_path / "whole")
    resumed, whole = ((tmp_path / p / "loras/zork.safetensors").read_bytes() for p in ("", "whole"))
    assert resumed == whole


@pytest.mark.parametrize("part", ["UNet", "text encoder"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_checkpoint_is_named_and_not_the_settings(tmp_path: Path, part: str, value: float) -> None:
    host = TinyHost(tmp_path / "loras")
    module = host.model.unet if part == "UNet" else host.model.text
    name, weight = next((n, w) for n, w in module.named_parameters() if n.endswith(("to_out.0.weight", "fc1.weight")))
    weight.data[0, 0] = value
    with pytest.raises(UnsupportedModelError, match=rf"tiny.safetensors .* its {part} holds NaN or .*{name}\)") as told:
        run(tmp_path, host=host)
    assert "resume" not in str(told.value) and "saved" not in str(told.value)
    assert not (tmp_path / "loras/zork.safetensors").exists()


def test_nan_in_the_first_step_promises_nothing(tmp_path: Path) -> None:
    host = TinyHost(tmp_path / "loras")
    original = host.model.predict
    host.model.predict = lambda *args: original(*args) * float("nan")  # type: ignore[method-assign]
    with pytest.raises(TrainingDivergedError, match=r"in step 1 with .*nothing was trained yet") as told:
        run(tmp_path, host=host)
    assert "resume" not in str(told.value)


def test_whatever_ends_a_run_saves_what_was_trained(tmp_path: Path) -> None:
    host = TinyHost(tmp_path / "loras")
    encode, calls = host.model.encode_images, []

    def failing(pixels: torch.Tensor) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("CUDA out of memory")
        return encode(pixels)

    host.model.encode_images = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path, host=host, cache_latents=False)
    assert (tmp_path / "loras/zork.safetensors").is_file() and not host.taken
    _, events = run(tmp_path, resume=True, cache_latents=False)
    assert of(events, Started)[0].step == 3


def test_stopped_before_the_first_step_a_lora_of_that_name_stays(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "loras/zork.safetensors").read_bytes()
    token, host = CancelToken(), TinyHost(tmp_path / "loras")
    request = RunRequest("zork", tmp_path / "data", RunConfig().replace(**SMALL), tmp_path / "out", overwrite=True)
    events = []
    for event in train(host, request, token):
        events.append(event)
        token.cancel()
    assert host.model.images_encoded <= 1 and of(events, Finished)[0].path is None
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == before


def test_the_remedy_for_nan_can_be_applied_on_resuming(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    _, events = run(tmp_path, resume=True, learning_rate=1e-3)
    rates = [step.lr["unet"] for step in of(events, StepDone)]
    _, whole = run(tmp_path / "whole")
    usual = [step.lr["unet"] for step in of(whole, StepDone)][5:]
    assert rates == pytest.approx([rate / 10 for rate in usual])


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "loras/zork.safetensors").read_bytes()
    run(tmp_path, resume=True)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == before


def test_a_torn_log_line_does_not_block_resuming(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    log = tmp_path / "out/zork/log.jsonl"
    log.write_text(log.read_text() + '{"step": 6, "lr": {"unet": 0.1}')
    run(tmp_path, resume=True)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 21))


def test_a_disk_too_small_for_the_state_still_gets_the_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr("lora_trainer.training.state.torch.save", full)
    host, events = run(tmp_path)
    finished = of(events, Finished)[0]
    assert finished.path == host.lora_dir / "zork.safetensors" and finished.path.is_file()
    assert any("state.pt" in notice and "can't be resumed" in notice for notice in finished.notices)


def test_many_varied_captions_go_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "memory", shuffle_caption=True)
    monkeypatch.setattr("lora_trainer.training.cache.LARGEST_IN_MEMORY", 1000)
    run(tmp_path / "disk", shuffle_caption=True)
    assert list((tmp_path / "disk/out/cache/captions").glob("*.safetensors"))
    memory, disk = ((tmp_path / place / "loras/zork.safetensors").read_bytes() for place in ("memory", "disk"))
    assert memory == disk


def test_a_lora_folder_that_cannot_be_written_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "loras").write_text("a file in the way")
    with pytest.raises(FileError, match=r"LoRA folder .* can't be written"):
        run(tmp_path)


def test_nan_latents_name_the_image(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"VAE gives NaN for 0\.png"):
        run(tmp_path, host=TinyHost(tmp_path / "loras", TinyModel(poison=True)))


def test_one_batch_of_two_equals_two_accumulated_batches(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", sizes=((64, 64),) * 2, repeats=1)  # each epoch is one group of both
    sgd = {"optimizer_type": "SGDNesterov", "learning_rate": 1.0}  # Adam would blow up rounding in tiny gradients
    run(tmp_path, "batch", train_batch_size=2, max_train_epochs=6, **sgd)
    run(tmp_path, "groups", gradient_accumulation_steps=2, max_train_epochs=6, **sgd)
    run(tmp_path, "single", max_train_epochs=3, **sgd)
    batch, groups, single = (tensors(tmp_path / f"loras/{name}.safetensors") for name in ("batch", "groups", "single"))
    for key in batch:
        torch.testing.assert_close(batch[key], groups[key], atol=1e-5, rtol=1e-3)
    assert any((batch[key] - single[key]).abs().max() > 1e-3 for key in batch)


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path: Path) -> None:
    run(tmp_path / "plain", network_dropout=0.2)
    run(tmp_path / "checkpointed", network_dropout=0.2, gradient_checkpointing=True)
    plain, again = (tensors(tmp_path / p / "loras/zork.safetensors") for p in ("plain", "checkpointed"))
    assert all(torch.equal(plain[key], again[key]) for key in plain)


@pytest.mark.parametrize(("options", "prefix"), [
    ({"text_encoder_lr": 1e-2, "unet_lr": 0}, "lora_te_"), ({"text_encoder_lr": 1e-2}, "lora_"), ({}, "lora_unet_"),
])  # fmt: skip
def test_which_parts_are_trained(tmp_path: Path, options: dict[str, Any], prefix: str) -> None:
    host, events = run(tmp_path, **options)
    saved = tensors(of(events, Finished)[0].path)
    assert all(key.startswith(prefix) for key in saved)
    ups = {key for key, value in saved.items() if key.endswith("up.weight") and value.abs().max() > 0}
    assert len(ups) == of(events, Started)[0].modules
    parked = ["vae"] if "text_encoder_lr" in options else ["vae", "text_encoders"]
    assert host.model.parked == parked


@pytest.mark.parametrize("name", ["", " x", "a:b", "a<b", "a/b", "none", ".hidden", "a,b"])
def test_names_that_the_prompt_syntax_or_a_disk_forbids(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="can't be used"):
        run(tmp_path, name)


def test_an_existing_lora_is_not_overwritten_unasked(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "loras/zork.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"zork\.safetensors exists already"):
        run(tmp_path, seed=8)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == before


def test_unwritable_output_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(FileError, match=r"output folder .* can't be written"):
        run(tmp_path)


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, stop_at=2)
    before = (tmp_path / "loras/zork.safetensors").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FileError, match="No space left on device"):
        run(tmp_path, resume=True)
    assert (tmp_path / "loras/zork.safetensors").read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_closing_the_generator_gives_the_model_back(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    host = TinyHost(tmp_path / "loras")
    events = train(host, RunRequest("zork", tmp_path / "data", RunConfig().replace(**SMALL), tmp_path / "out"))
    for event in events:
        if isinstance(event, StepDone):
            assert not any(m._forward_hooks or "forward" in vars(m) for m in host.model.unet.modules())
            break
    events.close()
    assert not host.taken
