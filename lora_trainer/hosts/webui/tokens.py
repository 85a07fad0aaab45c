"""The tokens of captions as literal text, cut into rows of 77 where a WebUI cuts its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lora_trainer.hosts.webui.options import setting

ROW = 75  # tokens of a row between start and end
USUAL_BACKTRACK = 20


def rows_of(encoder: Any, caption: str, count: int, backtrack: int) -> list[list[int]]:
    """The tokens of a caption in ``count`` rows of 77; what doesn't fit is left out.

    Args:
        backtrack: so many tokens after a comma move to the next row, rather than be torn from the rest.
    """
    rest = list(encoder.tokenize([caption])[0])
    rows = []
    for _ in range(count):
        part = rest[:ROW]
        if len(rest) > ROW and encoder.comma_token in part and rest[ROW] != encoder.comma_token:
            after = ROW - part[::-1].index(encoder.comma_token)
            part = part[:after] if 0 < ROW - (after - 1) <= backtrack else part
        rest = rest[len(part) :]
        rows.append([encoder.id_start, *part, *[encoder.id_end] * (ROW - len(part)), encoder.id_end])
    return rows


def token_rows(encoder: Any, captions: Sequence[str], max_token_length: int) -> Tensor:
    """[B, n, 77] tokens of captions; all get the same number of rows."""
    count = max(1, max_token_length // ROW)
    backtrack = int(setting("comma_padding_backtrack", USUAL_BACKTRACK))
    tokens = torch.asarray([rows_of(encoder, caption, count, backtrack) for caption in captions])
    if encoder.id_pad != encoder.id_end:  # SD 2 and SDXL's second encoder fill up with something else
        ends = tokens == encoder.id_end
        tokens[ends.cumsum(dim=-1) > 1] = encoder.id_pad
    return tokens
