"""The report and the curve as the tab gets them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.errors import FileError
from lora_trainer.ui.fragments import curves_fragment, report_fragment
from lora_trainer.ui.status import Record


def row(kind: str, label: str, strength: float, seed: int = 1, file: str = "cat.safetensors") -> dict[str, Any]:
    path = f"images/{kind}-{label}_{seed}.png"
    return {"path": path, "kind": kind, "file": file, "label": label, "seed": seed, "strength": strength, "case": "",
            "prompt": '<lora:cat:0.8> say "hi" <b>', "infotext": f"Seed: {seed}"}  # fmt: skip


def write(folder: Path, **changes: Any) -> Path:
    images = [row("strength", "0", 0.0), row("strength", "0.8", 0.8), row("epoch", "epoch 2", 0.8, file="cat-2")]
    found = {
        "trigger": "<zwx>", "lora": "cat.safetensors", "verdict": "good", "evidence": ["<i>one</i>"], "advice": ["two"],
        "strengths": [], "recommended": {"file": "cat.safetensors", "strength": 0.8, "why": "because"},
        "prompts": {"strength": "a prompt", "integration": []}, "images": images, "grids": ["strength.png"], **changes,
    }  # fmt: skip
    path = folder / "report.json"
    path.write_text(json.dumps(found))
    return path


def test_the_sheet_of_saved_epochs_ends_with_the_last_file(tmp_path: Path) -> None:
    html = report_fragment(write(tmp_path), "my cat")
    saved = html[html.index("Saved epochs") :]
    assert re.findall(r'<th scope="col">([^<]+)</th>', saved) == ["epoch 2", "the last"]
    assert saved.count('class="lt-picture"') == 2
    assert 'data-src="/lora-trainer/report/my%20cat/images/strength-0.8_1.png"' in saved
    assert " src=" not in html and " href=" not in html, "the page's script knows the addresses"


def test_nothing_of_a_report_becomes_markup(tmp_path: Path) -> None:
    html = report_fragment(write(tmp_path), "<x>")
    for text in ("<zwx>", "<i>one</i>", "<b>", "<x>"):
        assert text not in html
    assert 'data-infotext="Seed: 1"' in html, "the settings of the picture at the recommended strength are sent"


@pytest.mark.parametrize("changes", [{"images": 3}, {"recommended": None}, {"images": [{}]}])
def test_a_damaged_report_is_told(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(FileError, match="test the LoRA again"):
        report_fragment(write(tmp_path, **changes), "cat")


@pytest.mark.parametrize(("width", "drawn"), [("700", 700), ("5", 240), ("99999", 2000), ("x", 2000), ("", 2000)])
def test_the_curve_is_as_wide_as_the_page_asks(width: str, drawn: int) -> None:
    record = Record(steps=100, losses=[(1, 0.1, 0.2), (2, 0.2, None), (50, 0.1, 0.3)])
    svg = curves_fragment(record, width)["html"]
    assert f'viewBox="0 0 {drawn} ' in svg and "from step 1 to 50" in svg
    last = re.findall(r'<polyline class="mean" points="([^"]+)"', svg)[0].split()[-1]
    assert float(last.split(",")[0]) < 0.75 * drawn, "there is room for the steps to come"
    assert curves_fragment(Record(), width) == {"html": "", "gain": "", "learned": ""}
