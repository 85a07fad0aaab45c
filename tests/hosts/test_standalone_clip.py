from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora_trainer.errors import ConfigError
from lora_trainer.hosts.standalone.clip import token_rows
from lora_trainer.hosts.standalone.detect import detect
from lora_trainer.hosts.standalone.parts import build_parts
from lora_trainer.tokens import VOCABULARY_FOLDER, tokenise
from tests.support.tiny_checkpoints import make_modules

Checkpoint = Callable[[str], Path]
BOS, EOS = 49406, 49407


def test_tokens_are_clips() -> None:
    assert tokenise("a photo of a cat") == [320, 1125, 539, 320, 2368]  # published with CLIP
    assert tokenise("") == tokenise("  \n ") == []


def test_tokens_are_those_of_transformers() -> None:
    from transformers import CLIPTokenizerFast

    theirs = CLIPTokenizerFast.from_pretrained(str(VOCABULARY_FOLDER))
    texts = ["Hello,  World's 3,14 trees!!", "sks_dog (masterpiece:1.2), [x]", "naïve café 猫 🎨", "don't\twe'll"]
    for text in texts:
        assert [BOS, *tokenise(text), EOS] == theirs(text).input_ids


def test_texts_are_literal() -> None:
    assert EOS not in tokenise("<|endoftext|>") and BOS not in tokenise("<|startoftext|>")
    assert tokenise("an artist’s “red”") == tokenise('an artist\'s "red"')


def test_the_vocabulary_is_the_published_one() -> None:
    import json

    vocabulary = json.loads((VOCABULARY_FOLDER / "vocab.json").read_text(encoding="utf-8"))
    assert len(vocabulary) == 49408 and sorted(vocabulary.values()) == list(range(49408))
    assert vocabulary["<|startoftext|>"] == BOS and vocabulary["<|endoftext|>"] == EOS


@pytest.mark.parametrize("pad", [EOS, 0])
def test_rows(pad: int) -> None:
    assert token_rows([5, 6], 75, pad) == [[BOS, 5, 6, EOS, *[pad] * 73]]
    assert token_rows([], 150, pad) == [[BOS, EOS, *[pad] * 75]] * 2
    many = list(range(1, 101))
    assert token_rows(many, 75, pad) == [[BOS, *many[:75], EOS]]
    assert token_rows(many, 150, pad) == [[BOS, *many[:75], EOS], [BOS, *many[75:], EOS, *[pad] * 50]]
    assert [len(row) for row in token_rows(many * 4, 225, pad)] == [77] * 3


def reference_rows(tokens: list[int], length: int, pad: int) -> list[list[int]]:
    """sd-scripts' way: pad the whole caption to length + 2, cut, then mend starts and ends of the pieces."""
    whole = [BOS, *tokens[:length], EOS]
    whole += [pad] * (length + 2 - len(whole))
    rows = []
    for begin in range(1, length + 1, 75):
        row = [whole[0], *whole[begin : begin + 75], whole[-1]]
        if pad != EOS:
            if row[-2] not in (EOS, pad):
                row[-1] = EOS
            if row[1] == pad:
                row[1] = EOS
        rows.append(row)
    return rows


@pytest.mark.parametrize("pad", [EOS, 0])
@pytest.mark.parametrize("count", [0, 1, 74, 75, 76, 149, 150, 151, 225, 300])
@pytest.mark.parametrize("length", [75, 150, 225])
def test_rows_against_sd_scripts(count: int, length: int, pad: int) -> None:
    tokens = [1000 + n for n in range(count)]
    assert token_rows(tokens, length, pad) == reference_rows(tokens, length, pad)


def reference(model: object, rows: list[list[int]]) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    result = model(torch.tensor(rows), output_hidden_states=True)  # type: ignore[operator]
    ends = torch.tensor([row.index(EOS) for row in rows])
    last = result.last_hidden_state
    return result.hidden_states, last, last[torch.arange(len(rows)), ends]


CAPTIONS = ["a red cat, sitting on a mat", "word " * 100]


@pytest.mark.parametrize(("kind", "pad"), [("sd1", EOS), ("sd2", 0)])
def test_context_of_sd1_and_sd2(tiny_checkpoint: Checkpoint, kind: str, pad: int) -> None:
    parts = build_parts(detect(tiny_checkpoint(kind)))
    encoder = parts.text_encoders[0].float()
    theirs = make_modules(kind).text_encoders[0]
    for length, skip in ((75, 1), (150, 2)):
        ours, pooled = encoder.encode(CAPTIONS, length, skip)
        assert pooled is None and ours.shape == (2, length + 2, 32)
        for caption, got in zip(CAPTIONS, ours, strict=True):
            states, last, _ = reference(theirs, reference_rows(tokenise(caption), length, pad))
            if skip == 2 and kind == "sd1":  # SD 2.x has its fixed layer
                norm = getattr(theirs, "text_model", theirs).final_layer_norm
                last = norm(states[-2])
            expected = torch.cat([last[0, :1], last[:, 1:-1].flatten(0, 1), last[-1, -1:]])
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_context_and_pooled_of_sdxl(tiny_checkpoint: Checkpoint) -> None:
    parts = build_parts(detect(tiny_checkpoint("sdxl")))
    modules = make_modules("sdxl")
    assert modules.projection is not None
    for caption in CAPTIONS:
        for length in (75,) if len(caption) < 50 else (150,):
            first, none = parts.text_encoders[0].float().encode([caption], length, 1)
            second, pooled = parts.text_encoders[1].float().encode([caption], length, 7)  # clip skip is not for SDXL
            assert none is None and pooled is not None
            for got, encoder, pad, layer in ((first, 0, EOS, 11), (second, 1, 0, 31)):
                states, _, ends = reference(
                    modules.text_encoders[encoder], reference_rows(tokenise(caption), length, pad)
                )
                state = states[layer]
                expected = torch.cat([state[0, :1], state[:, 1:-1].flatten(0, 1), state[-1, -1:]])
                torch.testing.assert_close(got[0], expected, atol=5e-5, rtol=1e-4)
            torch.testing.assert_close(pooled[0], modules.projection @ ends[0], atol=5e-5, rtol=1e-4)


def test_gradients_reach_the_layers(tiny_checkpoint: Checkpoint) -> None:
    encoder = build_parts(detect(tiny_checkpoint("sd1"))).text_encoders[0].float()
    layer = encoder.get_submodule("text_model.encoder.layers.3.self_attn.q_proj")
    change = torch.zeros(32, requires_grad=True)
    handle = layer.register_forward_hook(lambda module, args, output: output + change)
    try:
        context, _ = encoder.encode(["a cat"], 75, 1)
        context.square().sum().backward()
    finally:
        handle.remove()
    assert change.grad is not None and float(change.grad.abs().sum()) > 0
    assert all(weight.grad is None for weight in encoder.parameters())


def test_too_much_clip_skip_is_refused(tiny_checkpoint: Checkpoint) -> None:
    encoder = build_parts(detect(tiny_checkpoint("sd1"))).text_encoders[0].float()
    encoder.encode(["a"], 75, 12)
    with pytest.raises(ConfigError, match=r"clip_skip 13 .* 12 layers"):
        encoder.encode(["a"], 75, 13)
