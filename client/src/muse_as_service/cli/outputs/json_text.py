"""JSON lines: their text is the same for equal values, and no reader splits them elsewhere."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Any

import numpy as np

from .number_text import vector_texts

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


def result_texts(results: Any) -> list[bytes]:
    if isinstance(results, np.ndarray):
        return vector_texts(results)
    return [encode(_encode(tokens)) for tokens in results]


def encode_lines(lines: Sequence[str]) -> bytes:
    return encode("".join(f"{line}\n" for line in lines))


def encode(text: str) -> bytes:
    """UTF-8, in which line separators of Unicode are escapes."""
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
