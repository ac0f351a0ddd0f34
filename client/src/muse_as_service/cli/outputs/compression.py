"""Compressed outputs: each batch is a complete member or frame, and decompressors read a concatenation of them."""

from __future__ import annotations

import bz2
import gzip
from functools import partial
from typing import Any, Callable

from .. import Failure

# Digits of vectors hardly compress: higher levels need three to seven times as long for 2 to 10 percent less.
LEVEL = 1
SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}


def compressor(kind: str) -> Callable[[bytes], bytes]:
    """Returns the function that compresses a batch. Equal batches have equal bytes."""
    if kind == "gzip":
        return lambda content: gzip.compress(content, compresslevel=LEVEL, mtime=0)
    if kind == "bzip2":
        return bz2.compress
    return _zstd()


def _zstd() -> Callable[[bytes], bytes]:
    try:
        # Since Python 3.14.
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]

        return partial(zstd.compress, level=LEVEL)  # type: ignore[no-any-return, unused-ignore]
    except ImportError:
        pass
    try:
        import pyarrow
    except ImportError as missing:
        text = "zstd needs Python 3.14 or pyarrow"
        raise Failure(f"{text} ({missing}): pip install 'muse-as-service[parquet]', or choose .gz") from None
    codec: Any = pyarrow.Codec("zstd", compression_level=LEVEL)
    return lambda content: codec.compress(content, asbytes=True)
