"""docs/kohya.md: what becomes of every name of kohya's form and of sd-scripts, found out by loading a file with it.

``python -m tests.support.kohya_page docs/kohya.md`` writes the tables anew.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from lora_trainer.config import OPTIONS
from lora_trainer.config.documentation import renewed_between
from lora_trainer.errors import ConfigError
from lora_trainer.kohya import load_kohya
from lora_trainer.kohya.names import OLD_NAMES, RENAMED
from tests.support.kohya_form import DATA, FORM
from tests.support.kohya_values import NEEDS, telling_value

PLACES = {  # what isn't an option of a run, and where it goes
    "pretrained_model_name_or_path": "names the checkpoint", "vae": "names the VAE", "output_name": "names the LoRA",
    "train_data_dir": "names the dataset", "dataset_config": "names the dataset file",
    "output_dir": "names the LoRA's folder",
    "v2": "compared with the checkpoint",
    "sdxl": "compared with the checkpoint", "resume": "told: a run is continued by its name",
    "logging_dir": "told: the log is log.jsonl in the run's folder",
}  # fmt: skip
_CACHE = "captions are encoded once wherever that changes nothing"
WORDS = {  # where the option that changes says too little
    "LoRA_type": "as `algo`", "network_module": "as `algo`", "network_args": "by the names of its arguments",
    "additional_parameters": "read like a command line of sd-scripts", "sdxl_cache_text_encoder_outputs": _CACHE,
    "noise_offset_type": "which of the two kinds of noise is used", "cache_text_encoder_outputs": _CACHE,
    "use_cp": "as `use_tucker`, of LoKr", "epoch": "as `max_train_epochs`, if max_train_steps is 0",
    "lr_warmup": "as `lr_warmup_steps`, in percent",
    "save_model_as": "safetensors is written in any case",
    "base_weights_multiplier": "needs base_weights",
}  # fmt: skip


class Row(NamedTuple):
    """A name, what becomes of it in a word, and more."""

    name: str
    status: str
    more: str


def row(name: str, by_argument: bool) -> Row:
    """What becomes of a name when a file has it with a telling value."""
    option = RENAMED.get(OLD_NAMES.get(name, name), OLD_NAMES.get(name, name))
    around = {**FORM, **NEEDS.get(name, {})}
    before = load_kohya(around)
    for value in (telling_value(name), True, "3", 64, ".cap"):
        given = {"additional_parameters": f"--{name}={value}"} if by_argument else {name: value}
        try:
            after = load_kohya({**around, **given})
        except ConfigError as error:
            if "can't be" in str(error):
                continue  # a wrong kind of value: try the next
            return Row(name, "refused", WORDS.get(name) or _reason(str(error), name))
        changed = [other for other in OPTIONS if after.config.value(other) != before.config.value(other)]
        if option in changed or changed:
            shown = option if option in changed else ", ".join(changed)
            return Row(name, "takes effect", WORDS.get(name) or ("" if shown == name else f"as `{shown}`"))
        if name in after.fields or name in PLACES:
            return Row(name, "taken from the file", PLACES.get(name, ""))
        line = next((line for line in after.notices if name in line), "")
        if line:
            return Row(name, "no effect", re.sub(r"^No effect: .*?\((.*)\)\.$", r"\1", line))
    return Row(name, "takes effect", WORDS[name])


def _reason(sentence: str, name: str) -> str:
    found = re.search(rf"{re.escape(name)}[^()]*\((.*?)\)[,;]", sentence)
    return found[1] if found else sentence


def tables() -> str:
    """One table of the form's names and one of the scripts' options that the form doesn't have."""
    form = (DATA / "kohya_names.txt").read_text(encoding="utf-8").split()
    scripts = (DATA / "sd_scripts_names.txt").read_text(encoding="utf-8").split()
    parts = ["## Names of the form's JSON", "", *_table([row(name, False) for name in sorted(form, key=str.lower)])]
    rest = sorted(set(scripts) - set(form))
    parts += ["## Options of sd-scripts without a field in the form", "", *_table([row(name, True) for name in rest])]
    return "\n".join(parts).rstrip() + "\n"


def _table(rows: list[Row]) -> list[str]:
    lines = [f"| `{one.name}` | {one.status} | {one.more} |".replace("|  |", "| |") for one in rows]
    return ["| name | here | |", "|---|---|---|", *lines, ""]


def page(text: str) -> str:
    """The page with today's tables."""
    return renewed_between(text, tables())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
