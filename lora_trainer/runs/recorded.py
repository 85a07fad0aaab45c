"""With what a run was started, out of its ``run.json``: enough to continue it by its name, or to fill a form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError, quoted
from lora_trainer.runs.left import text
from lora_trainer.training.folder import RunFolder


@dataclass(frozen=True)
class Recorded:
    """What a run was started with."""

    name: str
    dataset: str
    config: dict[str, Any]  # options by name, with their version
    trigger: str
    checkpoint: str  # the base model's file name
    checkpoint_path: str  # empty where the host didn't know it
    vae_path: str
    lora_dir: str

    def to_dict(self) -> dict[str, Any]:
        """What a form is filled with."""
        return {"name": self.name, "dataset": self.dataset, "trigger": self.trigger, "config": self.config}


def recorded(output: Path, name: str) -> Recorded:
    """What the run of that name was started with.

    Raises:
        FileError: if there is no such run, or its run.json doesn't say.
        ConfigError: if its configuration isn't one that this version can load.
    """
    folder = RunFolder(output, name)
    if not name or Path(name).name != name or "\0" in name or not folder.path.is_dir():
        raise FileError(f"There is no run named {quoted(name)} in {output}; the list of runs has their names.")
    facts = folder.read_run()
    config, dataset, model = facts.get("config"), text(facts.get("dataset")), facts.get("base_model")
    if not isinstance(config, dict) or not dataset:
        raise FileError(f"{folder.run} doesn't say with what {name} was started; give dataset and settings.")
    try:
        config = RunConfig.from_dict(config).to_dict()
    except ConfigError as error:
        raise ConfigError(f"The settings of {name} in {folder.run} can't be used: {error}") from error
    model = model if isinstance(model, dict) else {}
    return Recorded(
        name,
        dataset,
        config,
        trigger=text(facts.get("trigger")),
        checkpoint=text(model.get("name")),
        checkpoint_path=text(model.get("path")),
        vae_path=text(model.get("vae_path")),
        lora_dir=text(facts.get("lora_dir")),
    )
