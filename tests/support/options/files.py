"""Precision and caches, the files that are written, and the pictures made on the way."""

from __future__ import annotations

import pytest
import torch
from support.options.run import GRADIENT, LOSS, UPDATE, Case, Check, Outcome

from lora_trainer.measures.denoising import DRIFT_CAP
from lora_trainer.training.events import Finished, Learned, Planned

SAMPLED = {"sample_every_n_steps": 1}
KEPT = {"max_train_epochs": 4, "save_every_n_epochs": 1}


def files_are(*suffixes: str) -> Check:
    def check(base: Outcome, changed: Outcome) -> None:
        assert changed.files == sorted(f"zork{suffix}.safetensors" for suffix in suffixes)

    return check


def metadata_has(key: str, value: str) -> Check:
    def check(base: Outcome, changed: Outcome) -> None:
        assert changed.metadata()[key] == value != base.metadata().get(key)

    return check


def nothing_of_the_dataset(base: Outcome, changed: Outcome) -> None:
    """What programs need is there, and no word of images, captions or settings."""
    said = changed.metadata()
    needed = {"ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha",
              "ss_network_args", "ss_output_name", "ss_session_id"}  # fmt: skip
    assert {key for key in said if key.startswith("ss_")} == needed < set(base.metadata())
    assert not any("calm" in text or "1_zork" in text for text in said.values()) and "calm" in str(base.metadata())


def pictures_at(*steps: int) -> Check:
    def check(base: Outcome, changed: Outcome) -> None:
        assert [step for step, _ in changed.pictures] == list(steps)

    return check


def weights_are(dtype: torch.dtype) -> Check:
    """Every number is one of the format, also in a file of fp32."""

    def check(base: Outcome, changed: Outcome) -> None:
        found, plain = changed.weights(), base.weights()
        assert all(torch.equal(tensor, tensor.to(dtype).float()) for tensor in found.values())
        assert not all(torch.equal(tensor, tensor.to(dtype).float()) for tensor in plain.values())

    return check


def much_less_is_kept(base: Outcome, changed: Outcome) -> None:
    assert changed.model.calls[0].saved_bytes < base.model.calls[0].saved_bytes / 2


def held_as(in_8_bits: int, in_cpu: int) -> Check:
    """So many blocks' weights are held in another way; afterwards all are the model's own again."""

    def check(base: Outcome, changed: Outcome) -> None:
        assert (base.model.held, changed.model.held) == ([], [(in_8_bits, in_cpu)])
        own, other = base.model.unet.state_dict(), changed.model.unet.state_dict()
        assert all(own[name].equal(other[name]) for name in own)

    return check


def planned_for(limit: float) -> Check:
    def check(base: Outcome, changed: Outcome) -> None:
        plans = [event for event in changed.events if isinstance(event, Planned)]
        assert plans and plans[0].limit_gb == limit and plans[0].phases[-1].gb < limit
        assert not any(isinstance(event, Planned) for event in base.events)

    return check


def tensorboard_has_the_losses(base: Outcome, changed: Outcome) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert not (base.folder / "out/zork/tensorboard").exists()
    found = EventAccumulator(str(changed.folder / "out/zork/tensorboard"))
    found.Reload()
    losses = [(one.step, one.value) for one in found.Scalars("loss/current")]
    assert losses == [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in changed.log]
    assert {"loss/average", "grad_norm", "lr/unet"} <= set(found.Tags()["scalars"])


def encoded_at_every_use(base: Outcome, changed: Outcome) -> None:
    assert changed.model.batches_encoded == [2, 2]
    last = [run.model.kept[-1] for run in (base, changed)]
    assert last == [["unet", "text_encoders"], ["unet", "vae", "text_encoders"]]


def encoded_together(base: Outcome, changed: Outcome) -> None:
    assert (base.model.batches_encoded, changed.model.batches_encoded) == ([1, 1], [2])


def encoded_once(base: Outcome, changed: Outcome) -> None:
    assert changed.model.captions_encoded == sorted(set(base.model.captions_encoded))
    assert changed.model.kept[-1] == ["unet"]


def kept_in(what: str) -> Check:
    """Both entries of the cache lie beside the run, and only then."""

    def check(base: Outcome, changed: Outcome) -> None:
        found = [len(list((run.folder / "out/cache" / what).glob("*.safetensors"))) for run in (base, changed)]
        assert found == [0, 2]

    return check


def prompts_and_all(base: Outcome, changed: Outcome) -> None:
    first = changed.model.generated[0]
    assert (first.prompt, first.negative_prompt, first.width, first.seed) == ("a box", "blurry", 128, 5)
    assert {request.prompt for request in changed.model.generated} == {"a box", "a plain picture"}


def sampler_is_ddim(base: Outcome, changed: Outcome) -> None:
    assert {request.sampler for request in changed.model.generated} == {"ddim"}


