"""What goes wrong, in the caller's terms.

Every error of the service is a `MUSEError`. Release 1 raised `requests.HTTPError`: where requests is installed a
`MUSEError` is one, so that code which catches that goes on working; elsewhere it is an `OSError`, which
`requests.HTTPError` is, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    _Base = OSError
else:
    try:
        from requests import HTTPError as _Base
    except ImportError:
        _Base = OSError


class MUSEError(_Base):
    """A call that failed. `str()` of it says why, and what to do where something can be done."""

    status: Optional[int]
    """The HTTP status of the answer; over gRPC the one that REST would have. None if there was no answer."""
    reason: str
    """The service's name for what went wrong, such as `TOKEN_EXPIRED`."""
    message: str
    """The text."""
    retry_after: Optional[float]
    """Seconds after which another try may succeed, if the service said so."""
    index: Optional[int]
    """Which of the sentences is at fault, counted from 0, if one is."""

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


class AuthenticationError(MUSEError):
    """The user's name or password is wrong, nobody is logged in, or the session is over: log in (again)."""


class InvalidArgumentError(MUSEError):
    """The service does not understand the request."""


class TooLargeError(MUSEError):
    """A sentence is longer than the service accepts: `index` says which."""


class OverloadedError(MUSEError):
    """The service has too much to do, or logging in has failed too often: try again after `retry_after` seconds."""


class UnavailableError(MUSEError):
    """The service, or one that it needs, cannot be reached, is not ready, or does not answer in time."""

    sent: bool = True
    """Whether the request may have reached the service."""
