"""What is written down about a run: metadata of its files, ``run.json``, and what makes a run resumable."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer import __version__
from lora_trainer.config import RunConfig
from lora_trainer.dataset.batches import batches_per_epoch
from lora_trainer.dataset.items import Dataset
from lora_trainer.dataset.summary import summary
from lora_trainer.hosts.base import ModelInfo
from lora_trainer.network.metadata import DatasetFacts, Reached, build_metadata
from lora_trainer.training.cache import digest
from lora_trainer.training.state import Position

if TYPE_CHECKING:
    from lora_trainer.training.processes import Processes
    from lora_trainer.training.session import Session

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "bitsandbytes", "numpy", "pillow")


def metadata_of(
    config: RunConfig, dataset: Dataset, info: ModelInfo, steps: int, epochs: int, processes: int
) -> Callable[[str, Position], dict[str, str]]:
    """Gives the metadata of a file by its stem and the position; without times, so that equal runs give equal files."""
    facts = summary(dataset)
    about = DatasetFacts(
        images=facts.samples,
        reg_images=facts.reg_samples,
        batches_per_epoch=batches_per_epoch(dataset, config.dataset.train_batch_size * processes),
        folders={f.name: {"n_repeats": f.repeats, "img_count": f.images} for f in facts.folders if not f.is_reg},
        reg_folders={f.name: {"n_repeats": f.repeats, "img_count": f.images} for f in facts.folders if f.is_reg},
        tag_frequency={f.name: f.tags for f in facts.folders if not f.is_reg},
        buckets=facts.buckets,
        mean_aspect_error=facts.mean_aspect_error,
    )

    def metadata(stem: str, at: Position) -> dict[str, str]:
        progress = Reached(min(at.epoch, epochs), epochs, at.step, steps, processes)
        return build_metadata(stem, config, info, about, progress, seed=config.optimizer.seed)

    return metadata


def identity(config: RunConfig, dataset: Dataset, info: ModelInfo, processes: Processes) -> dict[str, Any]:
    """What must be equal for a run to be the continuation of another."""
    contents = digest(*((item.content_sha256, item.repeats, item.captions) for item in dataset.items))
    model = digest(info.vae_fingerprint, info.text_fingerprint, info.checkpoint_sha256)
    return {
        "config": config.to_dict(),
        "dataset": f"{len(dataset.items)} images, {contents[:8]}",
        "model": f"{info.checkpoint}, {model[:8]}",
        "processes": processes.world,
    }


def run_facts(name: str, path: Path, session: Session) -> dict[str, Any]:
    """The content of run.json."""
    info, dataset = session.model.info, session.dataset
    sessions = {session.saver.session} | ((session.folder.sessions() or set()) if session.first_step else set())
    return {
        "name": name,
        "sessions": sorted(sessions),  # what its LoRA files name as their origin
        "dataset": str(path),
        "config": session.config.to_dict(),
        "steps": session.steps,
        "epochs": session.epochs,
        "images": len(dataset.items),
        "skipped": [str(skipped) for skipped in dataset.skipped],
        "notices": list(session.notices),
        "modules": len(session.network.modules),
        "base_model": {
            "name": info.checkpoint,
            "sha256": info.checkpoint_sha256,
            "family": info.family,
            "prediction_type": session.objective.prediction_type,
            "vae": info.vae,
        },
        "processes": session.processes.world,
        "device": str(session.device),
        "versions": {"lora_trainer": __version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    installed = {(found.metadata["Name"] or "").lower(): found.version for found in distributions()}
    return {package: installed[package] for package in PACKAGES if package in installed}
