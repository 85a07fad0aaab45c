"""Whole runs on a tiny model: what is trained and what is saved."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from support.tiny_host import TinyHost, TinyModel, make_dataset

from lora_trainer.config import RunConfig
from lora_trainer.errors import UnsupportedModelError
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest
from lora_trainer.training.events import Finished, Preparing, Sampled, Saved, Started, StepDone
from lora_trainer.training.request import RunRequest
from lora_trainer.training.run import train
from tests.support.runs import SMALL, of, request, run, tensors


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
    assert (facts["name"], facts["steps"], facts["epochs"], facts["images"], facts["modules"], facts["processes"]) == (
        "zork", 80, 8, 5, started.modules, 1,
    )  # fmt: skip
    assert facts["base_model"] == {
        "name": "tiny.safetensors", "sha256": "00", "family": "sd1", "prediction_type": "epsilon", "path": "",
        "vae": "", "vae_path": "",
    }  # fmt: skip
    assert (facts["dataset"], facts["device"], facts["skipped"]) == (str(tmp_path / "data"), "cpu", [])


def test_neither_vae_nor_text_encoder_runs_in_the_loop(tmp_path: Path) -> None:
    host, events = run(tmp_path, shuffle_caption=True, caption_dropout_rate=0.3, flip_aug=True)
    model = host.model
    assert model.images_encoded == 10  # five images, plain and mirrored, once each
    assert len(model.captions_encoded) == len(set(model.captions_encoded)) > 5
    assert model.with_it == {"vae": {("vae",)}, "text_encoders": {("text_encoders",)}, "unet": {("unet",)}}
    last = max(i for i, event in enumerate(events) if isinstance(event, Preparing))
    assert last < next(i for i, event in enumerate(events) if isinstance(event, Started))


def test_captions_that_grow_in_the_middle_of_an_epoch_are_encoded_beforehand(tmp_path: Path) -> None:
    """A caption of the cache that was never encoded would end the run."""
    host, events = run(tmp_path, token_warmup_step=4, token_warmup_min=1, max_train_epochs=0, max_train_steps=5)
    assert isinstance(events[-1], Finished) and events[-1].step == 5
    assert len({text.count(",") for text in host.model.captions_encoded if text.startswith("zork")}) == 4


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
    for kind in ("latents", "captions"):
        assert len(list((tmp_path / "out/cache" / kind).glob("*.safetensors"))) == 5
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


def test_sample_prompts_come_from_a_file_or_from_lines(tmp_path: Path) -> None:
    """Lines of which the last one ends as a file's name does are lines."""
    file = tmp_path / "prompts.txt"
    file.write_text("a zork --w 64 --h 64\n# not this one\nanother --w 64 --h 64", "utf-8")
    host, _ = run(tmp_path / "file", sample_every_n_epochs=2, sample_prompts=str(file))
    assert {request.prompt for request in host.model.generated} == {"a zork", "another"}
    host, _ = run(tmp_path / "lines", sample_every_n_epochs=2, sample_prompts="a zork\na shop sign that says zork.txt")
    assert {request.prompt for request in host.model.generated} == {"a zork", "a shop sign that says zork.txt"}


def test_samples_and_files_show_the_weights_that_a_schedule_free_optimiser_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains other weights than those; here the ones found are all 3."""

    class TwoSets(torch.optim.SGD):
        def eval(self) -> None:
            self.held = [[weight.detach().clone() for weight in group["params"]] for group in self.param_groups]
            for group in self.param_groups:
                for weight in group["params"]:
                    weight.data.fill_(3.0)

        def train(self) -> None:
            for group, held in zip(self.param_groups, getattr(self, "held", []), strict=False):
                for weight, data in zip(group["params"], held, strict=True):
                    weight.data.copy_(data)

    module = ModuleType("twosets")
    module.TwoSets = TwoSets  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "twosets", module)
    shown: list[set[float]] = []

    class Looking(TinyModel):
        def generate(self, request: GenerateRequest) -> GeneratedImage:
            optimizer = next(one for one in gc.get_objects() if isinstance(one, TwoSets))
            shown.append({float(w.detach().mean()) for group in optimizer.param_groups for w in group["params"]})
            return super().generate(request)

    asked = request(
        tmp_path, "zork", TinyHost(tmp_path / "loras", Looking()), optimizer_type="twosets.TwoSets",
        sample_every_n_epochs=1, sample_prompts="zork --w 64 --h 64",
    )  # fmt: skip
    list(train(asked[0], replace(asked[1], typed=frozenset({"twosets.TwoSets"})), asked[2]))
    assert shown and all(values == {3.0} for values in shown)
    weights = tensors(tmp_path / "loras/zork.safetensors")
    assert {float(value.mean()) for key, value in weights.items() if not key.endswith("alpha")} == {3.0}


def test_a_run_that_replaces_another_draws_a_seed_of_its_own(tmp_path: Path) -> None:
    def seed() -> int:
        return int(json.loads((tmp_path / "out/zork/run.json").read_text("utf-8"))["config"]["seed"])

    run(tmp_path, seed=0)
    first = seed()
    run(tmp_path, seed=0, overwrite=True)
    assert seed() != first > 0


def test_many_varied_captions_go_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "memory", shuffle_caption=True)
    monkeypatch.setattr("lora_trainer.training.cache.LARGEST_IN_MEMORY", 1000)
    run(tmp_path / "disk", shuffle_caption=True)
    assert list((tmp_path / "disk/out/cache/captions").glob("*.safetensors"))
    memory, disk = ((tmp_path / place / "loras/zork.safetensors").read_bytes() for place in ("memory", "disk"))
    assert memory == disk


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
    trained = ("unet", "text_encoders") if "text_encoder_lr" in options else ("unet",)
    assert host.model.with_it["unet"] == {trained} and host.model.with_it["vae"] == {("vae",)}


def test_where_unet_and_text_encoders_are_never_together_only_one_is_trained(tmp_path: Path) -> None:
    host = TinyHost(tmp_path / "loras", TinyModel(apart=True))
    with pytest.raises(UnsupportedModelError, match="--medvram"):
        run(tmp_path, host=host, text_encoder_lr=1e-2)
    assert host.model.images_encoded == 0, "told before anything is encoded"
    run(tmp_path / "other", host=host)


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
