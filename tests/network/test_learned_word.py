"""Pivotal tuning: whose places the vectors take, what is trained, and the file as AUTOMATIC1111 reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.hosts.base import TextEncoder
from lora_trainer.network import embedding
from lora_trainer.network.control import Control
from lora_trainer.network.embedding import learned_word
from lora_trainer.network.file import read_lora, write_lora
from lora_trainer.network.network import LoraNetwork

Make = Callable[[str], Any]
WORD = [7, 9]  # tokens
OPTIONS = {"network_dim": 2, "pivotal_tuning": True, "network_train_unet_only": True}


@pytest.fixture(autouse=True)
def small_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "tokenise", lambda word: {"zorbo": WORD, "man": [3]}.get(word, []))


def network(model: Any, **options: Any) -> LoraNetwork:
    config = RunConfig().replace(**{**OPTIONS, **options})
    return LoraNetwork.create(model.unet, model.encoders, model.info, config, 1, "zorbo")


def words(made: LoraNetwork) -> list[Any]:
    return [module for module in made.modules if module.label == "learned word"]


def test_the_vectors_stand_where_the_words_tokens_stand_and_nowhere_else() -> None:
    table = torch.nn.Embedding(12, 4).requires_grad_(False)
    tower = torch.nn.ModuleDict({"token_embedding": table})
    (made,) = learned_word("zorbo", [TextEncoder(tower, "lora_te", "transformers")], Control())
    rows = torch.tensor([[0, 7, 9, 7, 9, 9], [7, 7, 9, 1, 9, 7], [9, 7, 1, 9, 7, 2]])
    made.attach()
    assert torch.equal(table(rows), table.weight[rows]), "at first they are the table's own"
    made.vectors.data.copy_(torch.tensor([[100.0] * 4, [200.0] * 4]))
    expected = table.weight[rows].clone()
    for row, column in ((0, 1), (0, 3), (1, 1)):
        expected[row, column], expected[row, column + 1] = 100.0, 200.0
    assert torch.equal(table(rows), expected)
    assert torch.equal(table(torch.tensor([[7]])), table.weight[7][None, None]), "shorter than the word"
    made.control.enabled = False
    assert torch.equal(table(rows), table.weight[rows])
    made.control.enabled = True
    made.detach()
    assert torch.equal(table(rows), table.weight[rows]) and not table.weight.requires_grad


@pytest.mark.parametrize(("family", "parts"), [("sd1", ["string_to_param.*"]), ("sdxl", ["clip_l", "clip_g"])])
def test_a_word_is_trained_and_comes_back_from_the_file(
    tiny: Make, family: str, parts: list[str], tmp_path: Path
) -> None:
    model = tiny(family)
    model.tokens[:, 3:5] = torch.tensor(WORD)
    before = [{name: w.clone() for name, w in encoder.module.state_dict().items()} for encoder in model.encoders]
    made = network(model)
    assert made.count == len(made.modules) - len(parts), "what other programs apply"
    groups = made.parameter_groups(RunConfig().replace(**OPTIONS, embedding_lr=0.5, learning_rate=1e-3))
    assert [(group["name"], group["lr"]) for group in groups] == [("embedding", 0.5), ("unet", 1e-3)]
    plain = [model.encode(i) for i in range(len(model.encoders))]
    with made:
        outputs = [model.encode(i) for i in range(len(model.encoders))]
        assert all(torch.equal(a, b) for a, b in zip(outputs, plain, strict=True))
        sum(output.square().sum() for output in outputs).backward()
        torch.optim.SGD(groups).step()
        changed = [model.encode(i).detach() for i in range(len(model.encoders))]
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in zip(changed, plain, strict=True))
    for encoder, old in zip(model.encoders, before, strict=True):
        assert all(torch.equal(w, old[name]) for name, w in encoder.module.state_dict().items())

    path = tmp_path / "a.safetensors"
    write_lora(path, made.state_dict(), {})
    file = read_lora(path)
    assert set(file.words) == {f"bundle_emb.zorbo.{part}" for part in parts}
    assert all(tensor.shape[0] == len(WORD) for tensor in file.words.values())
    again = LoraNetwork.from_file(path, model.unet, model.encoders, model.info)
    resumed = network(model)
    resumed.load_state_dict(made.state_dict())
    continued = network(model, network_weights=str(path))
    for other in (again, resumed, continued):
        assert other.notices == []
        with other, other.inference(0.5), torch.no_grad():
            for i, expected in enumerate(changed):
                assert torch.equal(model.encode(i), expected), "whole at whatever strength, as AUTOMATIC1111 has it"
    if family == "sd1":  # OneTrainer calls the part of the only text encoder clip_l
        renamed = {name.replace("string_to_param.*", "clip_l"): tensor for name, tensor in made.state_dict().items()}
        write_lora(tmp_path / "b.safetensors", renamed, {})
        other = LoraNetwork.from_file(tmp_path / "b.safetensors", model.unet, model.encoders, model.info)
        assert torch.equal(words(other)[0].vectors, words(made)[0].vectors)
    without = network(model, network_weights=str(path), pivotal_tuning=False)
    assert words(without) == [] and "isn't taken over" in without.notices[0]
    other = RunConfig().replace(**OPTIONS, network_weights=str(path))
    renamed = LoraNetwork.create(model.unet, model.encoders, model.info, other, 1, "man")
    assert words(renamed)[0].tokens == (3,)
    assert "zorbo, isn't taken over: the trigger word is man" in renamed.notices[0]


def test_a_norm_limit_moves_it_towards_the_table(tiny: Make) -> None:
    (word,) = words(network(tiny("sd1")))
    table = word.vectors.detach().clone()
    word.vectors.data.add_(1.0)
    assert float(word.norm()) == pytest.approx(float((word.vectors.detach() - table).norm()))
    word.shrink(torch.tensor(0.25))
    torch.testing.assert_close(word.vectors.detach(), table + 0.25)


def test_what_cant_be_learned_is_refused(tiny: Make, tmp_path: Path) -> None:
    model, other = tiny("sd1"), tiny("sdxl")
    with pytest.raises(ConfigError, match="can't learn"):
        learned_word("…", model.encoders, Control())
    path = tmp_path / "a.safetensors"
    tensors = network(model).state_dict()
    for wrong, words_of in ((torch.ones(2, 5), "doesn't fit"), (torch.full((2, 12), torch.nan), "doesn't fit")):
        write_lora(path, {**tensors, "bundle_emb.zorbo.string_to_param.*": wrong}, {})
        with pytest.raises(FileError, match=words_of):
            LoraNetwork.from_file(path, model.unet, model.encoders, model.info)
    lora = {name: tensor for name, tensor in network(other).state_dict().items() if "clip_g" not in name}
    write_lora(path, lora, {})
    with pytest.raises(FileError, match="no clip_g for its learned word"):
        LoraNetwork.from_file(path, other.unet, other.encoders, other.info)
    for options, sentence in (
        ({"optimizer_type": "Prodigy"}, "finds one rate"), ({"embedding_lr": 0}, "would learn nothing"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=sentence):
            RunConfig().replace(pivotal_tuning=True, **options)
