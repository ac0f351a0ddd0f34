"""Parquet columns of all types, and the other columns that are kept with the sentences."""

from __future__ import annotations

import math
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import Bad, Expected, Rejected, check, json_line, parquet_bytes, reading

from muse_as_service.cli import Failure
from muse_as_service.cli.inputs import BadRow, Column, Options, open_inputs

WORDS = ["a", "über", "", "本"]
UTF8 = [word.encode() for word in WORDS]
NULL: list[Any] = ["a", None, "b"]
READ: Expected = ["a", Bad("row 2: 'sentence' is null, where a string is expected"), "b"]


def dictionary(values: Any) -> Any:
    return values.dictionary_encode()


def invalid_utf8(kind: Any) -> Any:
    """Strings that are not UTF-8, as other writers produce them."""
    return pa.array([b"a", b"\xff", b"b"], pa.binary()).view(kind)


class Type(NamedTuple):
    values: Any
    expected: Expected


TYPES = {
    "string": Type(pa.array(WORDS), WORDS),
    "large_string": Type(pa.array(WORDS, pa.large_string()), WORDS),
    "string_view": Type(pa.array(WORDS, pa.string_view()), WORDS),
    "dictionary": Type(dictionary(pa.array(WORDS)), WORDS),
    "dictionary-large": Type(dictionary(pa.array(WORDS, pa.large_string())), WORDS),
    "dictionary-binary": Type(dictionary(pa.array(UTF8, pa.binary())), WORDS),
    "binary": Type(pa.array(UTF8, pa.binary()), WORDS),
    "large_binary": Type(pa.array(UTF8, pa.large_binary()), WORDS),
    "binary_view": Type(pa.array(UTF8, pa.binary_view()), WORDS),
    "string-null": Type(pa.array(NULL), READ),
    "large_string-null": Type(pa.array(NULL, pa.large_string()), READ),
    "string_view-null": Type(pa.array(NULL, pa.string_view()), READ),
    "dictionary-null": Type(dictionary(pa.array(NULL)), READ),
    "binary-null": Type(pa.array([b"a", None, b"b"], pa.binary()), READ),
    "string-invalid": Type(invalid_utf8(pa.string()), ["a", Bad("row 2: 'sentence': byte 1 (0xff) is not UTF-8"), "b"]),
    "binary-invalid": Type(
        pa.array([b"a", b"caf\xe9", b"b"], pa.binary()),
        ["a", Bad("byte 4 (0xe9) is not UTF-8: convert the column to UTF-8"), "b"],
    ),
    "binary-utf-16": Type(pa.array(["a".encode("utf-16-le")], pa.binary()), [Bad("zero bytes, which are not text")]),
    "string-zero": Type(pa.array(["a\0b"]), ["a\0b"]),
    "long": Type(pa.array(["x" * 262_145, "b"]), [Bad("row 1: longer than 262,144 bytes: split it"), "b"]),
    "no-rows": Type(pa.array([], pa.string()), []),
    **{
        name: Type(values, Rejected(f"the column 'sentence' has type {kind}"))
        for name, values, kind in (
            ("null", pa.nulls(2), "null, where strings are expected: convert it to strings"),
            ("int64", pa.array([1]), "int64"),
            ("double", pa.array([1.5]), "double"),
            ("bool", pa.array([True]), "bool"),
            ("decimal", pa.array([Decimal("1.5")]), "decimal128(2, 1)"),
            ("timestamp", pa.array([datetime(2026, 1, 1)]), "timestamp[us]"),
            ("list", pa.array([["a"]]), "list<"),
            ("struct", pa.array([{"text": "a"}]), "struct<"),
            ("map", pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())), "map<"),
            ("fixed", pa.array([b"ab"], pa.binary(2)), "fixed_size_binary[2]"),
            ("dictionary-int", dictionary(pa.array([1])), "int64"),
        )
    },
}