def damage_stops_it(base: Outcome, changed: Outcome) -> None:
    """After the second save that is over the cap; what was trained is saved, and why it stopped is told."""
    drifts = [event.drift[0] for event in base.events if isinstance(event, Learned)]
    second = next(n for n in range(1, len(drifts)) if min(drifts[n - 1 : n + 1]) > DRIFT_CAP)
    assert len(changed.log) == second + 1 < len(base.log)
    end = changed.events[-1]
    assert isinstance(end, Finished) and end.stopped and "trigger had moved" in " ".join(end.notices)


SAVED = {"files", "states"}
CASES: dict[str, Case] = {
    "full_bf16": Case(True, GRADIENT, check=weights_are(torch.bfloat16)),
    "full_fp16": Case(True, UPDATE, check=weights_are(torch.float16), maybe=frozenset({"gradient"})),
    "mixed_precision": Case("bf16", {"context", "memory"} | LOSS),
    "gradient_checkpointing": Case(True, {"memory"}, check=much_less_is_kept),
    "memory_limit_gb": Case(
        0.01, {"batches", "context", "encoding", "noisy", "texts", "timesteps"}, check=planned_for(0.01),
    ),  # a count comes first
    "base_8bit": Case("always", GRADIENT, check=held_as(12, 0), maybe=frozenset({"loss"})),
    "blocks_in_cpu_memory": Case(3, set(), check=held_as(0, 3)),
    "cache_latents": Case(False, {"encoding"}, check=encoded_at_every_use),
    "cache_latents_to_disk": Case(True, set(), check=kept_in("latents")),
    "cache_text_encoder_outputs": Case(True, {"encoding", "texts"}, check=encoded_once),
    "cache_text_encoder_outputs_to_disk": Case(
        True, set(), {"cache_text_encoder_outputs": True}, kept_in("captions")),
    "vae_batch_size": Case(2, {"encoding"}, check=encoded_together, idle=[{"cache_latents": False}]),
    "save_precision": Case("fp16", {"dtype", "weights"}),
    "log_with": Case("tensorboard", set(), check=tensorboard_has_the_losses),
    "save_every_n_epochs": Case(1, SAVED, check=files_are("-000001", "")),
    "save_n_epoch_ratio": Case(2, SAVED, check=files_are("-000001", "")),
    "save_every_n_steps": Case(1, SAVED, check=files_are("-step00000001", "")),
    "save_last_n_epochs": Case(2, {"files"}, KEPT, files_are("-000002", "-000003", ""), idle=[{}]),
    "save_last_n_steps": Case(
        2, {"files"}, {"max_train_steps": 6, "save_every_n_steps": 1},
        files_are("-step00000003", "-step00000004", "-step00000005", ""), idle=[{}]),
    "save_state_every_n_minutes": Case(1e-9, {"states"}),
    "measure_at_saves": Case(True, {"learned", "texts", "encoding"}, {"save_every_n_epochs": 1}, idle=[{}]),
    "stop_on_damage": Case(
        True, {"steps", "files", "states", "learned", "weights", "timesteps", "batches", "rates", "texts", "encoding"},
        {"save_every_n_steps": 1, "max_train_steps": 6, "measure_at_saves": True, "learning_rate": 500.0},
        damage_stops_it, idle=[{"save_every_n_steps": 1}, {"save_every_n_steps": 1, "measure_at_saves": True}]),
    "training_comment": Case("By hand", set(), check=metadata_has("ss_training_comment", "By hand")),
    "metadata_title": Case("Zork", set(), check=metadata_has("modelspec.title", "Zork")),
    "metadata_author": Case("Someone", set(), check=metadata_has("modelspec.author", "Someone")),
    "metadata_description": Case("A box", set(), check=metadata_has("modelspec.description", "A box")),
    "metadata_license": Case("CC0", set(), check=metadata_has("modelspec.license", "CC0")),
    "metadata_tags": Case("box, red", set(), check=metadata_has("modelspec.tags", "box, red")),
    "metadata_trigger_phrase": Case("zork box", set(), check=metadata_has("modelspec.trigger_phrase", "zork box")),
    "metadata_usage_hint": Case("Low", set(), check=metadata_has("modelspec.usage_hint", "Low")),
    "metadata_merged_from": Case("a, b", set(), check=metadata_has("modelspec.merged_from", "a, b")),
    "metadata_preprocessor": Case("none", set(), check=metadata_has("modelspec.preprocessor", "none")),
    "metadata_thumbnail": Case("data:,x", set(), check=metadata_has("modelspec.thumbnail", "data:,x")),
    "no_metadata": Case(True, set(), check=nothing_of_the_dataset),
    "sample_prompts": Case(
        "a box --n blurry --w 128 --d 5\na plain picture", {"pictures"}, SAMPLED, prompts_and_all, idle=[{}]),
    "sample_every_n_epochs": Case(2, {"pictures"}, check=pictures_at(0, 2)),
    "sample_every_n_steps": Case(1, {"pictures"}, check=pictures_at(0, 1, 2), idle=[{"sample_every_n_epochs": 1}]),
    "sample_at_first": Case(False, {"pictures"}, SAMPLED, pictures_at(1, 2), idle=[{}]),
    "sample_sampler": Case("ddim", {"pictures"}, SAMPLED, sampler_is_ddim, idle=[{}]),
}  # fmt: skip
