"""Client of MUSE as Service: sentence embeddings and tokens in 16 languages."""

from ._async_client import AsyncMUSEClient
from ._calls import NO_QUOTA, ApiKey, CreatedKey, Model, Quota, Tokens, UsageRow
from ._client import MUSEClient
from ._embedder import Embedded, Embedder
from ._retry import Retry
from ._similarity import similarity
from ._tokens import TokenStore
from ._version import __version__
from .errors import (
    AuthenticationError,
    ConfigurationError,
    FingerprintMismatchError,
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
    "ConfigurationError",
    "CreatedKey",
    "Embedded",
    "Embedder",
    "FingerprintMismatchError",
    "InvalidArgumentError",
    "MUSEClient",
    "MUSEError",
    "Model",
    "OverloadedError",
    "Quota",
    "Retry",
    "TokenStore",
    "Tokens",
    "TooLargeError",
    "UnavailableError",
    "UsageRow",
    "__version__",
    "similarity",
]
