"""Optional dependencies: pyarrow, required for Parquet only."""

from __future__ import annotations

from typing import Any

from . import Failure


def pyarrow() -> Any:
    """Imports pyarrow and pyarrow.parquet."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as missing:
        raise Failure(f"Parquet needs pyarrow ({missing}): pip install 'muse-as-service[parquet]'") from None
    return pyarrow
