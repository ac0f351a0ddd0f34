"""JSON lines: their text is the same for equal values, and no reader splits them elsewhere."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Any

import numpy as np

# The fewest digits from which every value of a type can be parsed again.
DIGITS = {2: 5, 4: 9}
# Line separators of Unicode, at which str.splitlines() and other readers of lines split.
SEPARATORS = {"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def value_text(value: Any) -> str:
    """JSON of a value, which may be one of Arrow: times become ISO 8601, bytes Base64, NaN null, others strings."""
    if isinstance(value, (str, int)):
        return _encode(value)
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def row_text(kept: Mapping[str, Any]) -> str:
    """The members of an object, without braces."""
    return ",".join(f"{_encode(name)}:{value_text(value)}" for name, value in kept.items())


def vector_texts(vectors: Any) -> list[str]:
    """JSON of each vector. Its numbers parse as the same float32 or float16."""
    number = f"%.{DIGITS[vectors.dtype.itemsize]}g"
    template = "[" + ",".join([number] * vectors.shape[1]) + "]"
    return [template % tuple(vector) for vector in vectors.tolist()]


def result_texts(results: Any) -> list[str]:
    return vector_texts(results) if isinstance(results, np.ndarray) else [_encode(tokens) for tokens in results]


def encode_lines(lines: Sequence[str]) -> bytes:
    text = "".join(f"{line}\n" for line in lines)
    if not text.isascii():
        for separator, escape in SEPARATORS.items():
            text = text.replace(separator, escape)
    # Columns to keep may contain unpaired surrogates, of which the escape is also one of JSON.
    return text.encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
