"""CLIP: from tokens to what conditions the UNet. The families differ in the token that fills up short captions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from lora_trainer.errors import ConfigError
from lora_trainer.hosts.standalone.architecture import CONTEXT, END_TOKEN, START_TOKEN, VOCABULARY, TextLayout
from lora_trainer.tokens import tokenise

CHUNK = CONTEXT - 2  # tokens between start and end


def token_rows(tokens: Sequence[int], max_token_length: int, pad: int) -> list[list[int]]:
    """Cut tokens into rows of 77: start, up to 75 tokens, end, padding; the rest is left out."""
    rows = []
    for begin in range(0, max_token_length, CHUNK):
        part = list(tokens[begin : min(begin + CHUNK, max_token_length)])
        rows.append([START_TOKEN, *part, END_TOKEN, *[pad] * (CHUNK - len(part))])
    return rows


class ClipTextEncoder(nn.Module):
    """A CLIP text encoder; ``text_model`` holds the transformer in every version of transformers.

    Args:
        layout: its sizes and which of its outputs is used.
    """

    def __init__(self, layout: TextLayout) -> None:
        super().__init__()
        config = CLIPTextConfig(
            vocab_size=VOCABULARY, hidden_size=layout.hidden_size, intermediate_size=layout.intermediate_size,
            num_hidden_layers=layout.layers, num_attention_heads=layout.heads, hidden_act=layout.activation,
            max_position_embeddings=CONTEXT, projection_dim=layout.projection or layout.hidden_size,
            bos_token_id=START_TOKEN, eos_token_id=END_TOKEN, pad_token_id=1,
        )  # fmt: skip
        model = CLIPTextModel(config)
        self.text_model = getattr(model, "text_model", model)  # since transformers 5.6 the model is the transformer
        self.text_projection = (
            nn.Linear(layout.hidden_size, layout.projection, bias=False) if layout.projection else None
        )
        self.layout = layout

    def forward(self, rows: Tensor, clip_skip: int = 1) -> tuple[Tensor, Tensor | None]:
        """Encode token rows [N, 77] to states [N, 77, C] and, if there is a projection, pooled [N, P].

        ``clip_skip`` n takes the n-th last layer (SD 1.x only; the others have their fixed layer).
        """
        result = self.text_model(input_ids=rows, output_hidden_states=True)
        states, last = result.hidden_states, result.last_hidden_state
        output = -clip_skip if self.layout.clip_skip else self.layout.output
        if clip_skip > self.layout.layers and self.layout.clip_skip:
            raise ConfigError(f"clip_skip {clip_skip} is too high: the text encoder has {self.layout.layers} layers.")
        if output == -1 and self.layout.final_norm:
            return last, None
        chosen = states[output]
        if self.layout.final_norm:
            chosen = self.text_model.final_layer_norm(chosen)
        if self.text_projection is None:
            return chosen, None
        first_end = (rows == END_TOKEN).int().argmax(dim=-1)
        return chosen, self.text_projection(last[torch.arange(len(rows), device=rows.device), first_end])

    def encode(self, captions: Sequence[str], max_token_length: int, clip_skip: int) -> tuple[Tensor, Tensor | None]:
        """Encode captions to [B, n·75 + 2, C] (one start, one end) and pooled [B, P] of their first 75 tokens."""
        rows = [token_rows(tokenise(text), max_token_length, self.layout.pad) for text in captions]
        device = self.text_model.final_layer_norm.weight.device
        batch = torch.tensor(rows, device=device)  # [B, n, 77]
        states, pooled = self(batch.flatten(0, 1), clip_skip)
        states = states.unflatten(0, batch.shape[:2])  # [B, n, 77, C]
        inner = states[:, :, 1:-1].flatten(1, 2)
        joined = torch.cat([states[:, 0, :1], inner, states[:, -1, -1:]], dim=1)
        return joined, None if pooled is None else pooled.unflatten(0, batch.shape[:2])[:, 0]
