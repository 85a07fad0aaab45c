"""What an event of the tab sends and changes; needs gradio, but no browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

gradio = pytest.importorskip("gradio", reason="make test-webui-pins and make test-gradio4 have it")

from lora_trainer.config import OPTIONS  # noqa: E402
from lora_trainer.ui import binding  # noqa: E402
from lora_trainer.ui.forms import Answer  # noqa: E402
from lora_trainer.ui.tab import create_tab  # noqa: E402


class FakeHost:
    """Nothing is loaded."""

    def glance(self) -> None:
        return None

    def defaults(self) -> dict[str, Any]:
        return {}


class FakeJob:
    """Starts nothing."""

    def __init__(self, output: Path) -> None:
        self.output, self.host = output, FakeHost()


@pytest.fixture
def tab(tmp_path: Path) -> Any:
    return create_tab(FakeJob(tmp_path), webui=False)  # type: ignore[arg-type]


def sent_with(tab: Any, elem_id: str) -> list[str]:
    """The elem_ids of the inputs that go with a click on a button."""
    button = next(number for number, block in tab.blocks.items() if block.elem_id == elem_id)
    # gradio 3 lists the components, gradio 4 pairs of component and event
    found = [
        row for row in tab.config["dependencies"] if button in row["targets"] or (button, "click") in row["targets"]
    ]
    assert len(found) == 1
    return [str(tab.blocks[number].elem_id) for number in found[0]["inputs"]]


def test_events_send_what_they_need(tab: Any) -> None:
    assert sent_with(tab, "lora_trainer_restore") == sent_with(tab, "lora_trainer_look") == []
    assert sent_with(tab, "lora_trainer_chosen") == ["lora_trainer_preset"]
    assert sent_with(tab, "lora_trainer_check") == [
        "lora_trainer_dataset", "lora_trainer_trigger", "lora_trainer_name", "lora_trainer_subject"
    ]  # fmt: skip
    network = sent_with(tab, "lora_trainer_changed_network")
    assert network == [f"lora_trainer_{row.name}_option" for row in OPTIONS.values() if row.group == "network"]
    assert len(sent_with(tab, "lora_trainer_start")) == len(OPTIONS) + len(binding.ALL_VALUES), "Train sends all"


def test_every_input_is_followed(tab: Any) -> None:
    followed = {
        name
        for block in tab.blocks.values()
        if str(block.elem_id).startswith("lora_trainer_changed_")
        for name in sent_with(tab, block.elem_id)
    }
    assert followed | {"lora_trainer_preset"} == set(sent_with(tab, "lora_trainer_start"))


def test_an_answer_to_a_part_that_its_event_does_not_name_is_noticed() -> None:
    with pytest.raises(ValueError, match="trigger"):
        binding.updates(Answer(values={"trigger": "x"}), ["message"])
