"""What the blocking and the asyncio client have in common."""

from __future__ import annotations

import os
from typing import Any, Optional

from ._address import base_url
from ._transfer import Session


class ClientBase:
    """The settings and the session of a client. A pickled client contains them, but no connections."""

    _settings: dict[str, Any]
    _session: Session

    @property
    def fingerprint(self) -> Optional[str]:
        """The fingerprint of the model of the service, as of the last response to `model`, `tokenize` or `embed`; None
        before, and for older services."""
        return self._session.fingerprint

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self._settings, "session": self._session}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_up(state["settings"], state["session"])

    def _set_up(self, settings: dict[str, Any], session: Session) -> None:
        raise NotImplementedError


def connection_settings(
    ip: str, port: int, url: Optional[str], ca_file: Optional[str], timeout: Optional[float], grpc: bool
) -> dict[str, Any]:
    """The arguments of `connector`. Raises `ValueError` for an invalid URL."""
    # Another working directory must not change the file.
    ca_file = None if ca_file is None else os.path.abspath(ca_file)  # noqa: PTH100
    return {"url": base_url(ip, port, url), "ca_file": ca_file, "timeout": timeout, "grpc": grpc}
