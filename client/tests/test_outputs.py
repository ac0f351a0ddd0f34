"""The outputs of `muse embed` and `muse tokenize`: formats, columns to keep, types, compression and metadata."""

from __future__ import annotations

import bz2
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from muse_command import CHUNK, SENTENCES, Muse, read_json_lines, write_inputs, write_text

from muse_as_service.cli.outputs.number_text import vector_texts


def test_every_input_and_output_format_round_trips(muse_on_stack: Muse) -> None:
    write_inputs(muse_on_stack.folder)
    muse_on_stack.run("embed", "in.txt", "out.npy")
    vectors = np.load(muse_on_stack.folder / "out.npy", mmap_mode="r")
    assert vectors.shape == (520, 512) and vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5

    muse_on_stack.run("embed", "in.csv", "out.parquet", "--column", "words", "--grpc")
    table = pq.read_table(muse_on_stack.folder / "out.parquet")
    assert table.column_names == ["sentence", "embedding"]
    assert table["sentence"].to_pylist() == SENTENCES
    assert np.abs(np.array(table["embedding"].to_pylist()) - vectors).max() < 2e-6

    muse_on_stack.run("embed", "in.parquet", "out.jsonl", "--column", "words", "--in-flight", "1")
    lines = read_json_lines(muse_on_stack.folder / "out.jsonl")
    assert [line["sentence"] for line in lines] == SENTENCES
    assert np.abs(np.array([line["embedding"] for line in lines]) - vectors).max() < 2e-6

    for name in "in.txt", "in.csv", "in.tsv", "in.jsonl", "in.parquet":
        column = [] if name == "in.txt" else ["--column", "words"]
        for output in f"{name}.parquet", f"{name}.jsonl":
            muse_on_stack.run("tokenize", name, output, *column)
        tokens = pq.read_table(muse_on_stack.folder / f"{name}.parquet").to_pylist()
        assert tokens == read_json_lines(muse_on_stack.folder / f"{name}.jsonl")
        assert [row["sentence"] for row in tokens] == SENTENCES
        assert tokens[5]["tokens"][:4] == ["▁Book", "▁5:", "▁über", ","]
    assert not [name for name in muse_on_stack.files() if ".part" in name]


def test_standard_input_and_output_work_in_pipes(muse_on_stack: Muse) -> None:
    out = muse_on_stack.run("tokenize", "-", "-", stdin="a\n\nb")
    assert [json.loads(line)["tokens"] for line in out.splitlines()] == [["▁a"], [], ["▁b"]]
    out = muse_on_stack.run("tokenize", "-", "-", "--format", "jsonl", stdin='"a"\n\n{"sentence": "b"}\n')
    assert [json.loads(line)["sentence"] for line in out.splitlines()] == ["a", "b"]
    muse_on_stack.run("embed", "-", "out", "--output-format", "npy", stdin="\ufeffa\r\nb\r\n")
    assert np.load(muse_on_stack.folder / "out").shape == (2, 512)
    write_text(muse_on_stack.folder / "in.txt", ["a"] * 100_000)
    process = muse_on_stack.start("tokenize", "in.txt", "-")
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(30), process.stderr.read()) == (1, "")


ROWS: list[dict[str, Any]] = [
    {"id": 1, "lang": "eng", "score": 0.5, "tags": ["a", {"b": None}], "ok": True, "words": "Hello"},
    {"id": 2, "lang": None, "score": 2, "tags": "x", "ok": False, "words": "a\u2028b\u2029c\u0085d"},
    {"id": None, "lang": "日本", "score": None, "tags": 3, "ok": None, "words": "¿Qué?"},
]
KEPT = ["id", "lang", "score", "tags", "ok"]


