"""Optional dependencies: pyarrow, required for Parquet, and for zstd before Python 3.14."""

from __future__ import annotations

from typing import Any, BinaryIO, cast

from . import Failure

INSTALL = "pip install 'muse-as-service[parquet]'"


def pyarrow() -> Any:
    """Imports pyarrow and pyarrow.parquet."""
    try:
        return _import_pyarrow()
    except ImportError as missing:
        raise Failure(f"Parquet needs pyarrow ({missing}): {INSTALL}") from None


def open_zstd(file: BinaryIO, name: str) -> BinaryIO:
    """Decompresses zstd."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore] # Python 3.14
    except ImportError:
        pass
    else:
        return cast(BinaryIO, zstd.ZstdFile(file))
    try:
        pa = _import_pyarrow()
    except ImportError as missing:
        text = f"zstd needs Python 3.14 or pyarrow ({missing}): {INSTALL}, or decompress {name} with 'zstd -d'"
        raise Failure(text) from None
    return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except (AttributeError, ValueError) as failure:
        # A pyarrow that was built for another version of numpy.
        raise ImportError(str(failure).partition("\n")[0]) from None
    return pyarrow
