"""What is written down about a run: metadata of its files, ``run.json``, and what makes a run resumable."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer import __version__
from lora_trainer.config import RunConfig
from lora_trainer.dataset.batches import batches_per_epoch
from lora_trainer.dataset.dataset_file import tables_of
from lora_trainer.dataset.items import Dataset
from lora_trainer.dataset.summary import summary
from lora_trainer.hosts.base import ModelInfo
from lora_trainer.network.metadata import DatasetFacts, Reached, build_metadata
from lora_trainer.training.ending import now
from lora_trainer.training.state import Position

if TYPE_CHECKING:
    from lora_trainer.training.session import Session

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "bitsandbytes", "numpy", "pillow")


def metadata_of(
    config: RunConfig, dataset: Dataset, info: ModelInfo, steps: int, epochs: int, processes: int
) -> Callable[[str, Position], dict[str, str]]:
    """Gives the metadata of a file by its stem and the position; without times, so that equal runs give equal files."""
    facts = summary(dataset)
    if dataset.subsets:  # what is said once is that of the largest pictures
        of = max(dataset.subsets, key=lambda folder: folder.config.resolution[0] * folder.config.resolution[1])
        config = replace(config, dataset=of.config, caption=of.caption)
    about = DatasetFacts(
        images=facts.samples,
        reg_images=facts.reg_samples,
        batches_per_epoch=batches_per_epoch(dataset, processes),
        folders={f.name: {"n_repeats": f.repeats, "img_count": f.images} for f in facts.folders if not f.is_reg},
        reg_folders={f.name: {"n_repeats": f.repeats, "img_count": f.images} for f in facts.folders if f.is_reg},
        tag_frequency={f.name: f.tags for f in facts.folders if not f.is_reg},
        buckets=facts.buckets,
        mean_aspect_error=facts.mean_aspect_error,
        held_out=sum(item.repeats for item in dataset.held_out),
        datasets=tables_of([replace(folder, path=Path(folder.name)) for folder in dataset.subsets])["datasets"],
    )

    def metadata(stem: str, at: Position) -> dict[str, str]:
        progress = Reached(min(at.epoch, epochs), epochs, at.step, steps, processes)
        return build_metadata(stem, config, info, about, progress, seed=config.optimizer.seed)

    return metadata


def run_facts(name: str, path: Path, trigger: str, session: Session) -> dict[str, Any]:
    """The content of run.json while the run is in progress; :mod:`lora_trainer.training.ending` writes its end."""
    info, dataset = session.model.info, session.dataset
    sessions = {session.saver.session} | ((session.folder.sessions() or set()) if session.first_step else set())
    return {
        "name": name,
        "sessions": sorted(sessions),  # what its LoRA files name as their origin
        "dataset": str(path),
        **({"dataset_config": tables_of(dataset.subsets)} if dataset.subsets else {}),
        "trigger": trigger or _trigger(dataset),
        "lora_dir": str(session.saver.lora_dir.resolve()),
        "config": session.config.to_dict(),
        "steps": session.steps,
        "epochs": session.epochs,
        "images": session.images,
        "skipped": [str(skipped) for skipped in dataset.skipped],
        "notices": list(session.notices),
        "sample_prompts": [request.prompt for request in session.sampler.requests],
        "modules": session.network.count,
        "base_model": {
            "name": info.checkpoint,
            "sha256": info.checkpoint_sha256,
            "path": info.checkpoint_path,
            "family": info.family,
            "prediction_type": session.objective.prediction_type,
            "vae": info.vae,
            "vae_path": info.vae_path,
        },
        "processes": session.processes.world,
        "device": str(session.device),
        "versions": {"lora_trainer": __version__, "python": platform.python_version(), **_versions()},
        "began": now(),
        "end": None,
    }


def _trigger(dataset: Dataset) -> str:
    """The trigger word, where all images have the same."""
    words = {item.trigger for item in dataset.items if not item.folder.is_reg}
    return words.pop() if len(words) == 1 else ""


def _versions() -> dict[str, str]:
    installed = {(found.metadata["Name"] or "").lower(): found.version for found in distributions()}
    return {package: installed[package] for package in PACKAGES if package in installed}
