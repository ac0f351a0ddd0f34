"""The metadata of an output: in Parquet files under the key `muse`, for other formats in `OUTPUT.meta.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from . import Failure
from .files import beside
from .spool import METADATA

VERSION = 1
KEY = b"muse"
# The beginning of every metadata file.
MAGIC = '{"muse_metadata":'


def sidecar(output: Path) -> Path:
    return beside(output, METADATA)


def serialise(fields: Mapping[str, Any]) -> str:
    return json.dumps({"muse_metadata": VERSION, **fields}, ensure_ascii=False)


def parse(text: str, path: Path) -> dict[str, Any]:
    """Raises `Failure` if the text is not metadata."""
    try:
        fields: Any = json.loads(text) if text.startswith(MAGIC) else None
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise Failure(f"{path} does not contain metadata of muse")
    if fields["muse_metadata"] != VERSION:
        raise Failure(f"{path} is of another version of muse: update muse-as-service")
    return fields


def read(path: Path) -> dict[str, Any]:
    """Returns the metadata of an output. Raises `Failure` if it has none, or if the file has changed since."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            return _of_parquet(path)
        fields = parse(sidecar(path).read_text(encoding="utf-8"), sidecar(path))
    except FileNotFoundError as missing:
        if Path(missing.filename) == path:
            raise Failure(f"cannot read {path}: {missing.strerror}") from None
        raise Failure(f"{path} has no metadata: there is no {sidecar(path)}") from None
    except UnicodeDecodeError:
        raise Failure(f"{sidecar(path)} does not contain metadata of muse") from None
    except OSError as failure:
        raise Failure(f"cannot read {path}: {failure.strerror}") from None
    if fields.get("bytes") != size:
        text = f"{path} has {size:,} bytes, but {sidecar(path)} describes a file of {fields.get('bytes'):,}"
        raise Failure(f"{text}: it has changed since")
    return fields


def _of_parquet(path: Path) -> dict[str, Any]:
    from .optional import pyarrow

    pa = pyarrow()
    try:
        found: Optional[bytes] = (pa.parquet.read_schema(path).metadata or {}).get(KEY)
    except (pa.ArrowException, OSError) as failure:
        raise Failure(f"{path} is not a complete Parquet file: {str(failure).partition(chr(10))[0]}") from None
    if found is None:
        raise Failure(f"{path} has no metadata of muse")
    return parse(found.decode("utf-8", "replace"), path)
