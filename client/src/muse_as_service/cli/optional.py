"""pyarrow, which is needed for Parquet alone."""

from __future__ import annotations

from typing import Any

from . import Failure


def pyarrow() -> Any:
    """pyarrow, with pyarrow.parquet."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as missing:
        raise Failure(f"Parquet needs pyarrow ({missing}): pip install 'muse-as-service[parquet]'") from None
    return pyarrow
