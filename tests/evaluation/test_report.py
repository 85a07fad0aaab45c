"""The page and the loss curve; what report.json holds is tested with the sweep."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.config import RunConfig
from lora_trainer.evaluation.curve import gain_curve, loss_curve, moving_mean
from lora_trainer.evaluation.lora_file import read_resolution, saved_points
from lora_trainer.evaluation.page import render_page
from lora_trainer.evaluation.trained import read_log

NOTHING = {"accuracy": None, "flexibility": None, "artifacts": None, "reason": "not measured"}
VOID = {"meta", "img", "br", "input", "line", "polyline"}


class Structure(HTMLParser):
    """Checks that tags close in order; collects images, links and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "a":
            self.links.append(str(dict(attrs)["href"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(folder: Path, side: int = 64, **changes: Any) -> dict[str, Any]:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for kind, strength, case in (("strength", 0.0, "s"), ("strength", 0.8, "s"), ("integration", 0.8, "<b>x</b>")):
        path = f"images/{kind}{strength}.png"
        Image.new("RGB", (side, side), (200, 0, 0)).save(folder / path)
        rows.append(
            {"path": path, "kind": kind, "file": "a.safetensors", "label": str(strength), "prompt": 'say "hi" & <b>',
             "case": case, "seed": 1, "strength": strength, "infotext": ""}
        )  # fmt: skip
    return {
        "name": "a", "lora": "a.safetensors", "base_model": "base<1>.safetensors", "trigger": "zorbo",
        "created": "2026-01-02T03:04:05+00:00", "stopped": False, "verdict": "not enough evidence",
        "evidence": ["one"], "advice": ["two"], "strengths": [{"strength": 0.8, **NOTHING}],
        "recommended": {"file": "a.safetensors", "strength": 0.8, "why": "because"}, "grids": ["strength.png"],
        "prompts": {"strength": "s", "integration": ["<b>x</b>"]}, "settings": {"steps": 20}, "seeds": [1],
        "images": rows, **changes,
    }  # fmt: skip


def test_page_is_one_file_with_all_its_pictures(tmp_path: Path) -> None:
    page = render_page(report(tmp_path), tmp_path, [], {})
    found = Structure(page)
    assert not found.open
    assert len(found.images) == 3 and all(
        str(image["src"]).startswith("data:image/png;base64,") for image in found.images
    )
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert set(found.links) == {
        "images/strength0.0.png",
        "images/strength0.8.png",
        "images/integration0.8.png",
        "strength.png",
    }
    assert "<lora:a:0.8> zorbo" in found.text and "because" in found.text and "base<1>" in found.text


def test_text_is_escaped(tmp_path: Path) -> None:
    page = render_page(report(tmp_path), tmp_path, [], {"config": {"metadata_title": "<script>alert(1)</script>"}})
    assert "<script>alert" not in page and "<b>" not in page
    assert Structure(page).images[0]["alt"] == 'say "hi" & <b>, seed 1, strength 0'


def test_large_pictures_are_embedded_small(tmp_path: Path) -> None:
    found = Structure(render_page(report(tmp_path, side=768), tmp_path, [], {}))
    assert all(
        str(image["src"]).startswith("data:image/jpeg") and len(str(image["src"])) < 20_000 for image in found.images
    )
    assert found.images[0]["width"] == "768"


def test_measured_scores_get_a_table_and_missing_ones_none(tmp_path: Path) -> None:
    assert '<th scope="col">accuracy</th>' not in render_page(report(tmp_path), tmp_path, [], {})
    row = {"strength": 0.8, **NOTHING, "accuracy": {"value": 71.4, "low": 60, "high": 80}}
    text = Structure(render_page(report(tmp_path, strengths=[row]), tmp_path, [], {})).text
    assert "0.871 (60–80)––" in text


@pytest.mark.parametrize("version", [1, 2])
def test_saved_files_are_shown_for_both_versions_of_a_report(tmp_path: Path, version: int) -> None:
    made = report(tmp_path)
    picture = made["images"][0]["path"]
    made["images"] += [
        {**made["images"][0], "path": picture, "kind": "epoch", "label": label, "strength": strength}
        for label in ("epoch 2", "the last")
        for strength in ((0.8,) if version == 1 else (0.6, 0.8))
    ]
    figure = {"value": 90.0, "low": 80.0, "high": 95.0}
    made["epochs"] = [{"file": "b.safetensors", "label": "epoch 2", "strength": 0.6, "verdict": "good", **NOTHING,
                       "flexibility": figure}]  # fmt: skip
    made["recommended"] = {"file": "b.safetensors", "strength": 0.6, "why": "because", "sure": "fairly sure"}
    text = Structure(render_page({**made, "version": version, "small_print": "modest"}, tmp_path, [], {})).text
    assert ("epoch 20.6–90 (80–95)–good" in text) is (version == 2)
    assert ("strength 0.6" in text) is (version == 2)
    assert "(fairly sure)" in text and "modest" in text


def test_settings_that_differ_are_shown_first(tmp_path: Path) -> None:
    config = RunConfig().replace(network_dim=77).to_dict()
    text = Structure(render_page(report(tmp_path), tmp_path, [], {"config": config})).text
    differ, everything = text.split("All training settings")
    assert "network_dim77" in differ and "resolution" not in differ.split("differ from the defaults")[1]
    assert "network_dim77" in everything and "resolution" in everything


def test_curve_is_drawn_to_scale() -> None:
    rows = [{"step": step, "loss": 1.0 if step <= 50 else 0.5} for step in range(1, 101)]
    svg = ET.fromstring(f"<g>{loss_curve(rows)}</g>")
    raw, mean = (polyline.attrib["points"].split() for polyline in svg.iter("polyline"))
    assert len(raw) == len(mean) == 100
    points = [tuple(map(float, point.split(","))) for point in raw]
    top, half, floor = points[0][1], points[-1][1], 260 - 34
    assert math.isclose(floor - half, (floor - top) / 2, rel_tol=0.01)  # y grows downwards from the loss 0
    assert points[0][0] == 58 and points[-1][0] == 900 - 12


def test_the_gain_is_the_loss_less_the_base_models() -> None:
    rows = [{"step": step, "loss": 0.4, "baseline": 0.5 if step > 50 else 0.4} for step in range(1, 101)]
    rows += [{"step": 101, "loss": 9.0, "baseline": None}, {"step": 102, "loss": 9.0}]
    text = gain_curve(rows)
    svg = ET.fromstring(f"<g>{text}</g>")
    (zero,) = (line for line in svg.iter("line") if line.attrib["class"] == "zero")
    raw = [tuple(map(float, point.split(","))) for point in next(svg.iter("polyline")).attrib["points"].split()]
    assert len(raw) == 100 and raw[0][1] == float(zero.attrib["y1"]) == 12
    assert raw[-1][1] == 260 - 34 and "ends at -0.1: it has learned." in text
    worse = gain_curve([{"step": step, "loss": 0.5, "baseline": 0.4} for step in range(1, 20)])
    assert "nothing learned yet" in worse and 'class="zero"' not in worse, "zero is the lowest line there is"
    assert gain_curve(rows[:1]) == gain_curve([{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.1}]) == ""


def test_curve_survives_spikes_gaps_and_short_logs() -> None:
    assert loss_curve([]) == loss_curve([{"step": 1, "loss": 0.1}]) == ""
    rows = [{"step": step, "loss": 0.1} for step in range(1, 300)]
    rows[100]["loss"], rows[200]["loss"] = float("nan"), 1e9
    svg = loss_curve(rows)
    assert "nan" not in svg and "1e+09" not in svg
    assert moving_mean([1, 3, math.nan, 5], 2) == [1, 2, 3, 5]


def test_torn_log_lines_are_left_out(tmp_path: Path) -> None:
    rows = [
        b'{"step": 1, "loss": 0.5}', b'{"other": 1}', b'{"step": 2, "loss": NaN}', b'{"step": "3", "loss": 1}', b"\xff",
        b'{"step": 4, "loss": ' + b"9" * 5000 + b"}", b'{"step": 1e999, "loss": 1}', b"[" * 9999, b'{"step": 2, "lo',
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(rows))
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "loss": 0.5}]
    assert read_log(tmp_path / "none.jsonl") == []


def lora(path: Path, metadata: str) -> Path:
    header = f'{{"__metadata__":{{{metadata}}}}}'.encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def test_files_of_an_earlier_run_of_the_same_name_are_not_mixed_in(tmp_path: Path) -> None:
    final = lora(tmp_path / "a[1].safetensors", '"ss_seed":"7","ss_num_epochs":"4","ss_epoch":"4"')
    lora(tmp_path / "a[1]-000002.safetensors", '"ss_seed":"7","ss_num_epochs":"4","ss_epoch":"2"')
    lora(tmp_path / "a[1]-000003.safetensors", '"ss_seed":"8","ss_num_epochs":"10","ss_epoch":"3"')
    lora(tmp_path / "a[1]-ema.safetensors", '"ss_seed":"7","ss_num_epochs":"4","ss_epoch":"4"')
    lora(tmp_path / "a[1]-old.safetensors", '"ss_seed":"7"')
    assert [point.label for point in saved_points(final)] == ["epoch 2", "average (EMA)"]


def test_resolution_of_a_file(tmp_path: Path) -> None:
    assert read_resolution(lora(tmp_path / "a.safetensors", '"ss_resolution":"(512, 768)"')) == (512, 768)
    assert read_resolution(lora(tmp_path / "b.safetensors", '"modelspec.resolution":"1024x1024"')) == (1024, 1024)
    assert read_resolution(lora(tmp_path / "c.safetensors", '"ss_seed":"1"')) is None
