"""Captioners' models in small, with random weights: what a folder of a user's holds, without a download."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "of", "red", "cat", "park", "in")


def make_blip(folder: Path) -> Path:
    """BLIP with 32-dimensional random weights."""
    from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BlipConfig(
        text_config={
            **size, "vocab_size": len(WORDS), "encoder_hidden_size": 32, "bos_token_id": 5, "eos_token_id": 3,
            "pad_token_id": 0, "sep_token_id": 3, "max_position_embeddings": 64,
        },
        vision_config={**size, "image_size": 32, "patch_size": 16}, projection_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    return folder


TAGS = (("1girl", "0"), ("red_hair", "0"), ("^_^", "0"), ("some_name", "4"), ("general", "9"), ("blue", "0"))


def make_wd14(folder: Path, side: int = 16) -> Path:
    """A tagger whose first outputs are fixed, and whose last one is the share of blue in the image."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True)
    fixed = np.array([[0.9, 0.8, 0.3, 0.7, 0.99]], dtype=np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Gather", ["means", "first"], ["blue"], axis=1),  # BGR
        helper.make_node("Div", ["blue", "white"], ["share"]),
        helper.make_node("Concat", ["fixed", "share"], ["likely"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.array([0]), "first"), numpy_helper.from_array(np.float32(255), "white"),
        numpy_helper.from_array(fixed, "fixed"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "tagger", [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, side, side, 3])],
        [helper.make_tensor_value_info("likely", TensorProto.FLOAT, [1, len(TAGS)])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    with (folder / "selected_tags.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tag_id", "name", "category", "count"])
        rows.writerows([n, name, category, 1] for n, (name, category) in enumerate(TAGS))
    return folder


def make_florence(folder: Path) -> Path:
    """Florence-2 with small random weights; needs a transformers that has it."""
    from transformers import (
        BartTokenizerFast,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    folder.mkdir(parents=True)
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "Ġcat", "Ġred"]
    tokenizer = BartTokenizerFast(
        vocab={word: n for n, word in enumerate(words)}, merges=[], extra_special_tokens={"image_token": "<image>"}
    )
    images = CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    config = Florence2Config(
        text_config={
            "d_model": 16, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "decoder_layers": 1,
            "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "encoder_layers": 1, "vocab_size": len(tokenizer),
        },
        vision_config={
            "depths": [1, 1], "embed_dim": [8, 16], "num_groups": [2, 2], "num_heads": [2, 2], "patch_padding": [3, 1],
            "patch_prenorm": [False, True], "patch_size": [7, 3], "patch_stride": [8, 4], "projection_dim": 16,
            "window_size": 4,
        },
        image_token_id=tokenizer.image_token_id,
    )  # fmt: skip
    torch.manual_seed(3)  # with this one it has something to say
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    return folder
