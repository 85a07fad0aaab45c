"""What makes a run the continuation of another: its settings, its images and captions, its base model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from lora_trainer import __version__
from lora_trainer.config import RunConfig
from lora_trainer.config.run import OPTIONS
from lora_trainer.config.values import plain
from lora_trainer.dataset.dataset_file import tables_of
from lora_trainer.dataset.masks import mask_key
from lora_trainer.errors import ConfigError, counted, quoted, shortened, shown
from lora_trainer.files import file_sha256
from lora_trainer.memory import has_own_memory
from lora_trainer.network.beneath import files_beneath
from lora_trainer.training.cache import digest

if TYPE_CHECKING:
    from lora_trainer.dataset.items import Dataset
    from lora_trainer.hosts.base import ModelInfo
    from lora_trainer.training.processes import Processes

RATES = frozenset({"learning_rate", "unet_lr", "text_encoder_lr"})
# Options that may differ between a run and its continuation: what was computed already stays valid.
FREE_ON_RESUME = RATES | {
    "max_train_epochs", "max_train_steps", "save_precision", "save_every_n_epochs", "save_every_n_steps",
    "save_n_epoch_ratio",
    "save_last_n_epochs", "save_last_n_steps", "save_state_every_n_minutes", "sample_prompts", "sample_every_n_epochs",
    "sample_every_n_steps", "sample_at_first", "sample_sampler", "training_comment", "metadata_title",
    "metadata_author", "metadata_description", "metadata_license", "metadata_tags", "metadata_trigger_phrase",
    "metadata_usage_hint", "metadata_merged_from", "metadata_preprocessor", "metadata_thumbnail", "no_metadata",
    "vae_batch_size",
    "cache_latents_to_disk", "cache_text_encoder_outputs_to_disk", "on_divergence", "measure_at_saves",
    "stop_on_damage",
    "max_grad_norm", "mixed_precision",  # the remedies for NaN
    "log_with", "gradient_checkpointing", "memory_limit_gb", "blocks_in_cpu_memory",  # change no bit
    "base_8bit",  # as much as the free memory may, on its own
}  # fmt: skip
TOLD_ON_RESUME = ("mixed_precision", "base_8bit")  # of these, those that change the last digits unasked
MOST_NAMED = 3  # images in a sentence
OLDER = (
    "The state is an older version's, which didn't note every image: make sure that images, captions and base model "
    "are those that the run was started with."
)
AGAIN = "or begin a new run, which can go on from this one's LoRA as network_weights"


def identity(
    config: RunConfig, dataset: Dataset, info: ModelInfo, processes: Processes, device: torch.device
) -> dict[str, Any]:
    """What a state says about the run that it belongs to; plain JSON values."""
    images: dict[str, list[object]] = {}
    for item in dataset.pictures:
        one = f"{item.folder.path.name}/{item.path.relative_to(item.folder.path).as_posix()}"
        name = shown(f"{'reg/' * item.is_reg}{one}")
        if name in images:  # of another subset of a dataset file
            name = f"{name} ({len(images)})"
        images[name] = [item.content_sha256[:12] + mask_key(item.mask)[:12], digest(*item.captions)[:12], item.repeats]
    return {
        "config": config.to_dict(),
        "images": images,
        "subsets": tables_of(dataset.subsets)["datasets"],
        "model": {
            "checkpoint": info.checkpoint,
            "checkpoint's contents": info.checkpoint_sha256,
            "VAE": info.vae_fingerprint,
            "text encoder": info.text_fingerprint,
            "base_weights": digest(*map(file_sha256, files_beneath(config.network))),  # they belong to the model
        },
        "processes": processes.world,
        "made on": {"version": __version__, "torch": str(torch.__version__), "device": device.type},
    }


def check_identity(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Compare what a state says with what is there now.

    Returns:
        What may change the result a little, though the run can go on.

    Raises:
        ConfigError: names what differs, and what to do.
    """
    _check_config(before["config"], now["config"])
    if "images" not in before:
        return [OLDER]
    if before.get("subsets", []) != now["subsets"]:
        raise ConfigError(f"Can't resume: the dataset file's settings changed since then. Put them back, {AGAIN}.")
    if changes := _changed_images(before["images"], now["images"]):
        raise ConfigError(f"Can't resume: since then {', and '.join(changes)}. Put that back, {AGAIN}.")
    for part, found in now["model"].items():
        was = before["model"].get(part)
        if was and found and was != found:
            name = f"{part} ({shortened(str(was), 60)} then, {found} now)" if part == "checkpoint" else part
            name = "content of base_weights" if part == "base_weights" else name
            raise ConfigError(
                f"Can't resume: the {name} isn't the one that the run was started with. Choose that one, {AGAIN}."
            )
    if before["processes"] != now["processes"]:
        raise ConfigError(
            f"Can't resume: the number of processes was {quoted(before['processes'])}, now {now['processes']}. "
            f"Start as many, {AGAIN}."
        )
    here = [(name, before["made on"].get(name, found), found) for name, found in now["made on"].items()]
    here += [(name, before["config"].get(name, now["config"][name]), now["config"][name]) for name in TOLD_ON_RESUME]
    if not has_own_memory(torch.device(now["made on"]["device"])):
        here = [one for one in here if {*one[1:]} != {"auto", "never"}]  # there 8 bits are used only if asked for
    other = [f"{name} {shortened(str(was), 60)}, now {found}" for name, was, found in here if was != found]
    if other:
        return [f"The run was started with {'; '.join(other)}: it goes on, but not to the very same last digits."]
    return []


def changed_rates(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a learning rate was set anew."""
    return any(before["config"].get(name) != now["config"].get(name) for name in RATES)


def _check_config(before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in sorted((before.keys() | now.keys()) - FREE_ON_RESUME):
        usual = plain(OPTIONS[name].default) if name in OPTIONS else None  # of an option that is newer than the state
        old, new = before.get(name, usual), now.get(name, usual)
        if old != new:
            raise ConfigError(
                f"Can't resume: {shortened(name, 60)} was {quoted(old)}, now {quoted(new)}. "
                "Set it back, or start without resuming."
            )


def _changed_images(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Clauses on the images that were added, taken away or changed."""
    both = before.keys() & now.keys()
    groups: list[tuple[str, Sequence[str]]] = [
        ("came", sorted(now.keys() - before.keys())),
        ("went", sorted(before.keys() - now.keys())),
        ("changed", sorted(name for name in both if before[name][0] != now[name][0])),
    ]
    clauses = [f"{counted(len(names), 'image')} {verb} ({_listed(names)})" for verb, names in groups if names]
    captions = sorted(name for name in both if before[name][1] != now[name][1])
    if captions:
        clauses.append(f"{counted(len(captions), 'caption')} changed ({_listed(captions)})")
    repeats = sorted(name for name in both if before[name][2] != now[name][2])
    if repeats and not clauses:  # those of regularisation images follow from the number of images
        clauses.append(f"the repeats changed ({_listed(repeats)})")
    return clauses


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMED
    return ", ".join(shortened(name, 60) for name in names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
