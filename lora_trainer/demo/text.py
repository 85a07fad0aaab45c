"""The tiny text encoder with CLIP's real vocabulary.

The byte-pair file comes from the PyPI package open_clip_torch, as in openai/CLIP; both are under the MIT licence
(Copyright (c) 2021 OpenAI; Copyright (c) 2012-2021 Gabriel Ilharco, Mitchell Wortsman, Nicholas Carlini, Rohan Taori,
Achal Dave, Vaishaal Shankar, John Miller, Hongseok Namkoong, Hannaneh Hajishirzi, Ali Farhadi, Ludwig Schmidt).
"""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TOKENS = 77
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes, in the order of CLIP's vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in plain] + [chr(256 + n) for n in range(256 - len(plain))]


def write_tokenizer(folder: Path, source: Path | None = None) -> Path:
    """Write CLIP's vocabulary as a transformers tokenizer folder. ``source``: bpe_simple_vocab_16e6.txt.gz."""
    if source is None:
        spec = find_spec("open_clip")
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError("the byte-pair file is in the package open_clip_torch, which is not installed")
        source = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(source.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    symbols = byte_symbols()
    words = [*symbols, *(s + "</w>" for s in symbols), *("".join(m.split()) for m in merges), START, END]
    vocabulary = {word: index for index, word in enumerate(words)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    special = {k: v for k, v in settings.items() if k.endswith("_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", "utf-8")
    return folder


LAYOUT: dict[str, object] = {  # config.json of the CLIPTextModel: CLIP-L's in small
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 32,
    "intermediate_size": 128,
    "projection_dim": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": TOKENS,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-05,
    "attention_dropout": 0.0,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 1,
}


def write_text_config(folder: Path) -> None:
    """The text encoder's config.json beside the vocabulary."""
    (folder / "config.json").write_text(json.dumps(LAYOUT, indent=2) + "\n", "utf-8")


def make_text_encoder(seed: int) -> CLIPTextModel:
    """An untrained text encoder. Words that training never sees keep embeddings as long as those that it does, so that
    a LoRA can tell them apart."""
    torch.manual_seed(seed)
    model = CLIPTextModel(CLIPTextConfig(**LAYOUT))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "token_embedding" in name:
                parameter.normal_(0.0, 0.5)
            elif "position_embedding" in name:
                parameter.normal_(0.0, 0.1)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, 0.0, parameter.shape[1] ** -0.5 * 0.7)
            elif name.endswith("final_layer_norm.bias"):
                parameter.fill_(0.1)  # A1111's emphasis divides by the mean of the states, which must not be zero
    return model


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token numbers (len(texts), 77), padded with the end token as SD 1.x does."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt").input_ids
