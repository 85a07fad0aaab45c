"""The LoRA tools from the page: by name in the LoRA folder, with one answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.network.file import read_lora, write_lora
from lora_trainer.ui.actions import tools
from lora_trainer.ui.desk import Desk
from tests.support.tab import FakeJob, page

KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
ORDER = ("tool", "files", "strengths", "rank", "keep", "form", "name")


@pytest.fixture
def run(desk: Desk, job: FakeJob, tmp_path: Path) -> Callable[..., str]:
    job.host.lora_dir = tmp_path / "loras"
    for seed, name in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(seed)
        down, up = torch.randn(4, 768, generator=generator), torch.randn(8, 4, generator=generator)
        tensors = {f"{KEY}.lora_down.weight": down, f"{KEY}.lora_up.weight": up, f"{KEY}.alpha": torch.tensor(4.0)}
        write_lora(job.host.lora_dir / f"{name}.safetensors", tensors, {})

    def act(**values: Any) -> str:
        answer = tools.run(desk, page(desk), *(values.get(name, "") for name in ORDER))
        return answer.html["tools_answer"]

    return act


def change(job: FakeJob, name: str) -> torch.Tensor:
    found: Any = read_lora(job.host.lora_dir / f"{name}.safetensors").modules[KEY].change()
    return torch.as_tensor(found)


def test_every_tool_writes_a_new_file_into_the_lora_folder(run: Callable[..., str], job: FakeJob) -> None:
    one, two = change(job, "one"), change(job, "two")
    assert "modules written" in run(tool="merge", files="one\ntwo", strengths="0.5, 2", name="sum")
    torch.testing.assert_close(change(job, "sum"), 0.5 * one + 2 * two, rtol=1e-2, atol=3e-2)
    assert "lt-problem" not in run(tool="resize", files="sum", rank="2", name="small")
    assert read_lora(job.host.lora_dir / "small.safetensors").modules[KEY].rank == 2
    assert "lt-problem" not in run(tool="bake", files="one", strengths="0.5", name="half.safetensors")
    torch.testing.assert_close(change(job, "half"), one / 2, rtol=1e-2, atol=1e-2)
    assert "peft keys" in run(tool="convert", files="one", form="peft", name="other")
    assert "rank 4, alpha 4" in run(tool="show", files="one")
    assert [path.stem for path in job.host.changed] == ["sum", "small", "half", "other"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tool": ""}, "Which tool"),
        ({"tool": "bake", "files": "one", "strengths": "x", "name": "a"}, "give numbers, such as 0.8"),
        ({"tool": "bake", "files": "one\ntwo", "strengths": "1", "name": "a"}, "takes 1 file, one a line; 2 are given"),
        ({"tool": "bake", "files": "one", "strengths": "0.5", "name": "two"}, "exists already"),
        (
            {"tool": "bake", "files": "one", "strengths": "0.5", "name": "../two"},
            "have the name",
        ),
        ({"tool": "bake", "files": "ones", "strengths": "0.5", "name": "a"}, "no LoRA named .*did you mean one"),
        ({"tool": "resize", "files": "one", "name": "a"}, "Give a rank"),
        ({"tool": "resize", "files": "one", "rank": "-3", "name": "a"}, "give a whole number"),
        ({"tool": "extract", "files": "a.ckpt\nb.ckpt", "name": "a"}, "no checkpoint"),
        ({"tool": "merge", "files": "one\ntwo", "strengths": "1"}, "Give the result a name"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(
    run: Callable[..., str], job: FakeJob, values: dict[str, str], words: str
) -> None:

    before = sorted(job.host.lora_dir.iterdir())
    answer = run(**values)
    assert "lt-problem" in answer and re.search(words, answer), answer
    assert sorted(job.host.lora_dir.iterdir()) == before


def test_nothing_is_extracted_beside_a_training(run: Callable[..., str], job: FakeJob) -> None:
    job.running = True
    assert "A training or a test is running" in run(tool="extract", files="a\nb", name="a")
