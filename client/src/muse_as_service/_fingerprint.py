"""The fingerprint of a model: a short id of what produces a vector, which is the weights, the tokenizer and the
precision, such as `f32-3fa9c07b12de`.

Vectors of models with different fingerprints must not be compared with each other.
"""

from __future__ import annotations

import re
import threading
from typing import Any, Optional

from .errors import FingerprintMismatchError

HEADER = "muse-fingerprint"
"""The name in headers and metadata. A response has the fingerprint of its model, a request the one that it requires."""


def checked_fingerprint(fingerprint: Optional[str]) -> Optional[str]:
    """Returns the argument. Raises `TypeError` or `ValueError` if it is no fingerprint."""
    if fingerprint is None:
        return None
    if not isinstance(fingerprint, str):
        raise TypeError(f"fingerprint must be a string, not {type(fingerprint).__name__}")
    if re.fullmatch("[a-z0-9]+-[0-9a-f]{12}", fingerprint) is None:
        raise ValueError(f"{fingerprint!r} is not a fingerprint of a model, such as f32-3fa9c07b12de")
    return fingerprint


def fingerprint_of(metadata: Any) -> Optional[str]:
    """The fingerprint in the metadata of gRPC; None if there is none."""
    for name, value in metadata or ():
        if name == HEADER and value:
            return str(value)
    return None


class Requirement:
    """The fingerprint that all responses to one call of a client must have, for any number of threads.

    It is the one that the caller requires, else that of the first response. Without a requirement of the caller,
    responses without a fingerprint, as those of older services, are accepted.
    """

    def __init__(self, required: Optional[str]) -> None:
        """`required` is the one that the caller requires."""
        self._fingerprint = required
        self._by_caller = required is not None
        self._lock = threading.Lock()
        self.found: Optional[str] = None
        """That of the last response that had one."""

    @property
    def fingerprint(self) -> Optional[str]:
        """The one that requests require; None as long as any is accepted."""
        return self._fingerprint

    def check(self, found: Optional[str]) -> None:
        """Raises `FingerprintMismatchError` if a response has another fingerprint than required."""
        with self._lock:
            if self._fingerprint is None:
                self._fingerprint = found
            if found != self._fingerprint and (found is not None or self._by_caller):
                raise _mismatch(self._fingerprint, found)
            self.found = found or self.found


def _mismatch(required: Optional[str], found: Optional[str]) -> FingerprintMismatchError:
    if found is None:
        text = f"the service does not report the fingerprint of its model, where {required} is required: it is too old"
        text += ", or a proxy removes the header muse-fingerprint"
    else:
        text = f"the model of the service has the fingerprint {found}, where {required} is required"
    return FingerprintMismatchError(text, reason="FINGERPRINT_MISMATCH", expected=required, found=found)
