"""Similarity of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def similarity(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    """Returns the cosines of all pairs of vectors: row i, column j is that of `a[i]` and `b[j]`.

    A single vector counts as an array of one. The cosine to a vector of zeros is 0, that to a vector with NaN or
    infinity is NaN. The result is float64 if an argument is, else float32. Raises `ValueError` for other shapes.
    """
    left, right = _rows(a, "a"), _rows(b, "b")
    if left.shape[1] != right.shape[1]:
        text = f"a has vectors of {left.shape[1]} components, b of {right.shape[1]}"
        raise ValueError(f"{text}: both must be of one model")
    return _unit(left) @ _unit(right).T


def _rows(vectors: npt.ArrayLike, name: str) -> npt.NDArray[np.floating[Any]]:
    try:
        rows = np.asarray(vectors)
    except ValueError:
        raise ValueError(f"{name} has vectors of different lengths") from None
    if rows.dtype.kind not in "fiu":
        raise TypeError(
            f"{name} must be an array of numbers, not of {rows.dtype}: pass vectors, as embed() returns them"
        )
    if rows.ndim not in (1, 2):
        raise ValueError(f"{name} must have the shape (vectors, components), not {rows.shape}")
    if not rows.shape[-1]:
        raise ValueError(f"{name} has vectors of 0 components")
    is_double = rows.dtype.kind == "f" and rows.dtype.itemsize >= 8
    return np.atleast_2d(rows).astype(np.float64 if is_double else np.float32, copy=False)


def _unit(rows: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    # The squares of large components would be infinite, those of small ones 0.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        scaled = rows / np.where(largest == 0, 1, largest)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: npt.NDArray[np.floating[Any]] = scaled / np.where(lengths == 0, 1, lengths)
    return unit
