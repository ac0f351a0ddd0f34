"""Client of MUSE as Service: sentence embeddings and tokens in 16 languages."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors as errors
    from ._async_client import AsyncMUSEClient as AsyncMUSEClient
    from ._calls import NO_QUOTA as NO_QUOTA
    from ._calls import ApiKey as ApiKey
    from ._calls import CreatedKey as CreatedKey
    from ._calls import Model as Model
    from ._calls import Quota as Quota
    from ._calls import Tokens as Tokens
    from ._calls import UsageRow as UsageRow
    from ._client import MUSEClient as MUSEClient
    from ._embedder import Embedded as Embedded
    from ._embedder import Embedder as Embedder
    from ._retry import Retry as Retry
    from ._similarity import similarity as similarity
    from ._tokens import TokenStore as TokenStore
    from ._version import __version__ as __version__
    from .errors import AuthenticationError as AuthenticationError
    from .errors import ConfigurationError as ConfigurationError
    from .errors import FingerprintMismatchError as FingerprintMismatchError
    from .errors import InvalidArgumentError as InvalidArgumentError
    from .errors import MUSEError as MUSEError
    from .errors import OverloadedError as OverloadedError
    from .errors import TooLargeError as TooLargeError
    from .errors import UnavailableError as UnavailableError

# The modules of the names above. Each is imported when one of its names is first used: the imports of all take longer
# than most runs of the command `muse`.
_MODULES = {
    "NO_QUOTA": "_calls",
    "ApiKey": "_calls",
    "AsyncMUSEClient": "_async_client",
    "AuthenticationError": "errors",
    "ConfigurationError": "errors",
    "CreatedKey": "_calls",
    "Embedded": "_embedder",
    "Embedder": "_embedder",
    "FingerprintMismatchError": "errors",
    "InvalidArgumentError": "errors",
    "MUSEClient": "_client",
    "MUSEError": "errors",
    "Model": "_calls",
    "OverloadedError": "errors",
    "Quota": "_calls",
    "Retry": "_retry",
    "TokenStore": "_tokens",
    "Tokens": "_calls",
    "TooLargeError": "errors",
    "UnavailableError": "errors",
    "UsageRow": "_calls",
    "__version__": "_version",
    "similarity": "_similarity",
}
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

# Type checkers would accept any name otherwise.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name == "errors":
            return import_module(".errors", __name__)
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "errors"})
