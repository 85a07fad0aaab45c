"""Settings from a file and into one."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.errors import ConfigError, LoraTrainerError, quoted
from lora_trainer.families import Family
from lora_trainer.ui import views
from lora_trainer.ui.actions.settings import take_over
from lora_trainer.ui.desk import Desk, plain
from lora_trainer.ui.forms import Answer, Page

SETTINGS = "settings"  # saved configurations, in the output folder


def load(desk: Desk, page: Page, file: str) -> Answer:
    """Read a configuration: kohya's JSON, ours, or a run.json."""
    from lora_trainer.kohya import load_config, notices_on_fields

    try:
        if not file.strip():
            raise ConfigError("Which file? Drop a JSON or TOML file here, or give its path.")
        loaded = load_config(Path(file.strip().strip('"')).expanduser())
    except LoraTrainerError as error:
        return Answer({"json_answer": views.problem(str(error))})
    answer = Answer(options=plain(loaded.config))
    for key, value in (("dataset", "train_data_dir"), ("dataset", "dataset_config"), ("name", "output_name")):
        if loaded.fields.get(value):
            answer.values[key] = str(loaded.fields[value])
    kind = {"own": "Train LoRA's own settings", "kohya": "kohya's settings", "sd-scripts": "sd-scripts' settings"}
    lines = [*loaded.notices, *notices_on_fields(loaded.fields, *_model(desk), loaded=True)]
    read = views.note(f"{kind[loaded.kind]} were loaded.")
    answer.html["json_answer"] = read + views.note(*lines, kind="lt-warn")
    return take_over(desk, answer)


def _model(desk: Desk) -> tuple[str, Family | None]:
    glance = desk.glance()
    return ("", None) if glance is None or glance.refusal else (glance.checkpoint, glance.family)


def save(desk: Desk, page: Page, file: str, kind: str) -> Answer:
    """Write the options as kohya's JSON, sd-scripts' TOML, or ours.

    Args:
        kind: ``kohya``, ``toml`` or ``own``.
    """
    from lora_trainer.dataset.dataset_file import alone, is_dataset_file
    from lora_trainer.files import name_problem, write_json
    from lora_trainer.kohya import save_kohya, save_toml

    ending = {"kohya": ".kohya.json", "toml": ".toml", "own": ".json"}[kind]
    try:
        given, name = file.strip().strip('"'), page.name or "lora"
        if not given and (why := name_problem(name)):
            raise ConfigError(f"A file can't have the name {quoted(name)}: {why}. Give a path, or another name.")
        target = Path(given).expanduser() if given else desk.job.output / SETTINGS / f"{name}{ending}"
        wanted = Path(ending).suffix or ending
        if target.suffix != wanted:
            raise ConfigError(f"{target} can't be written: give a file name that ends in {wanted}.")
        if given and target.exists():  # the box may still hold what was loaded
            raise ConfigError(f"{target} exists already and was left as it is; give another name.")
        config, lost = page.config(), []
        described = is_dataset_file(dataset := Path(page.dataset).expanduser())
        if kind != "own":
            images = "dataset_config" if described else "train_data_dir"
            fields = {images: alone(dataset, target) if described else page.dataset, "output_name": page.name}
            write = save_kohya if kind == "kohya" else save_toml
            lost = write(config, target, {key: value for key, value in fields.items() if value})
        else:
            write_json(target, {**config.to_dict(), **({"dataset_config": page.dataset} if described else {})})
    except LoraTrainerError as error:
        return Answer({"json_answer": views.problem(str(error))})
    return Answer({"json_answer": views.note(f"Saved as {target}.") + views.note(*lost, kind="lt-warn")})