@pytest.mark.parametrize("name", TYPES)
def test_parquet_types_are_read_or_rejected(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(parquet_bytes({"id": pa.nulls(len(TYPES[name].values)), "sentence": TYPES[name].values}))
    check(path, TYPES[name].expected)


def table(*names: str) -> Any:
    return pa.Table.from_arrays([pa.array([f"{name}{index}"]) for index, name in enumerate(names)], list(names))


PARQUET: dict[str, tuple[bytes, Expected, dict[str, Any]]] = {
    "named": (parquet_bytes(table("a", "title")), ["title1"], {"column": "title"}),
    "missing": (parquet_bytes(table("a", "b")), Rejected("has no column 'sentence': choose one of a, b with"), {}),
    "twice": (parquet_bytes(table("sentence", "sentence")), Rejected("has 2 columns named 'sentence'"), {}),
    "twice-other": (parquet_bytes(table("a", "sentence", "a")), ["sentence1"], {}),
    "dotted": (parquet_bytes(table("a.b", "a", "a.b.c")), ["a.b0"], {"column": "a.b"}),
    "no-columns": (parquet_bytes(pa.table({})), Rejected("choose one of none"), {}),
    "empty": (b"", Rejected("in.parquet"), {}),
    "text": (b"no parquet", Rejected("is not a complete Parquet file"), {}),
    "cut": (parquet_bytes(table("sentence"))[:-8], Rejected("in.parquet"), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_files_are_read_or_rejected(tmp_path: Path, name: str) -> None:
    content, expected, options = PARQUET[name]
    path = tmp_path / "in.parquet"
    path.write_bytes(content)
    check(path, expected, **options)


def test_options_of_text_are_rejected_for_parquet(tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(parquet_bytes(table("sentence")))
    for option, value in ("encoding", "utf-8"), ("delimiter", ";"), ("header", False), ("quoting", False):
        (failure,) = reading([str(tmp_path / "in.parquet")], **{option: value})
        assert "Parquet" in str(failure) or "not to parquet" in str(failure)


def test_compressed_parquet_files_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "in.parquet.gz").write_bytes(b"\x1f\x8b")
    check(tmp_path / "in.parquet.gz", Rejected("decompress Parquet files"))


def test_parquet_is_read_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    texts = pa.array([f"{number:06}" + "x" * 2_000 for number in range(60_000)])
    # A value of another column is larger than the limit.
    other = pa.array([None, "x" * (30 << 20), *[None] * 59_998])
    data = pa.table({"sentence": texts, "other": other})
    pq.write_table(data, path, row_group_size=60_000, use_dictionary=False, compression="none")
    del texts, other, data
    before, peak, rows = pa.total_allocated_bytes(), 0, 0
    for row in open_inputs([str(path)], Options()).rows():
        rows += 1
        assert row.place == rows and row.read == pytest.approx(rows / 60_000, abs=0.02)
        if rows % 1_000 == 0:
            peak = max(peak, pa.total_allocated_bytes() - before)
    assert rows == 60_000 and 0 < peak < 24 << 20, peak


def test_parquet_without_pyarrow_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.parquet").write_bytes(parquet_bytes(table("sentence")))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (failure,) = reading([str(tmp_path / "in.parquet")])
    assert "Parquet needs pyarrow" in str(failure) and "pip install 'muse-as-service[parquet]'" in str(failure)


def kept(path: Path, *keep: str, others: tuple[Path, ...] = (), **options: Any) -> tuple[list[Column], list[Any]]:
    """The kept columns, and their values; the problems of bad rows."""
    source = open_inputs([str(path), *map(str, others)], Options(keep=keep, **options))
    columns = source.columns()
    return columns, [row.problem if isinstance(row, BadRow) else row.kept for row in source.rows()]


def test_columns_of_csv_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('id,sentence,lang,,x\n1,a,en,,"p\nq"\n2,b,,5,\n3,c\n')
    id, lang, x = Column("id"), Column("lang"), Column("x")
    short = "2 columns, where the header has 5"
    assert kept(path, "lang", "id", multiline=True) == ([lang, id], [("en", "1"), ("", "2"), short])
    assert kept(path, "*", multiline=True) == ([id, lang, x], [("1", "en", "p\nq"), ("2", "", ""), short])
    assert kept(path, "sentence", multiline=True) == ([Column("sentence")], [("a",), ("b",), short])
    assert kept(path, multiline=True) == ([], [(), (), short])
    path.write_text("1\ta\ten\n2\tb\tde\n")
    read = kept(path, "*", format="tsv", header=False, column="2")
    assert read == ([Column("1"), Column("3")], [("1", "en"), ("2", "de")])
    for keep, message in (
        (("none",), "has no column 'none': choose one of id, id, sentence with --keep"),
        (("id",), "has 2 columns named 'id': rename all but one"),
        (("*",), "has 2 columns named 'id'"),
        (("*", "id"), "--keep lists columns, or is '*' for all of them"),
        (("id", "id"), "--keep lists the column 'id' twice"),
    ):
        path.write_text("id,id,sentence\n1,2,a\n")
        with pytest.raises(Failure) as failure:
            kept(path, *keep)
        assert message in str(failure.value)


def test_fields_of_json_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": 1, "sentence": "a"}\n"b"\n{"sentence": "c", "tags": ["x", {"y": null}], "id": NaN}\n')
    columns, rows = kept(path, "*")
    assert columns == [Column("id"), Column("tags")]
    assert rows[:2] == [(1, None), (None, None)] and rows[2][1] == ["x", {"y": None}] and math.isnan(rows[2][0])
    assert kept(path, "tags")[1] == [(None,), (None,), (["x", {"y": None}],)]
    with pytest.raises(Failure, match=r"has no column 'tag': choose one of id, sentence, tags with --keep"):
        kept(path, "tag")
    path.write_text('{"sentence": "a", "x": "\\ud800"}\n{"sentence": "b", "x": 1, "x": 2}\n')
    surrogate, repeated = kept(path, "x")[1]
    assert "an unpaired surrogate" in surrogate and repeated == "several fields named 'x': rename all but one"
    # A field that no line has at the beginning.
    path.write_text(json_line("a") * 2_000 + '{"sentence": "b", "late": 1}\n')
    columns, rows = kept(path, "*")
    assert columns == [Column("id")] and rows[:2_000] == [(1,)] * 2_000
    assert rows[2_000] == "a field 'late', which no line before has: list the fields to keep with --keep"


def test_columns_of_parquet_are_kept_with_types(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    time = pa.array([datetime(2026, 1, 1), None])
    data = {
        "id": pa.array([1, 2]), "sentence": ["a", "b"], "lang": dictionary(pa.array(["en", None])), "time": time,
        "tags": pa.array([["x"], []]), "meta": pa.array([{"n": 1}, {"n": 2}]),
    }  # fmt: skip
    path.write_bytes(parquet_bytes(data))
    columns, rows = kept(path, "*")
    assert [column.name for column in columns] == ["id", "lang", "time", "tags", "meta"]
    types = [str(column.arrow_type) for column in columns]
    assert types[:3] == ["int64", "string", "timestamp[us]"] and types[4] == "struct<n: int64>"
    assert rows == [(1, "en", datetime(2026, 1, 1), ["x"], {"n": 1}), (2, None, None, [], {"n": 2})]
    assert kept(path, "meta", "id")[1] == [({"n": 1}, 1), ({"n": 2}, 2)]
    path.write_bytes(parquet_bytes({"sentence": ["a", "b"], "x": invalid_utf8(pa.string())[:2]}))
    assert kept(path, "x")[1] == [("a",), "'x': byte 1 (0xff) is not UTF-8: convert the column to UTF-8"]


def test_files_must_have_the_same_kept_columns(tmp_path: Path) -> None:
    a, b, c, d = (tmp_path / name for name in ("a.csv", "b.tsv", "c.jsonl", "d.parquet"))
    a.write_text("id,sentence,lang\n1,a,en\n")
    b.write_text("lang\tsentence\tid\nde\tb\t2\n")
    c.write_text('{"lang": "pl", "id": "3", "sentence": "c"}\n')
    d.write_bytes(parquet_bytes({"id": [4], "sentence": ["d"], "lang": ["fr"]}))
    empty = tmp_path / "empty.csv"
    empty.touch()
    columns, rows = kept(empty, "*", others=(a, b, c))
    assert columns == [Column("id"), Column("lang")] and rows == [("1", "en"), ("2", "de"), ("3", "pl")]
    assert kept(d, "lang", others=())[1] == [("fr",)]
    with pytest.raises(Failure, match=r"d\.parquet: the column 'id' is int64, but not typed in .*a\.csv"):
        kept(a, "*", others=(d,))
    b.write_text("lang\tsentence\nde\tb\n")
    for first, second in ((a, b), (b, a)):
        with pytest.raises(Failure, match=r"b\.tsv has no column 'id', which .*a\.csv has: list the columns of both"):
            kept(first, "*", others=(second,))
    assert kept(a, "lang", others=(b,))[1] == [("en",), ("de",)]
    # A field may be absent from later JSON lines.
    c.write_text('{"sentence": "c"}\n')
    assert kept(a, "lang", others=(c,))[1] == [("en",), (None,)]


def test_pipe_yields_kept_columns_in_the_order_of_the_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("id,sentence,lang\n1,a,en\n")
    second.write_text("lang,id,sentence\nde,2,b\n")
    with second.open() as file, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", file)
        columns, rows = kept(first, "*", others=(Path("-"),), format="csv")
    assert columns == [Column("id"), Column("lang")] and rows == [("1", "en"), ("2", "de")]
