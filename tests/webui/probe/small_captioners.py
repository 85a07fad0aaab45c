"""The WebUI's own captioners with small random weights in their real classes: the models can't be had here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from modules import deepbooru, deepbooru_model, paths, shared

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "red", "ball", "in", "park")
SMALL = {
    "architectures": ["BertModel"], "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2,
    "num_hidden_layers": 1, "vocab_size": len(WORDS) + 2, "encoder_width": 768, "add_cross_attention": True,
    "max_position_embeddings": 64, "pad_token_id": 0, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "type_vocab_size": 2,
}  # fmt: skip


def install() -> None:
    """Put them where the WebUI finds its models. BLIP's tokenizer comes from a file instead of the network."""
    models = Path(paths.models_path)
    folder = models / "BLIP"
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "med_config.json").write_text(json.dumps(SMALL))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    shared.interrogator.create_fake_fairscale()
    import models.blip as blip  # the WebUI's repository

    blip.init_tokenizer = lambda: _tokenizer(folder / "vocab.txt")
    blip.create_vit = lambda vit, size, *rest: _vision(blip, size)
    paths.paths["BLIP"] = str(folder)
    torch.manual_seed(0)
    made = blip.blip_decoder(image_size=384, vit="base", med_config=str(folder / "configs" / "med_config.json"))
    torch.save({"model": made.state_dict()}, folder / "small.pth")
    (models / "torch_deepdanbooru").mkdir(exist_ok=True)
    (models / "torch_deepdanbooru" / "small.pt").write_bytes(b"")  # the class is of one size; its weights stay random
    deepbooru.model.model = deepbooru_model.DeepDanbooruModel().eval()
    deepbooru.model.model.tags = ["rating:safe", "red_ball", "long_hair"]


def _tokenizer(vocabulary: Path) -> Any:
    from transformers import BertTokenizer

    tokenizer = BertTokenizer(str(vocabulary))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    tokenizer.enc_token_id = tokenizer.additional_special_tokens_ids[0]
    return tokenizer


def _vision(blip: Any, size: int) -> Any:
    return blip.VisionTransformer(img_size=size, patch_size=96, embed_dim=32, depth=1, num_heads=2), 32


def state() -> dict[str, Any]:
    """Where they are now."""
    blip = shared.interrogator.blip_model
    return {
        "blip": str(next(blip.parameters()).device) if blip is not None else None,
        "clip": shared.interrogator.clip_model is not None,
        "booru": str(next(deepbooru.model.model.parameters()).device),
    }
