"""The files of an input: names, patterns and folders; formats and compressions by extension."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from .. import Failure
from ..text import printable

FORMATS = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}
# What to do with frequent extensions that do not determine a format.
ADVICE = {
    ".json": "use --format jsonl if each line is an object",
    ".xls": "save the sheet as CSV (UTF-8)",
    ".xlsx": "save the sheet as CSV (UTF-8)",
    ".zip": "unpack it",
    ".tar": "unpack it",
    ".tgz": "unpack it",
    ".xz": "decompress it, or compress it with gzip, bzip2 or zstd",
}


class File(NamedTuple):
    """A file, or standard input (`-`), with its format and the compression that its extension indicates."""

    path: str
    format: str
    compression: Optional[str]


def find_files(names: Sequence[str], kind: Optional[str]) -> list[File]:
    """The files that names, patterns and folders denote. If `kind` is None, the extensions determine the formats."""
    files = []
    seen: dict[str, str] = {}
    for name in names:
        for path in _paths(name, kind):
            real = path if path == "-" else os.path.realpath(path)
            if real in seen:
                raise Failure(f"{printable(path)} is given twice, by '{printable(seen[real])}' and '{printable(name)}'")
            seen[real] = name
            files.append(_file(path, kind))
    return files


def _paths(name: str, kind: Optional[str]) -> list[str]:
    if name == "-":
        return [name]
    if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises PermissionError
        return _folder(name, kind)
    if glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(path for path in glob.glob(name, recursive=True) if not _ignored(path))  # noqa: PTH207
        files = [path for path in matches if not os.path.isdir(path)]  # noqa: PTH112
        if not files:
            raise Failure(f"no file matches {printable(name)}")
        return files
    return [name]


def _folder(name: str, kind: Optional[str]) -> list[str]:
    """The files in a folder: those with a known extension, or all of them if the format is given."""
    try:
        paths = [str(path) for path in sorted(Path(name).iterdir()) if path.is_file() and not _ignored(str(path))]
    except OSError as failure:
        raise Failure(f"cannot read {printable(name)}: {failure.strerror}") from None
    if kind is None:
        paths = [path for path in paths if _suffixes(path)[0] in FORMATS]
    else:
        # Spark and Hadoop write markers such as _SUCCESS beside files without an extension.
        paths = [path for path in paths if not Path(path).name.startswith("_")]
    if not paths:
        what = "files" if kind else f"files with a known extension ({', '.join(FORMATS)})"
        nested = Path(name) / "**" / "*.csv"
        text = f"the folder {printable(name)} contains no {what}"
        raise Failure(f"{text}: use a pattern, such as '{printable(str(nested))}', for files in folders below it")
    return paths


def _ignored(path: str) -> bool:
    """Whether a file is hidden, or the unfinished output of `muse`."""
    name = Path(path).name
    return name.startswith(".") or name.endswith(
        (".part", ".part.json", ".part.new", ".part.json.new", ".part.distinct")
    )


def _file(path: str, kind: Optional[str]) -> File:
    if path == "-":
        return File(path, kind or "text", None)
    suffix, compression = _suffixes(path)
    kind = kind or FORMATS.get(suffix)
    if kind is None:
        known = ", ".join(FORMATS)
        advice = ADVICE.get(suffix, "use --format")
        name = printable(path)
        raise Failure(f"cannot determine the format of {name} from its extension ({known}): {advice}")
    return File(path, kind, compression)


def _suffixes(path: str) -> tuple[str, Optional[str]]:
    """The extension that determines the format, and the compression."""
    suffixes = _reversed_suffixes(path)
    last = next(suffixes, "")
    compression = COMPRESSIONS.get(last)
    return (next(suffixes, ""), compression) if compression else (last, None)


def _reversed_suffixes(path: str) -> Iterator[str]:
    return reversed([suffix.lower() for suffix in Path(path).suffixes])
