"""Encodings and line ends: each file is read correctly, or rejected with the encoding to use."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NamedTuple, Optional

import pytest
from reading import Expected, Rejected, check, json_line

from muse_as_service.cli import Failure
from muse_as_service.cli.inputs import Options, open_inputs

SENTENCES = {
    "unicode": ["Hello", "über, caf\xe9", "", " 本 \U0001f600", "a\u2028b\u0085c\u2029d\x0be\x0cf\x1cg", "end"],
    "latin": ["Hello", "über, caf\xe9", "", " x ", "end"],
    "ascii": ["Hello", "over, coffee", "", " x ", "end"],
    "japanese": ["図書館", "表, ソ", "", " x ", "end"],
}


def text(sentences: list[str]) -> str:
    return "".join(f"{sentence}\n" for sentence in sentences)


def csv_text(sentences: list[str]) -> str:
    return "id,sentence\n" + "".join(f'1,"{sentence}"\n' for sentence in sentences)


def tsv_text(sentences: list[str]) -> str:
    return "id\tsentence\n" + "".join(f"1\t{sentence}\n" for sentence in sentences)


def jsonl_text(sentences: list[str]) -> str:
    return "".join(map(json_line, sentences))


FORMATS = {"txt": text, "csv": csv_text, "tsv": tsv_text, "jsonl": jsonl_text}


class Encoding(NamedTuple):
    """How a file is written, and with which option it is read."""

    codec: str
    option: Optional[str] = None
    rejected: Optional[str] = None
    mark: bytes = b""
    sentences: str = "unicode"


ENCODINGS = {
    "utf-8": Encoding("utf-8"),
    "utf-8-bom": Encoding("utf-8", mark=codecs.BOM_UTF8),
    "utf-8-bom-option": Encoding("utf-8", "utf-8", mark=codecs.BOM_UTF8),
    "utf-8-sig-option": Encoding("utf-8", "UTF-8-sig"),
    "utf-16-le-bom": Encoding("utf-16-le", mark=codecs.BOM_UTF16_LE),
    "utf-16-be-bom": Encoding("utf-16-be", mark=codecs.BOM_UTF16_BE),
    "utf-16-bom-option": Encoding("utf-16-be", "utf-16", mark=codecs.BOM_UTF16_BE),
    "utf-16-le-bom-option": Encoding("utf-16-le", "UTF-16LE", mark=codecs.BOM_UTF16_LE),
    "utf-16-le-option": Encoding("utf-16-le", "utf-16-le"),
    "utf-16-be-option": Encoding("utf-16-be", "utf-16-be"),
    "utf-32-bom": Encoding("utf-32-le", mark=codecs.BOM_UTF32_LE),
    "utf-32-be-bom": Encoding("utf-32-be", mark=codecs.BOM_UTF32_BE),
    "latin-1-option": Encoding("latin-1", "latin-1", sentences="latin"),
    "cp1252-option": Encoding("cp1252", "cp1252", sentences="latin"),
    "cp500-option": Encoding("cp500", "cp500", sentences="latin"),
    "shift_jis-option": Encoding("shift_jis", "shift_jis", sentences="japanese"),
    "euc_jp-option": Encoding("euc_jp", "euc_jp", sentences="japanese"),
    "iso2022_jp-option": Encoding("iso2022_jp", "iso2022_jp", sentences="japanese"),
    "gb18030-option": Encoding("gb18030", "gb18030"),
    "big5hkscs-option": Encoding("big5hkscs", "big5hkscs", sentences="ascii"),
    "utf-7-option": Encoding("utf-7", "utf-7"),
    "utf-16-le": Encoding("utf-16-le", None, "use --encoding utf-16-le"),
    "utf-16-be": Encoding("utf-16-be", None, "use --encoding utf-16-be"),
    "utf-32-le": Encoding("utf-32-le", None, "use --encoding utf-32-le"),
    "utf-32-be": Encoding("utf-32-be", None, "use --encoding utf-32-be"),
    "utf-16-japanese": Encoding("utf-16-le", None, "UTF-16", sentences="japanese"),
    "utf-16-without-mark-option": Encoding("utf-16-be", "utf-16", "no byte order mark: use --encoding utf-16-be"),
    "utf-16-other-order": Encoding("utf-16-le", "utf-16-be", "leave out --encoding", codecs.BOM_UTF16_LE),
    "utf-16-as-utf-8": Encoding("utf-16-le", "utf-8", "mark of UTF-16: leave out --encoding", codecs.BOM_UTF16_LE),
    "utf-8-bom-as-latin-1": Encoding("utf-8", "latin-1", "mark of UTF-8: leave out --encoding", codecs.BOM_UTF8),
    "latin-1": Encoding("latin-1", None, "such as --encoding latin-1", sentences="latin"),
    "latin-1-as-ascii": Encoding("latin-1", "ascii", "is not ascii: use --encoding", sentences="latin"),
    "shift_jis": Encoding("shift_jis", None, "is not UTF-8", sentences="japanese"),
}
LINE_ENDS = {"lf": "\n", "crlf": "\r\n", "crcrlf": "\r\r\n", "missing": "\n", "cr": "\r"}


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("extension", FORMATS)
def test_encodings_and_line_ends_are_read_or_rejected(
    tmp_path: Path, extension: str, encoding: str, line_end: str
) -> None:
    codec, option, rejected, mark, kind = ENCODINGS[encoding]
    sentences = SENTENCES[kind]
    content = FORMATS[extension](sentences).replace("\n", LINE_ENDS[line_end])
    if line_end == "missing":
        content = content.removesuffix("\n")
    expected: Expected = SENTENCES[kind]
    if line_end == "cr":
        expected = Rejected("convert line ends")
    if rejected:
        # The encoding of the first line decides, or that of the line with other characters, if CR did not join them.
        expected = Rejected("" if line_end == "cr" else rejected)
    path = tmp_path / f"in.{extension}"
    path.write_bytes(mark + content.encode(codec))
    check(path, expected, encoding=option)


@pytest.mark.parametrize("name", ["latin-0", "hex", "rot13", "undefined", "", "\udcff", "a\0b", "x" * 99])
def test_unknown_encodings_are_rejected(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in.txt"
    path.write_text("a")
    with pytest.raises(Failure, match="unknown encoding"):
        open_inputs([str(path)], Options(encoding=name))
