"""Values that nobody means to send: what files and requests may hold all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st

from lora_trainer.errors import LoraTrainerError

LONGEST_MESSAGE = 1500  # characters; a sentence may list all choices, but no value whole

numbers = st.one_of(
    st.integers(-5, 5000),
    st.sampled_from([10**400, -(10**99), 2**63, 2**64 - 1, 10**18]),
    st.floats(allow_nan=True, allow_infinity=True),
)
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from([
        "", " ", "9" * 5000, "1e999", "-1e999", "nan", "inf", "²", "١٢", "\0", "\ud800", "~nobody/x", "../x", "/etc",
        "x" * 5000, "a" * 300, "[" * 3000, "(" * 3000, "1," * 3000, "a=" + "9" * 5000, "a=[[[1]]]", "512,512", "1x2",
        "true", "None", "{}", "'", '"', "\\", "%s", "<lora:x:1>", "<lora:x:9e999>", "\r\n", "\u2028",
    ]),
)  # fmt: skip
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(texts, st.text(max_size=3)), inner, max_size=4)
    ),
    max_leaves=8,
)


def nested(depth: int) -> str:
    """JSON that opens a list in a list in a list."""
    return "[" * depth + "]" * depth


def objects(*names: str) -> Any:
    """Objects with some of the names, and hostile values."""
    return st.dictionaries(st.one_of(st.sampled_from(names), texts), values, max_size=6)


def written(value: Any) -> bytes:
    """A value as JSON, with everything that Python writes and the standard doesn't know."""
    return json.dumps(value).encode()


def contents(*names: str) -> Any:
    """The content of a file that should hold a JSON object."""
    return st.one_of(
        objects(*names).map(written),
        values.map(written),
        st.binary(max_size=40),
        st.sampled_from([
            b"", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b"9" * 5000, b'{"a": ' + b"9" * 5000 + b"}",
            nested(70).encode(), nested(5000).encode(), nested(100_000).encode(), b'{"a": ' * 3000 + b"1" + b"}" * 3000,
            b"NaN", b"-Infinity", b'{"a": 1e999}', b'"\\ud800"', b'{"\\udfff": 1}',
        ]),
    )  # fmt: skip


@contextmanager
def only_sentences() -> Iterator[None]:
    """Nothing but our own errors may come out, each one line and no essay."""
    try:
        yield
    except LoraTrainerError as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < LONGEST_MESSAGE, text[:3000]
        text.encode("utf-8", "backslashreplace")
