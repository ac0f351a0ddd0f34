"""Checks the sentences that callers pass."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Set
from typing import Any, Protocol, Union


class _ArrowColumn(Protocol):
    def to_pylist(self) -> list[Any]: ...


class _Column(Protocol):
    def tolist(self) -> Any: ...


class _PolarsColumn(Protocol):
    def to_list(self) -> list[Any]: ...


Sentences = Union[Iterable[str], _ArrowColumn, _Column, _PolarsColumn]
"""Strings in an order: also columns of pandas, polars, numpy and Arrow, whose items may be scalars of their own."""
EXPECTED = "pass a list, a generator, a numpy array, a pandas or polars Series or an Arrow array of strings"


def check(sentences: Sentences) -> list[str]:
    """Returns the sentences as a list.

    Raises `TypeError` if they are no sequence of strings with an order, and `ValueError` if one cannot be encoded as
    UTF-8.
    """
    checked = items(sentences)
    for index, sentence in enumerate(checked):
        if not isinstance(sentence, str):
            raise TypeError(f"sentences[{index}] must be a string, not {_described(sentence)}")
        check_text(sentence, index)
    return checked


def check_text(sentence: str, index: int) -> None:
    """Raises `ValueError` if the sentence cannot be encoded as UTF-8."""
    if sentence.isascii():
        return
    try:
        sentence.encode()
    except UnicodeEncodeError as failure:
        where = f"character {failure.start} of sentences[{index}]"
        raise ValueError(f"{where} is an unpaired surrogate, which is not text: remove it") from None


def items(sentences: Any) -> list[Any]:
    """Returns the items of a sequence as Python objects. Raises `TypeError` for tables, mappings, sets and scalars."""
    _check_container(sentences)
    # pyarrow, then numpy and pandas, then polars: their own conversions return strings instead of scalars of theirs.
    for method in "to_pylist", "tolist", "to_list":
        convert = getattr(sentences, method, None)
        if callable(convert):
            converted = convert()
            if isinstance(converted, list):
                return converted
    try:
        iterator = iter(sentences)
    except TypeError:
        kind = type(sentences).__name__
        raise TypeError(f"sentences must be a sequence of strings, not {kind}: {EXPECTED}") from None
    return list(iterator)


def is_missing(value: Any) -> bool:
    """Whether the value stands for a missing one: None, NaN, pandas.NA or pandas.NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


def _check_container(sentences: Any) -> None:
    kind = type(sentences).__name__
    if isinstance(sentences, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"sentences must be a list of strings, not one {kind}: write [sentence]")
    # Of pandas, polars, Arrow, Spark, and data sets of Hugging Face. The type is examined, because the property of a
    # lazy table may compute.
    if hasattr(type(sentences), "columns") or hasattr(type(sentences), "column_names"):
        raise TypeError(f"sentences is a table ({kind}): pass one column, such as table['sentence']")
    if isinstance(sentences, Mapping):
        raise TypeError(f"sentences is a mapping ({kind}): pass list(sentences.values()), or its keys as a list")
    # The keys of a dictionary have an order.
    if isinstance(sentences, Set) and not isinstance(sentences, KeysView):
        raise TypeError(f"sentences is a {kind}, which has no order: pass a list, such as sorted(sentences)")
    if hasattr(type(sentences), "readline"):
        # Its lines contain their line ends, which would change the vectors.
        advice = "[line.rstrip('\\n') for line in file]"
        raise TypeError(f"sentences is a file ({kind}): pass its lines without line ends, such as {advice}")
    dimensions = getattr(sentences, "ndim", 1)
    if dimensions != 1:
        raise TypeError(f"sentences is an array of {dimensions} dimensions: pass one with 1 dimension")


def _described(value: Any) -> str:
    kind = type(value).__name__
    if is_missing(value):
        return f"a missing value ({value}): remove or fill it"
    if isinstance(value, (bytes, bytearray)):
        return f"{kind}: decode it, such as with .decode('utf-8')"
    return kind
