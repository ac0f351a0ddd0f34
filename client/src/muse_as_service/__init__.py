"""Client of MUSE as Service: sentence embeddings and tokens in 16 languages."""

from ._async_client import AsyncMUSEClient
from ._calls import NO_QUOTA, ApiKey, CreatedKey, Quota, Tokens, UsageRow
from ._client import MUSEClient
from ._transfer import TokenStore
from .errors import (
    AuthenticationError,
    InvalidArgumentError,
    MUSEError,
    OverloadedError,
    TooLargeError,
    UnavailableError,
)

__all__ = [
    "NO_QUOTA",
    "ApiKey",
    "AsyncMUSEClient",
    "AuthenticationError",
    "CreatedKey",
    "InvalidArgumentError",
    "MUSEClient",
    "MUSEError",
    "OverloadedError",
    "Quota",
    "TokenStore",
    "Tokens",
    "TooLargeError",
    "UnavailableError",
    "UsageRow",
]
