"""The exceptions of the client.

Every error of the service is a `MUSEError`. Release 1 raised `requests.HTTPError`. For compatibility `MUSEError` is a
subclass of it if requests is installed, else of its base class `OSError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from . import _process

# The command catches its errors itself, and must not wait for the import of requests.
if TYPE_CHECKING or _process.is_command:
    _Base = OSError
else:
    try:
        from requests import HTTPError as _Base
    except ImportError:
        _Base = OSError


class MUSEError(_Base):
    """A call failed. `str()` returns the reason and, where possible, what to do."""

    status: Optional[int]
    """The HTTP status, also over gRPC. None if there was no response."""
    reason: str
    """The service's reason code, such as `TOKEN_EXPIRED`."""
    message: str
    """The message, without the status."""
    retry_after: Optional[float]
    """Seconds to wait before a retry, if the service returned `Retry-After`."""
    index: Optional[int]
    """Index of the invalid sentence, from 0, if there is one."""
    partial: Any = None
    """After `embed` or `tokenize`: the results of the first sentences, up to those of the failed request."""
    from_service: bool = False
    """Whether the response is one of MUSE as Service; otherwise it may be that of a proxy."""

    def __init__(
        self,
        message: str,
        *,
        status: Optional[int] = None,
        reason: str = "INTERNAL",
        retry_after: Optional[float] = None,
        index: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.index = index

    def __str__(self) -> str:
        return self.message if self.status is None else f"{self.status}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(kind: type[MUSEError], message: str, fields: dict[str, object]) -> MUSEError:
    error = kind(message)
    error.__dict__.update(fields)
    return error


class ConfigurationError(MUSEError):
    """The client cannot use a file of certificates, or an environment variable, which the message names."""


class AuthenticationError(MUSEError):
    """The name or password is wrong, the client is not logged in, or the session has ended: log in (again). With an API
    key: it is malformed, unknown, revoked, expired or disabled; `reason` names which."""


class InvalidArgumentError(MUSEError):
    """The request is invalid."""


class TooLargeError(MUSEError):
    """A sentence is longer than the service accepts; `index` is its position."""


class OverloadedError(MUSEError):
    """The service is overloaded, or too many logins have failed: retry after `retry_after` seconds. Or the quota of the
    user or of the API key is exhausted (`reason` is `QUOTA_EXHAUSTED`), until `retry_after` seconds from now: the
    client does not retry that itself."""


class FingerprintMismatchError(MUSEError):
    """The model of the service has another fingerprint than the one that the client requires, or the service had
    several models during a call. The client does not retry it. `partial` is empty, because a later call may get vectors
    of another model."""

    expected: Optional[str] = None
    """The required fingerprint."""
    found: Optional[str] = None
    """That of the service; None if the service does not report it."""

    def __init__(
        self, message: str, *, expected: Optional[str] = None, found: Optional[str] = None, **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.expected = expected
        self.found = found


class UnavailableError(MUSEError):
    """The service, or one that it depends on, is unreachable, not ready, or does not respond in time."""

    sent: bool = True
    """Whether the request may have reached the service."""
