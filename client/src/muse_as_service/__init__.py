"""Client of MUSE as Service: sentences in 16 languages to vectors and tokens."""

from ._async_client import AsyncMUSEClient
from ._calls import Tokens
from ._client import MUSEClient
from ._flow import TokenStore
from .errors import (
    AuthenticationError,
    InvalidArgumentError,
    MUSEError,
    OverloadedError,
    TooLargeError,
    UnavailableError,
)

__all__ = [
    "AsyncMUSEClient",
    "AuthenticationError",
    "InvalidArgumentError",
    "MUSEClient",
    "MUSEError",
    "OverloadedError",
    "TokenStore",
    "Tokens",
    "TooLargeError",
    "UnavailableError",
]
