"""What a kohya file says beside its options that a training here doesn't follow, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from lora_trainer.families import Family, family_of_flags, traits

COMMAND_LINE = {
    "resume": "--resume continues the run of the same name",
    "logging_dir": "the log goes to log.jsonl in the run's folder",
}
PAGE = {
    "resume": "to continue a run, give its name and choose to continue it in step 4",
    "logging_dir": "the log goes to log.jsonl in the run's folder",
    "output_dir": "the LoRA goes into the folder where this page's LoRAs are",
    "vae": "training uses the VAE that the model is loaded with",
}


def notices_on_fields(
    fields: Mapping[str, Any], checkpoint: str = "", family: Family | None = None, *, loaded: bool = False
) -> list[str]:
    """A line for each.

    Args:
        fields: of a :class:`lora_trainer.kohya.importer.KohyaImport`.
        checkpoint: file name of the model that is trained on; "" where nothing is known of it.
        family: the family of that model.
        loaded: whether model, VAE and folders are those of a page, so that none of them is taken from the file.
    """
    reasons = PAGE if loaded else COMMAND_LINE
    lines = [f"{name} isn't used: {reason}." for name, reason in reasons.items() if fields.get(name)]
    named = PurePath(str(fields.get("pretrained_model_name_or_path") or "").replace("\\", "/")).name
    if loaded and named and named != checkpoint:
        instead = checkpoint or "the loaded model"
        lines.append(f"The file names the checkpoint {named}, but training uses {instead}; load {named} first.")
    whole_form = {"sdxl", "v2", "pretrained_model_name_or_path"} <= fields.keys()  # says SD 1.x with both off
    said = family_of_flags(bool(fields.get("sdxl")), bool(fields.get("v2")))
    if (whole_form or fields.get("sdxl") or fields.get("v2")) and family and said != family:
        found = traits(family).label
        lines.append(
            f"The settings file is for {traits(said).label}, but {checkpoint} is {found}; training it as {found}."
        )
    return lines