def write_rows(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def test_retained_columns_are_beside_the_results_in_json_lines(muse_on_stack: Muse) -> None:
    write_rows(muse_on_stack.folder)
    muse_on_stack.run("embed", "rows.jsonl", "out.jsonl", "--column", "words", "--keep", ",".join(KEPT))
    text = (muse_on_stack.folder / "out.jsonl").read_text(encoding="utf-8")
    # Readers that split lines at separators of Unicode find as many rows.
    assert len(text.splitlines()) == 3 and "a\\u2028b\\u2029c\\u0085d" in text
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    assert [list(line) for line in lines] == [["sentence", *KEPT, "embedding"]] * 3
    assert [{name: line[name] for name in KEPT} for line in lines] == [
        {name: row[name] for name in KEPT} for row in ROWS
    ]
    assert [line["sentence"] for line in lines] == [row["words"] for row in ROWS]


def test_retained_columns_of_json_get_types_in_parquet(muse_on_stack: Muse) -> None:
    write_rows(muse_on_stack.folder)
    muse_on_stack.run("tokenize", "rows.jsonl", "out.parquet", "--column", "words", "--keep", ",".join(KEPT))
    table = pq.read_table(muse_on_stack.folder / "out.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "sentence": "string", "id": "int64", "lang": "string", "score": "double", "tags": "string", "ok": "bool",
        "tokens": "list<element: string>",
    }  # fmt: skip
    assert table["id"].to_pylist() == [1, 2, None] and table["score"].to_pylist() == [0.5, 2.0, None]
    assert table["ok"].to_pylist() == [True, False, None]
    assert table["tags"].to_pylist() == ['["a",{"b":null}]', "x", "3"]


def test_retained_columns_of_parquet_have_the_same_types(muse_on_stack: Muse) -> None:
    times = pa.array([0, 1_000], pa.timestamp("ms", tz="UTC"))
    columns = {
        "sentence": pa.array(["a", "b"]),
        "id": pa.array([7, None], pa.uint16()),
        "time": times,
        "price": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
        "raw": pa.array([b"\xff", b""], pa.binary()),
        "nested": pa.array([{"x": [1]}, None], pa.struct([("x", pa.list_(pa.int8()))])),
    }
    table = pa.table(columns)
    pq.write_table(table, muse_on_stack.folder / "in.parquet")
    kept = ["--keep", "id,time,price,raw,nested"]
    muse_on_stack.run("embed", "in.parquet", "out.parquet", *kept)
    written = pq.read_table(muse_on_stack.folder / "out.parquet")
    assert written.drop_columns(["embedding"]).cast(table.schema).equals(table)
    assert str(written.schema.field("embedding").type) == "fixed_size_list<element: float>[512]"
    muse_on_stack.run("embed", "in.parquet", "out.npy", *kept)
    assert read_json_lines(muse_on_stack.folder / "out.npy.rows.jsonl") == [
        {"id": 7, "time": "1970-01-01T00:00:00+00:00", "price": "1.50", "raw": "/w==", "nested": {"x": [1]}},
        {"id": None, "time": "1970-01-01T00:00:01+00:00", "price": None, "raw": "", "nested": None},
    ]


def test_retained_column_with_the_name_of_a_result_is_an_error(muse_on_stack: Muse) -> None:
    (muse_on_stack.folder / "in.jsonl").write_text('{"words": "a", "sentence": "b", "tokens": 1}\n')
    for name in "sentence", "tokens":
        error = muse_on_stack.fails("tokenize", "in.jsonl", "out.jsonl", "--column", "words", "--keep", name)
        assert f"--keep cannot copy the column '{name}', because OUTPUT has another one with this name" in error
    muse_on_stack.run("embed", "in.jsonl", "out.jsonl", "--column", "words", "--keep", "tokens")


def test_float16_is_the_rounded_float32(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", SENTENCES[:20])
    muse_on_stack.run("embed", "in.txt", "whole.npy")
    expected = np.load(muse_on_stack.folder / "whole.npy")
    half = expected.astype(np.float16)
    for output in "out.npy", "out.parquet", "out.jsonl":
        muse_on_stack.run("embed", "in.txt", output, "--dtype", "float16")
    vectors = np.load(muse_on_stack.folder / "out.npy")
    assert vectors.dtype == np.float16
    table = pq.read_table(muse_on_stack.folder / "out.parquet")
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: halffloat>[512]"
    lines = [line["embedding"] for line in read_json_lines(muse_on_stack.folder / "out.jsonl")]
    for found in vectors, np.array(table["embedding"].to_pylist()), np.array(lines, np.float16):
        # The service computes with other roundings in batches of other sentences.
        assert np.abs(found.astype(np.float32) - half.astype(np.float32)).max() < 1e-4
    assert (muse_on_stack.folder / "out.npy").stat().st_size == 128 + 20 * 512 * 2


def test_numbers_in_json_parse_as_the_same_float32() -> None:
    extreme = [0, -0.0, 1, 1e-38, 1.17549435e-38, 3.4028235e38, 1e-45, np.nextafter(np.float32(1), 2)]
    values = np.concatenate([np.random.default_rng(1).standard_normal(100_000) / 20, extreme]).astype(np.float32)
    assert np.array_equal(np.array(json.loads(vector_texts(values[None])[0]), np.float32), values)
    edges = np.array([1, 0.1, 0.01, 0.001, 1e-4, 1e-5], np.float32)
    near = [np.nextafter(edges, np.float32(end)) for end in (0, 2)]
    bits = np.random.default_rng(2).integers(0, 1 << 32, 100_000, np.uint32).view(np.float32)
    values = np.concatenate([edges, -edges, *near, bits[np.isfinite(bits)]])
    assert np.array_equal(np.array(json.loads(vector_texts(values[None])[0]), np.float32), values)
    half = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    half = half[np.isfinite(half)]
    assert np.array_equal(np.array(json.loads(vector_texts(half[None])[0]), np.float16), half)


def test_numbers_in_json_have_at_most_nine_digits() -> None:
    numbers = ["0.5", "-0.25", "0.1", "0.0625", "0.001", "0.000999999931", "0", "-0", "1", "-2.5", "1e-05", "0.0001",
               "0.123456791", "-0.0123456791", "0.5", "0.100000001", "0.120000005", "3.40282347e+38"]  # fmt: skip
    shown = vector_texts(np.array(numbers, np.float32)[None])[0].decode()
    assert shown == "[" + ",".join(f"{np.float32(number):.9g}" for number in numbers) + "]"
    vectors = np.array([[0.5, np.nan], [np.inf, 0.25]], np.float32)
    assert vector_texts(vectors) == [b"[0.5,null]", b"[null,0.25]"]
    assert vector_texts(vectors.astype(np.float16)) == [b"[0.5,null]", b"[null,0.25]"]
    assert vector_texts(vectors[:0]) == []


@pytest.mark.parametrize("suffix", ["gz", "bz2", "zst"])
def test_compressed_json_lines_are_members_of_one_file(muse_on_stack: Muse, suffix: str) -> None:
    write_text(muse_on_stack.folder / "in.txt", [f"{number}" for number in range(2 * CHUNK + 1)])
    muse_on_stack.run("tokenize", "in.txt", f"out.jsonl.{suffix}")
    muse_on_stack.run("tokenize", "in.txt", "out.jsonl")
    content = (muse_on_stack.folder / f"out.jsonl.{suffix}").read_bytes()
    if suffix == "zst":
        found = pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
    else:
        found = (gzip if suffix == "gz" else bz2).decompress(content)
    assert found == (muse_on_stack.folder / "out.jsonl").read_bytes() and len(content) < len(found)
    for name in f"out.npy.{suffix}", f"out.parquet.{suffix}":
        assert f"only JSON lines can be compressed as .{suffix}" in muse_on_stack.fails("embed", "in.txt", name)


def test_info_prints_the_metadata_of_each_format(muse_on_stack: Muse) -> None:
    write_rows(muse_on_stack.folder)
    for output in "out.npy", "out.jsonl.gz", "out.parquet":
        muse_on_stack.run(
            "embed", "rows.jsonl", output, "--column", "words", "--keep", "id", "--dtype", "float16", "--shard", "1/2"
        )
        fields = json.loads(muse_on_stack.run("info", output, "--json"))
        model = fields.pop("model")
        assert list(model) == ["id", "version", "precision", "fingerprint"] and model["precision"] == "f32"
        fields.pop("bytes", None)
        assert fields == {
            "muse_metadata": 1, "command": "embed", "sources": ["rows.jsonl"], "column": "words", "keep": ["id"],
            "shard": "1/2", "client": "2.0.0", "dtype": "float16", "dimension": 512, "rows": 2, "skipped": 0,
        }  # fmt: skip
        shown = {line[:11].rstrip(): line[12:] for line in muse_on_stack.run("info", output).splitlines()}
        assert (shown["rows"], shown["precision"], shown["sources"]) == ("2", "f32", "rows.jsonl")
        assert shown["model"] == model["id"]


def test_info_of_a_file_without_metadata_is_an_error(muse_on_stack: Muse) -> None:
    folder = muse_on_stack.folder
    write_text(folder / "in.txt", ["a"])
    muse_on_stack.run("embed", "in.txt", "out.npy")
    assert "in.txt has no metadata: there is no in.txt.meta.json" in muse_on_stack.fails("info", "in.txt")
    assert "cannot read none.npy: No such file" in muse_on_stack.fails("info", "none.npy")
    pq.write_table(pa.table({"a": [1]}), folder / "other.parquet")
    assert "other.parquet has no metadata of muse" in muse_on_stack.fails("info", "other.parquet")
    (folder / "cut.parquet").write_bytes((folder / "other.parquet").read_bytes()[:50])
    assert "cut.parquet is not a complete Parquet file" in muse_on_stack.fails("info", "cut.parquet")
    with (folder / "out.npy").open("ab") as file:
        file.write(b"more")
    assert "out.npy.meta.json describes a file of 2,176: it has changed since" in muse_on_stack.fails("info", "out.npy")
    for content in b"{}", b"\xff", b"[", b"":
        (folder / "out.npy.meta.json").write_bytes(content)
        assert "does not contain metadata of muse" in muse_on_stack.fails("info", "out.npy")
