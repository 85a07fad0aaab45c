"""Files beside a run: LoRAs, checkpoints, cards, logs, states."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.card import read_activation_text, write_card
from lora_trainer.config import RunConfig
from lora_trainer.evaluation.compare import pairs, sides, tally
from lora_trainer.evaluation.curve import loss_curve
from lora_trainer.evaluation.learned import learned_chart
from lora_trainer.evaluation.lora_file import read_resolution, read_trigger, saved_points
from lora_trainer.evaluation.trained import read_log, read_run
from lora_trainer.families import SD1
from lora_trainer.hosts.standalone.detect import detect
from lora_trainer.lora_folder import find_lora
from lora_trainer.network.file import read_lora
from lora_trainer.runs.details import details
from lora_trainer.runs.listing import list_runs
from lora_trainer.runs.queue import Queue
from lora_trainer.safetensors_file import read_header
from lora_trainer.training.folder import RunFolder, read_learned
from lora_trainer.training.state import load_state
from lora_trainer.ui.estimate import Paces
from tests.support.hostile import contents, objects, only_sentences, texts, values, written

UNET = "model.diffusion_model.input_blocks.0.0.weight"
NAMES = (
    "__metadata__", UNET, "first_stage_model.x", "cond_stage_model.transformer.x", "lora_unet_a_attn2_to_k.alpha",
    "lora_unet_a_attn2_to_k.lora_down.weight", "lora_unet_a_attn2_to_k.lora_up.weight", "hada_w1_a",
)  # fmt: skip
METADATA = ("ss_resolution", "modelspec.resolution", "ss_dataset_dirs", "modelspec.trigger_phrase", "ss_seed",
            "lora_adapter_metadata", "modelspec.prediction_type", "ss_base_model_version", "ss_clip_skip")  # fmt: skip
rows = st.fixed_dictionaries({
    "dtype": st.sampled_from(["F32", "F16", "F8_E4M3", "U64", "BOOL", "X", "", 5]),
    "shape": st.one_of(values, st.lists(st.integers(-1, 4), max_size=4)),
    "data_offsets": st.one_of(values, st.just([0, 16]), st.just([0, 4]), st.lists(st.integers(-1, 16), max_size=3)),
})  # fmt: skip
headers = st.one_of(
    contents(*NAMES),
    st.dictionaries(st.sampled_from(NAMES), st.one_of(rows, values), max_size=4).map(written),
    st.dictionaries(st.sampled_from(METADATA), st.one_of(texts, values.map(str)), max_size=4).map(
        lambda metadata: written({"__metadata__": metadata})
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def safetensors(path: Path, header: bytes, length: int | None, data: bytes) -> Path:
    declared = len(header) if length is None else length
    path.write_bytes(declared.to_bytes(8, "little") + header + data)
    return path


lengths = st.sampled_from([None, None, None, 0, 7, 2**40, 2**63, 100_000_000])
data = st.sampled_from([b"", b"\0" * 4, b"\0" * 16, b"\xff" * 16])


@given(headers, lengths, data)
def test_lora_files(folder: Path, header: bytes, length: int | None, data: bytes) -> None:
    path = safetensors(folder / "fox.safetensors", header, length, data)
    safetensors(folder / "fox-000002.safetensors", header, length, data)
    for read in (read_header, read_lora, read_trigger, read_resolution, saved_points):
        with only_sentences():
            read(path)


@given(headers, lengths, data)
def test_checkpoints(folder: Path, header: bytes, length: int | None, data: bytes) -> None:
    with only_sentences():
        detect(safetensors(folder / "model.safetensors", header, length, data))


def pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


pickles = st.one_of(st.binary(max_size=60), values.map(pickled), st.just(pickled({"x": torch.ones(2)})[:200]))


@given(pickles)
def test_old_checkpoints(folder: Path, content: bytes) -> None:
    (folder / "model.ckpt").write_bytes(content)
    with only_sentences():
        detect(folder / "model.ckpt")


states = st.one_of(
    pickles,
    st.builds(
        lambda state, position, identity: pickled({
            "format": 1, "parts": {}, "network": {}, **state, "position": written(position).decode(),
            "identity": written(identity).decode(),
        }),
        objects("format", "network", "parts"), objects("epoch", "group", "step", "losses", "saved"),
        objects("config", "dataset", "model", "processes"),
    ),
)  # fmt: skip


@given(states)
def test_states(folder: Path, content: bytes) -> None:
    (folder / "state.pt").write_bytes(content)
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    parts = {"optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)}
    identity = {"config": RunConfig().to_dict(), "dataset": "d", "model": "m", "processes": 1}
    with only_sentences():
        load_state(folder / "state.pt", module, parts, identity)  # type: ignore[arg-type]


@given(contents("activation text", "preferred weight", "sd version", "notes", "lora_trainer", "x"))
def test_cards(folder: Path, content: bytes) -> None:
    card = folder / "card.json"
    card.write_bytes(content)
    lora = safetensors(folder / "card.safetensors", b'{"__metadata__":{}}', None, b"")
    with only_sentences():
        read_activation_text(lora)
        read_trigger(lora)
        written = write_card(lora, trigger="fox", preferred_weight=0.8, family=SD1)
        if written.json is None:
            assert card.read_bytes() == content


FACTS = ("config", "base_model", "seed", "steps", "end", "dataset", "trigger", "forgotten", "notices", "lora_dir")


@given(st.lists(contents("step", "loss", "seconds", "baseline"), max_size=6), contents(*FACTS))
def test_logs_and_runs(folder: Path, lines: list[bytes], run: bytes) -> None:
    place = RunFolder(folder, "run")
    place.prepare()
    place.log.write_bytes(b"\n".join(lines))
    place.run.write_bytes(run)
    with only_sentences():
        loss_curve(read_log(place.log))
        read_run(place.run)
        Paces().like(folder, RunConfig(), "x")
        (entry,) = list_runs(folder)
        assert json.dumps(entry.to_dict()) and entry.line
        details(folder, entry)
        place.start_log(3)
        place.read_run()


@given(contents("verdict", "recommended", "images", "trigger", "base_model"))
def test_reports_in_the_list(folder: Path, report: bytes) -> None:
    (folder / "tested").mkdir(exist_ok=True)
    (folder / "tested/report.json").write_bytes(report)
    assert any(entry.name == "tested" and json.dumps(entry.to_dict()) for entry in list_runs(folder))


ROWS = ("path", "prompt", "seed", "strength", "file", "label", "verdict", "kind", "infotext")


@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(ROWS, values)), max_size=4),
    st.lists(objects(*ROWS), max_size=3), objects("file", "strength"),
    st.lists(contents("one", "two", "winner"), max_size=3),
)  # fmt: skip
def test_reports_that_are_compared(
    folder: Path, images: list[Any], epochs: list[Any], best: dict[str, Any], votes: list[bytes]
) -> None:
    (folder / "tested").mkdir(exist_ok=True)
    report = {"images": images, "epochs": epochs, "recommended": best, "lora": "a.safetensors", "trigger": "x"}
    (folder / "tested/report.json").write_bytes(written(report))
    (folder / "votes.jsonl").write_bytes(b"\n".join(votes))
    with only_sentences():
        found = sides(folder)
        assert all(one.label for one in found)
        for one in found[:2]:
            tally(folder, one, found[0])
            pairs(one, found[0])


@given(st.lists(contents("step", "epoch", "gain", "drift"), max_size=6))
def test_what_was_learned(folder: Path, lines: list[bytes]) -> None:
    path = folder / "learned.jsonl"
    path.write_bytes(b"\n".join(lines))
    with only_sentences():
        assert json.dumps([one.step for one in read_learned(path)])
        learned_chart(list(read_learned(path)))


@given(
    st.one_of(
        contents("version", "entries", "held", "next_id"),
        st.lists(objects("id", "name", "state", "config", "dataset", "places", "typed", "test"), max_size=3).map(
            lambda rows: written({"version": 1, "entries": [{"id": 1, **row} for row in rows]})
        ),
    )
)
def test_queues(folder: Path, content: bytes) -> None:
    queue = Queue(folder)
    queue.path.write_bytes(content)
    with only_sentences():
        json.dumps(queue.read().to_dict())
        queue.hold()
        queue.take()
        assert queue.read().held


@given(texts)
def test_names_of_loras(folder: Path, name: str) -> None:
    with only_sentences():
        assert find_lora(name, folder).parent == folder
