"""Storage of the tokens of a login."""

from __future__ import annotations

import base64
import json
from typing import Any, Optional, Protocol

from ._calls import Tokens


def access_claims(tokens: Tokens) -> Any:
    """The claims of the access token, without verification. Raises `IndexError` or `ValueError` if it is no JWT."""
    claims = tokens.access.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))


class TokenStore(Protocol):
    """Stores the tokens of a login, for example for other processes."""

    def load(self) -> Optional[Tokens]:
        """Returns the tokens that were saved last, by this or another process."""

    def save(self, tokens: Optional[Tokens]) -> None:
        """Stores new tokens; None after a logout."""


class InMemory:
    """The default store."""

    def __init__(self) -> None:
        self._tokens: Optional[Tokens] = None

    def load(self) -> Optional[Tokens]:
        return self._tokens

    def save(self, tokens: Optional[Tokens]) -> None:
        self._tokens = tokens
