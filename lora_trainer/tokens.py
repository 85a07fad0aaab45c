"""CLIP's vocabulary: from a text to its tokens.

All of SD 1.x, SD 2.x and SDXL read captions with CLIP's byte-pair vocabulary of 49,408 tokens. Texts are literal: no
weights, no special tokens.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY_FOLDER = Path(__file__).parent / "demo" / "clip"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
PLAIN_QUOTES = {"‘": "'", "’": "'", "“": '"', "”": '"'}


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    files = (str(VOCABULARY_FOLDER / "vocab.json"), str(VOCABULARY_FOLDER / "merges.txt"))
    vocabulary, merges = models.BPE.read_file(*files)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    quotes = [normalizers.Replace(curly, plain) for curly, plain in PLAIN_QUOTES.items()]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *quotes, normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return tokenizer


def tokenise(text: str) -> list[int]:
    """The tokens of a literal text, without start and end."""
    return list(_tokenizer().encode(text, add_special_tokens=False).ids)


def longer_than(text: str, tokens: int) -> bool:
    """Whether a text has more than so many tokens; the vocabulary is read only if its length leaves that open."""
    return len("".join(text.split()).encode("utf-8", "replace")) > tokens and len(tokenise(text)) > tokens


def beyond(text: str, tokens: int) -> str:
    """What of a literal text comes after so many tokens; "" if it is no longer than that."""
    return counted(text, tokens)[1]


def counted(text: str, tokens: int) -> tuple[int, str]:
    """How many tokens a literal text has, and what of it comes after so many; "" if it is no longer than that."""
    offsets = _tokenizer().encode(text, add_special_tokens=False).offsets
    return len(offsets), text[offsets[tokens][0] :] if len(offsets) > tokens else ""
