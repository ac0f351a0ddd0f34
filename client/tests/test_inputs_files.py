"""Files, patterns, folders, pipes and compressed inputs of the command, and damaged files of all formats."""

from __future__ import annotations

import bz2
import gzip
import os
import random
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable

import pyarrow as pa
import pytest
from reading import Bad, Rejected, check, json_line, parquet_bytes, reading

from muse_as_service.cli import Failure
from muse_as_service.cli.inputs import BadRow, Options, open_inputs

SENTENCES = ["Hello", "über", "", "本"]
CONTENT = {
    "txt": "".join(f"{sentence}\n" for sentence in SENTENCES).encode(),
    "csv": ("id,sentence\n" + "".join(f"1,{sentence}\n" for sentence in SENTENCES)).encode(),
    "tsv": ("id\tsentence\n" + "".join(f"1\t{sentence}\n" for sentence in SENTENCES)).encode(),
    "jsonl": "".join(map(json_line, SENTENCES)).encode(),
}
FORMATS = {"txt": "text", "csv": "csv", "tsv": "tsv", "jsonl": "jsonl"}


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstd}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("extension", CONTENT)
def test_compressed_files_are_read_or_rejected(
    tmp_path: Path, extension: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, compress = CONTENT[extension], COMPRESSIONS[compression]
    compressed = compress(content)
    path = tmp_path / f"in.{extension}.{compression}"

    def file(data: bytes) -> Path:
        path.write_bytes(data)
        return path

    check(file(compressed), SENTENCES)
    check(file(compress(b"")), [])
    check(file(b""), [])
    # Several members in a row, as `cat` and parallel compressors write them.
    half = len(content) // 2
    check(file(compress(content[:half]) + compress(content[half:])), SENTENCES)
    check(file(compress(content.decode().encode("utf-16"))), SENTENCES)
    check(file(compress(b"\xff" + content)), Rejected("line 1: byte 1 of it (0xff) is not UTF-8"))
    # Damage
    name = {"gz": "gzip", "bz2": "bzip2", "zst": "zstd"}[compression]
    check(file(content), Rejected(f"is not compressed with {name}, or it is damaged"))
    check(file(compressed[:-1]), Rejected("is truncated"))
    check(file(compressed[: len(compressed) // 2]), Rejected("is truncated"))
    check(file(compressed + compress(content)[:-3]), Rejected("is truncated"))
    check(file(compressed + compressed[:2]), Rejected("is truncated"))
    check(file(compressed + b"garbage after the end"), Rejected("is damaged: it cannot be decompressed"))
    if compression != "zst":  # pyarrow writes no checksum
        flipped = bytes([*compressed[:-6], compressed[-6] ^ 1, *compressed[-5:]])
        check(file(flipped), Rejected("is damaged: it cannot be decompressed"))
    check(file(compress(compressed)), Rejected("is compressed twice"))
    check(file(compress(b"PK\x03\x04" + bytes(20))), Rejected("is not text but a zip archive"))
    # The first bytes determine the compression, whatever the name.
    for other in (tmp_path / f"in.{extension}", tmp_path / "in.part-0"):
        other.write_bytes(compressed)
        check(other, SENTENCES, format=FORMATS[extension])
    wrong = tmp_path / f"in.{extension}.{'gz' if compression == 'bz2' else 'bz2'}"
    wrong.write_bytes(compressed)
    check(wrong, Rejected("is not compressed with"))
    for data in compressed, content:
        with standard_input(data, monkeypatch):
            assert reading(["-"], format=FORMATS[extension]) == SENTENCES


def test_zstd_of_parallel_programs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.txt.zst"
    frame, skippable = zstd(b"a\n"), b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    path.write_bytes(skippable + frame + skippable + frame)
    check(path, ["a", "a"])
    path.write_bytes(skippable + frame[:-2])
    check(path, Rejected("is truncated"))


def test_zstd_without_a_decompressor_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.txt.zst"
    path.write_bytes(zstd(b"a"))
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    check(path, ["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check(path, Rejected("pip install 'muse-as-service[parquet]', or decompress"))


@contextmanager
def standard_input(data: bytes, monkeypatch: pytest.MonkeyPatch, slices: int = 1) -> Iterator[None]:
    """A pipe with some data as standard input, written in slices."""
    read, write = os.pipe()

    def fill() -> None:
        # The reader may have closed the pipe.
        with os.fdopen(write, "wb", buffering=0) as file, suppress(BrokenPipeError):
            for start in range(0, len(data), max(1, len(data) // slices)):
                file.write(data[start : start + max(1, len(data) // slices)])

    thread = threading.Thread(target=fill)
    thread.start()
    with os.fdopen(read) as file, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", file)
        yield
    thread.join()


@pytest.mark.parametrize("extension", CONTENT)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_pipes_are_read_once(tmp_path: Path, extension: str, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CONTENT[extension].decode().encode(codec)
    for slices in 1, 7, len(data):
        with standard_input(data, monkeypatch, slices):
            assert reading(["-"], format=FORMATS[extension]) == SENTENCES
    with standard_input(data, monkeypatch):
        source = open_inputs(["-"], Options(format=FORMATS[extension]))
        assert source.names == ["standard input"]
        assert [row.read for row in source.rows()] == [None] * 4
    fifo = tmp_path / f"fifo.{extension}"
    os.mkfifo(fifo)
    thread = threading.Thread(target=fifo.write_bytes, args=(data,))
    thread.start()
    assert reading([str(fifo)]) == SENTENCES
    thread.join()


def test_standard_input_that_is_a_file_is_read_from_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.csv").write_bytes(b"skipped\n" + CONTENT["csv"])
    with (tmp_path / "in.csv").open("rb", buffering=0) as file, monkeypatch.context() as patched:
        file.seek(8)
        patched.setattr(sys, "stdin", file)
        rows = list(open_inputs(["-"], Options(format="csv")).rows())
    assert [row.sentence for row in rows if not isinstance(row, BadRow)] == SENTENCES
    assert rows[-1].read == 1.0


def test_unreadable_standard_input_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def message(*names: str, **options: Any) -> str:
        (failure,) = reading(list(names), **options)
        return str(failure)

    with standard_input(b"a", monkeypatch):
        assert "read as text, which has no columns for --column: use --format" in message("-", column="a")
        assert "Parquet cannot be read from standard input" in message("-", format="parquet")
        assert "- is given twice" in message("-", "-")
    with standard_input(b"\x89PNG\0", monkeypatch):
        assert message("-").startswith("standard input, line 1: a zero byte")
    monkeypatch.setattr(sys, "stdin", None)
    assert message("-") == "cannot read standard input: it is closed"
    folder = os.open(tmp_path, os.O_RDONLY)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", type("File", (), {"fileno": lambda self: folder})())
        assert message("-") == "cannot read standard input: Is a directory"
    os.close(folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the folder `data`."""
    data = tmp_path / "data"
    (data / "below").mkdir(parents=True)
    for name in (
        "b.txt",
        "a.TXT",
        "c.csv.gz",
        ".hidden.txt",
        "old.txt.part",
        "old.jsonl.part.json",
        "o.npy.part.distinct",
        "README.md",
    ):
        content = f"sentence\n{name}\n" if ".csv" in name else f"{name}\n"
        (data / name).write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    (data / "below" / "d.txt").write_text("d\n")
    (data / "[x].txt").write_text("x\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_patterns_and_folders_are_found(folder: Path) -> None:
    assert reading(["data"]) == reading(["data/"]) == ["x", "a.TXT", "b.txt", "c.csv.gz"]
    assert reading(["data/b.txt", "data/a.TXT"]) == ["b.txt", "a.TXT"]
    assert reading(["data/?.[tT]*"]) == ["a.TXT", "b.txt"]
    assert reading(["data/**/d.txt", "data/b*"]) == ["d", "b.txt"]
    assert reading(["data/[x].txt"]) == ["x"], "a file whose name is a pattern"
    assert reading(["data/below"], format="text") == ["d"]
    source = open_inputs(["data", "data/below"], Options())
    assert source.names == ["data/[x].txt", "data/a.TXT", "data/b.txt", "data/c.csv.gz", "data/below/d.txt"]
    assert source.name == "data/[x].txt and 4 others" and source.paths == source.names
    rows = list(source.rows())
    assert [source.place(row) for row in rows][2:] == [
        "data/b.txt, line 1", "data/c.csv.gz, line 2", "data/below/d.txt, line 1",
    ]  # fmt: skip
    assert rows[-1].read == 1.0 and [row.read or 0 for row in rows] == sorted(row.read or 0 for row in rows)


def test_folder_with_a_format_contains_all_but_markers(folder: Path) -> None:
    spark = folder / "out.csv"
    spark.mkdir()
    for name in "part-1", "part-0", "_SUCCESS", ".part-0.crc":
        (spark / name).write_text(f"{name}\n")
    assert reading(["out.csv"], format="text") == ["part-0", "part-1"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["none.txt"], "cannot read none.txt: No such file or directory"),
        (["data/b.txt", "none.txt"], "cannot read none.txt: No such file or directory"),
        (["none/*.txt"], "no file matches none/*.txt"),
        (["data/bel*"], "no file matches data/bel*"),
        (["data/*"], "cannot determine the format of data/README.md from its extension"),
        (["data/b.txt", "data"], "data/b.txt is given twice, by 'data/b.txt' and 'data'"),
        (["data/b.txt", "./data/../data/b.txt"], "is given twice"),
        (["empty"], "the folder empty contains no files with a known extension"),
        (["above"], "use a pattern, such as 'above/**/*.csv', for files in folders below it"),
        (["x" * 300 + ".txt"], "File name too long"),
        (["b.json"], "use --format jsonl if each line is an object"),
        (["b.xlsx"], "save the sheet as CSV"),
        (["b.tar.gz"], "cannot determine the format of b.tar.gz from its extension"),
        (["b"], "use --format"),
        (["a\n\x07b.txt"], "cannot read a\\n\\x07b.txt: "),
        (["\udcff.txt"], "cannot read \\udcff.txt: "),
    ],
)
def test_names_without_files_are_rejected(folder: Path, names: list[str], message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "above" / "below").mkdir(parents=True)
    for name in "b.json", "b.xlsx", "b.tar.gz", "b":
        (folder / name).write_text("a\n")
    (failure,) = reading(names)
    assert isinstance(failure, Failure) and message in str(failure) and str(failure).isprintable()


def test_all_files_are_checked_before_any_row(folder: Path) -> None:
    good = folder / "a.csv"
    good.write_text("sentence\na\n")
    for name, content, message in (
        ("b.csv", b"title\na\n", "has no column 'sentence'"),
        ("b.csv", b"sentence,sentence\na,b\n", "has 2 columns named"),
        ("b.csv", "sentence\na\n".encode("utf-16-le"), "use --encoding utf-16-le"),
        ("b.jsonl", b'[{"sentence": "a"}]', "a JSON array"),
        ("b.txt.gz", b"a\n", "is not compressed with gzip"),
        ("b.parquet", b"no parquet", "is not a complete Parquet file"),
    ):
        (folder / name).write_bytes(content)
        (failure,) = reading([str(good), str(folder / name)])
        assert message in str(failure) and name in str(failure)


LINES = 2_000
LONG = "x" * 16_000


@pytest.mark.parametrize("extension", ["txt", "csv", "tsv", "jsonl", "txt.gz", "csv.bz2", "jsonl.zst"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, extension: str) -> None:
    kind = extension.partition(".")[0]
    head, line = {
        "txt": ("", f"{LONG}\n"), "csv": ("id,sentence\n", f"1,{LONG}\n"), "tsv": ("sentence\n", f"{LONG}\n"),
        "jsonl": ("", json_line(LONG)),
    }[kind]  # fmt: skip
    content = (head + line * LINES).encode()
    compress = COMPRESSIONS.get(extension.partition(".")[2], bytes)
    path = tmp_path / f"in.{extension}"
    path.write_bytes(compress(content))
    del content
    tracemalloc.start()
    count = sum(len(row.sentence) for row in open_inputs([str(path)], Options()).rows() if not isinstance(row, BadRow))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == LINES * len(LONG) and peak < 4 << 20, peak


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Damaged copies: changed, removed, repeated and inserted bytes."""
    chance = random.Random(seed)
    special = [
        b'"',
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b",",
        b"\t",
        b"{",
        b"[",
        b"\\",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xed\xa0",
    ]
    for _ in range(count):
        data = bytearray(content)
        for _ in range(chance.randint(1, 5)):
            place = chance.randrange(len(data) + 1)
            until = min(len(data), place + chance.choice([1, 1, 2, 8, 100]))
            data[place:until] = chance.choice(
                [b"", chance.choice(special), bytes([chance.randrange(256)]), bytes(data[place:until]) * 2]
            )
        yield bytes(data)


@pytest.mark.parametrize("extension", [*CONTENT, "csv.gz", "jsonl.bz2", "txt.zst", "parquet"])
@pytest.mark.parametrize("options", [{}, {"encoding": "utf-16"}, {"encoding": "shift_jis"}, {"keep": ("*",)}])
def test_damaged_files_only_raise_failures(tmp_path: Path, extension: str, options: dict[str, Any]) -> None:
    kind, _, compression = extension.partition(".")
    if kind == "parquet":
        content = parquet_bytes({"id": list(range(300)), "sentence": [f"sentence {number}" for number in range(300)]})
    else:
        content = COMPRESSIONS.get(compression, bytes)(CONTENT[kind] * 3)
    path = tmp_path / f"in.{extension}"
    results = set()
    for data in mutations(content, 100, seed=20):
        path.write_bytes(data)
        for item in reading([str(path)], **options):
            results.add(type(item))
            if isinstance(item, Failure):
                assert str(item).isprintable() and len(str(item)) < 1_500, repr(item)
            elif not item.startswith("BAD "):
                item.encode()
    assert Failure in results


def test_bad_rows_have_places_and_fractions(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence,id\na,1\nb\n")
    (tmp_path / "b.csv").write_text("sentence,id\nc,1,2\nd,2\n")
    source = open_inputs([str(tmp_path / name) for name in ("a.csv", "b.csv")], Options())
    rows = list(source.rows())
    assert [source.place(row).rpartition("/")[2] for row in rows] == [
        "a.csv, line 2", "a.csv, line 3", "b.csv, line 2", "b.csv, line 3",
    ]  # fmt: skip
    assert [type(row) is BadRow for row in rows] == [False, True, True, False]
    assert [row.source for row in rows] == [0, 0, 1, 1] and all(row.read for row in rows)
    check(tmp_path / "a.csv", ["a", Bad("1 column, where the header has 2")])
