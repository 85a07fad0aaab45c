"""Settings of all kinds: our JSON, kohya's, command lines, arguments of optimisers and schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import OPTIONS, OptimizerConfig, RunConfig, ScheduleConfig, parse_assignments
from lora_trainer.errors import quoted, shortened
from lora_trainer.files import parse_json, read_json
from lora_trainer.hosts.base import GenerateRequest
from lora_trainer.hosts.standalone.prompt import split_prompt
from lora_trainer.kohya import load_config, load_kohya
from lora_trainer.kohya.names import FORM_ONLY, NO_EFFECT, NOT_OFFERED, OLD_NAMES, OUTSIDE, RULES
from lora_trainer.training.classes import check_paths
from lora_trainer.training.optimizers import create_optimizer
from lora_trainer.training.sampling import parse_line
from lora_trainer.training.schedule import create_scheduler
from lora_trainer.ui import remembered
from tests.support.hostile import contents, objects, only_sentences, scalars, texts, values

OURS = ("version", "config", *OPTIONS)
KOHYA = (*OPTIONS, *FORM_ONLY, *OUTSIDE, *RULES, *OLD_NAMES, *NOT_OFFERED, *sum(NO_EFFECT.values(), ()))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "settings.json"


@given(contents("a", "b"))
def test_json(content: bytes) -> None:
    with only_sentences():
        parse_json(content, "The file")


@given(texts)
def test_files_that_arent_there(name: str) -> None:
    with only_sentences():
        read_json(Path(name))


@given(objects(*OURS))
def test_our_configuration(data: dict[str, Any]) -> None:
    with only_sentences():
        config = RunConfig.from_dict(data)
        assert RunConfig.from_dict(config.to_dict()) == config
        check_paths(config)


@given(st.sampled_from(list(OPTIONS)), values)
def test_every_option(name: str, value: object) -> None:
    with only_sentences():
        RunConfig.from_dict({name: value})


@given(contents(*OURS))
def test_a_file_of_ours(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with only_sentences():
        load_config(file)


@given(objects(*KOHYA))
def test_kohyas_form(data: dict[str, Any]) -> None:
    with only_sentences():
        loaded = load_kohya({"LoRA_type": "Standard", "optimizer": "AdamW", **data})
        assert all(len(line) < 1500 for line in loaded.notices)


@given(st.sampled_from(KOHYA), values, st.booleans())
def test_every_name_of_kohyas(name: str, value: object, form: bool) -> None:
    with only_sentences():
        sign = {"LoRA_type": "Standard"} if form else {"network_module": "networks.lora"}
        load_kohya({**sign, name: value})


@given(st.lists(st.one_of(st.sampled_from(KOHYA).map("--{}".format), texts), max_size=6).map(" ".join))
def test_command_lines_of_kohyas(text: str) -> None:
    with only_sentences():
        load_kohya({"LoRA_type": "Standard", "additional_parameters": text})


@given(st.one_of(texts, st.builds("{}={}".format, st.sampled_from(list(OPTIONS)), texts)))
def test_assignments(text: str) -> None:
    with only_sentences():
        parse_assignments([text])


ARGUMENTS = (
    "betas", "eps", "weight_decay", "momentum", "foreach", "lr", "d0", "relative_step", "gamma", "step_size",
    "milestones", "step_rules", "T_max", "nesterov", "amsgrad", "maximize", "last_epoch", "lr_lambda",
)  # fmt: skip


@given(st.sampled_from(["AdamW", "Lion", "Prodigy", "SGDNesterov", "Adafactor", "RAdam", "x.y"]), objects(*ARGUMENTS))
def test_optimizers(name: str, arguments: dict[str, Any]) -> None:
    with only_sentences():
        config = RunConfig.from_dict({"optimizer_type": name, "optimizer_args": arguments}).optimizer
        parameter = torch.nn.Parameter(torch.ones(2, 2))
        create_optimizer([{"params": [parameter]}], OptimizerConfig(name, config.optimizer_args))


@given(
    st.sampled_from(["", "StepLR", "MultiStepLR", "CosineAnnealingLR", "LambdaLR", "OneCycleLR", "x.y.Z", "\0.x"]),
    objects(*ARGUMENTS),
)
def test_schedules(name: str, arguments: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with only_sentences():
        options = {"lr_scheduler_type": name, "lr_scheduler_args": arguments, "lr_scheduler": "piecewise_constant"}
        schedule = RunConfig.from_dict(options).schedule
        assert isinstance(schedule, ScheduleConfig)
        create_scheduler(optimizer, schedule, 10)


FLAGS = ("--n", "--w", "--h", "--d", "--l", "--s", "--ss", "--x")


@given(st.lists(st.one_of(texts, st.sampled_from(FLAGS)), max_size=7).map(" ".join))
def test_prompts(line: str) -> None:
    with only_sentences():
        parse_line(line, GenerateRequest(""))
    with only_sentences():
        split_prompt(line)


@given(contents("version", "values", "options"), objects("dataset", "name", "preset"), objects(*OPTIONS))
def test_remembered_settings(file: Path, content: bytes, known: dict[str, Any], options: dict[str, Any]) -> None:
    (file.parent / remembered.FILE).write_bytes(content)
    remembered.recall(file.parent)
    try:
        remembered.remember(file.parent, known, options)
    except (ValueError, RecursionError):  # what no page can hold
        return
    found, back = remembered.recall(file.parent)
    assert all(isinstance(value, (str, bool)) for value in found.values())
    with only_sentences():
        RunConfig.from_dict(back)


@given(st.one_of(values, scalars, st.binary(), st.just([[[[[[[1]]]]]]] * 500), st.just(10**5000)))
def test_quoting(value: object) -> None:
    assert len(quoted(value)) < 250 and len(quoted(value).splitlines()) == 1
    assert len(shortened("x" * 5000 + "\n\0\ud800")) <= 100
