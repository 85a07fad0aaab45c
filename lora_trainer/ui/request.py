"""What a request to the job must hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.errors import ConfigError, DatasetError, quoted, shortened, shown
from lora_trainer.files import given_path

if TYPE_CHECKING:
    from lora_trainer.dataset.folders import OnImage
    from lora_trainer.hosts.base import Host
    from lora_trainer.training.request import RunRequest
    from lora_trainer.ui.looking import Looking

TRAIN_KEYS = ("name", "dataset", "config", "resume", "overwrite", "test", "test_plan", "trigger")
CHECK_KEYS = ("dataset", "config", "subject", "trigger")
PREPARE_KEYS = ("source", "trigger", "subject", "repeats", "crop")
TEST_KEYS = (
    "lora", "resume", "trigger", "subject", "strengths", "prompts", "seeds", "steps", "width", "height", "sampler",
    "epochs", "measures",
)  # fmt: skip


def completed(values: Mapping[str, Any], output: Path) -> tuple[dict[str, Any], str]:
    """A request to continue a run may be its name alone: dataset, options and trigger are those that it recorded.

    Returns:
        The whole request, and the checkpoint that it is for; "" where it doesn't follow from the run.

    Raises:
        LoraTrainerError: if the run doesn't say with what it was started.
    """
    from lora_trainer.runs.recorded import recorded

    given = {key: value for key, value in values.items() if value is not None}
    if flag_of(values, "resume") is not True or ("dataset" in given and "config" in given):
        return given, ""
    found = recorded(output, text_of(values, "name", "the name of the run to continue"))
    return {**found.to_dict(), **given}, found.checkpoint


def train_request(values: Mapping[str, Any], host: Host, output: Path) -> RunRequest:
    """What is to be trained; everything that can be found wrong with it is found here.

    Raises:
        LoraTrainerError: in one sentence.
    """
    from lora_trainer.config import RunConfig
    from lora_trainer.training.classes import check_paths
    from lora_trainer.training.request import RunRequest, check_name

    refuse_unknown(values, TRAIN_KEYS, "train")
    config = config_of(values.get("config"))
    request = RunRequest(
        name=text_of(values, "name", "a name for the LoRA"),
        dataset=dataset_of(text_of(values, "dataset", "the folder with the images")),
        config=RunConfig.from_dict({**host.defaults(), **config}),
        output=output,
        resume=flag_of(values, "resume") or False,
        overwrite=flag_of(values, "overwrite") or False,
        trigger=str(values.get("trigger") or ""),
    )
    check_name(request, host.lora_dir)
    check_paths(request.config)
    return request


def test_plan_of(values: Mapping[str, Any], name: str, trigger: str) -> dict[str, Any]:
    """What a request to train says of the test that follows.

    Raises:
        ConfigError: if it can't be used.
    """
    from lora_trainer.evaluation.plan import plan_of

    given = values.get("test_plan") or {}
    if not isinstance(given, dict):
        raise ConfigError("test_plan must be an object, with what a request to test may have.")
    refuse_unknown(given, TEST_KEYS[2:], "test_plan")
    plan_of(given, name, trigger)
    return {"trigger": trigger, **given}


def check_dataset(values: Mapping[str, Any], output: Path, progress: OnImage | None = None) -> dict[str, Any]:
    """Whether a dataset folder is fit to train on, and what there is to say about it; decodes images that weren't seen
    before, so not for an event loop.

    Raises:
        LoraTrainerError: if there is nothing to train on.
    """
    from lora_trainer.config import RunConfig
    from lora_trainer.dataset.checks.check import check
    from lora_trainer.dataset.plans import plan_for
    from lora_trainer.dataset.summary import summary, to_json

    refuse_unknown(values, CHECK_KEYS, "check")
    options = RunConfig.from_dict(config_of(values.get("config")))
    folder = dataset_of(values.get("dataset", ""))
    subject, trigger = (str(values.get(key) or "") for key in ("subject", "trigger"))
    checked = check(folder, options.dataset, options.caption, subject, trigger, output, progress)
    plan = plan_for(subject)
    facts = {**to_json(summary(checked.dataset)), **checked.to_dict(), "lines": checked.lines()}
    return {**facts, "plan": plan.to_dict() if plan else None}


def prepare_dataset(values: Mapping[str, Any], output: Path, looking: Looking) -> dict[str, Any]:
    """Copy the photos of a folder into a new dataset in the output folder.

    Raises:
        LoraTrainerError: one sentence.
    """
    from lora_trainer.dataset.prepare import DATASETS, check_trigger, free_folder, prepare

    refuse_unknown(values, PREPARE_KEYS, "prepare")
    source = folder_of(text_of(values, "source", "the folder with the photos"))
    trigger = check_trigger(text_of(values, "trigger", "a trigger word"))
    repeats, subject = str(values.get("repeats") or ""), str(values.get("subject") or "")
    folder = free_folder(output / DATASETS, trigger)
    with looking.at_work("Looking at photos") as seen:
        made = prepare([source], folder, trigger, repeats, subject, output, seen,
                       crops=flag_of(values, "crop") or False)  # fmt: skip
    return {
        "dataset": str(made.folder), "images": made.images, "repeats": made.repeats, "changed": made.changed,
        "cropped": made.cropped,
        "described": made.described, "twins": [shown(path) for path in made.twins],
        "skipped": [str(one) for one in made.skipped], "lines": [shown(line) for line in made.lines()],
    }  # fmt: skip


def text_of(values: Mapping[str, Any], key: str, what: str) -> str:
    """The text that a request must have as ``key``; ``what`` says what it is.

    Raises:
        ConfigError: if it isn't there.
    """
    text = values.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{key} is missing: give {what}.")
    return text


def config_of(given: object) -> dict[str, Any]:
    """The options of a request, by name.

    Raises:
        ConfigError: if they are no object.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"config can't be {quoted(given)}; give an object of option names and values.")
    return dict(given or {})


def flag_of(values: Mapping[str, Any], key: str) -> bool | None:
    """True, false or nothing; a text "false" isn't taken for true.

    Raises:
        ConfigError: if it is anything else.
    """
    value = values.get(key)
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"{key} can't be {quoted(value)}; give true or false.")
    return value


def folder_of(text: str) -> Path:
    """The folder that a request names as its dataset.

    Raises:
        LoraTrainerError: if there is none.
    """
    if not isinstance(text, str) or not text.strip():
        raise DatasetError("dataset is missing: give the folder with the images.")
    path = given_path(text, "The folder")
    if not path.is_dir():
        raise DatasetError(f"The folder {path} doesn't exist; check its path.")
    return path


def dataset_of(text: str) -> Path:
    """The dataset that a request names: a folder, or a dataset file.

    Raises:
        LoraTrainerError: if there is none.
    """
    from lora_trainer.dataset.dataset_file import is_dataset_file

    if isinstance(text, str) and text.strip() and is_dataset_file(path := given_path(text, "The folder")):
        return path
    return folder_of(text)


def refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    """Refuse keys that nobody would look at.

    Raises:
        ConfigError: names them.
    """
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(
            f"{shortened(', '.join(map(repr, unknown)))} can't be used in {what}; it takes {', '.join(known)}."
        )
