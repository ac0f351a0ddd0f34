"""The calls of the service, independent of the protocol (REST or gRPC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any, Callable, Generic, NamedTuple, Optional, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Vectors = npt.NDArray[np.floating[Any]]


class Tokens(NamedTuple):
    """The two tokens of a login."""

    access: str
    refresh: str


@dataclass(frozen=True)
class ApiKey:
    """The description of an API key, without its secret. Times are in UTC."""

    id: str
    """The permanent id, which is part of the key."""
    name: str
    owner: str
    created_at: datetime
    created_by: Optional[str]
    """The user who created it; None for the operator of the service."""
    expires_at: Optional[datetime]
    """None for never."""
    disabled: bool
    """Whether it is rejected until it is enabled again."""
    bulk: bool
    """Whether its calls are a bulk job."""
    last_used_day: Optional[date]
    last_used_from: Optional[str]
    """The network from which it was used on that day."""


@dataclass(frozen=True)
class CreatedKey(ApiKey):
    """A new API key."""

    key: str = field(repr=False)
    """The key itself. It cannot be read again."""


class KeyPage(NamedTuple):
    """A page of a list of API keys."""

    keys: list[ApiKey]
    next: Optional[str]
    """For the next page; None if this is the last."""


def key_fields(get: Callable[[str], Any]) -> dict[str, Any]:
    """The fields of `ApiKey`, from those of a response, where null, 0 and "" stand for None."""

    def time(name: str) -> Optional[datetime]:
        return datetime.fromtimestamp(get(name), timezone.utc) if get(name) else None

    used = time("last_used_day")
    return {
        **{name: get(name) for name in ("id", "name", "owner", "disabled", "bulk")},
        **{name: get(name) or None for name in ("created_by", "last_used_from")},
        "created_at": datetime.fromtimestamp(get("created_at"), timezone.utc),
        "expires_at": time("expires_at"),
        "last_used_day": used.date() if used else None,
    }


class Call(Generic[T]):
    """A call that returns a `T`."""

    idempotent = True
    """Whether the call may be repeated if it is unknown whether the service executed it."""


@dataclass(frozen=True)
class Login(Call[Tokens]):
    username: str
    password: str = field(repr=False)
    # A repeated login could issue tokens that the client never receives and so never revokes.
    idempotent = False


@dataclass(frozen=True)
class Refresh(Call[Tokens]):
    """Returns a new access token, and the refresh token to use from then on."""

    token: str = field(repr=False)


@dataclass(frozen=True)
class Revoke(Call[None]):
    token: str = field(repr=False)
    kind: str
    """`access` or `refresh`."""


@dataclass(frozen=True)
class Tokenize(Call[list[list[str]]]):
    token: str = field(repr=False)
    sentences: Sequence[str] = field(repr=False)


@dataclass(frozen=True)
class Embed(Call[Vectors]):
    """Returns an array of float32, or of float64 if the service supports JSON only."""

    token: str = field(repr=False)
    sentences: Sequence[str] = field(repr=False)


@dataclass(frozen=True)
class CreateKey(Call[CreatedKey]):
    token: str = field(repr=False)
    name: str
    expires_in: int
    """Seconds; 0 for never."""
    bulk: bool
    user: Optional[str]
    """The owner; None for the caller."""
    # A repeated call could create keys that the client never receives.
    idempotent = False


@dataclass(frozen=True)
class ListKeys(Call[KeyPage]):
    token: str = field(repr=False)
    user: Optional[str]
    all_users: bool
    after: Optional[str]
    """`next` of the page before."""


@dataclass(frozen=True)
class GetKey(Call[ApiKey]):
    token: str = field(repr=False)
    id: str


@dataclass(frozen=True)
class UpdateKey(Call[ApiKey]):
    """Changes those properties that are not None."""

    token: str = field(repr=False)
    id: str
    name: Optional[str]
    disabled: Optional[bool]
    expires_in: Optional[int]
    bulk: Optional[bool]


def given_changes(call: UpdateKey) -> dict[str, Any]:
    """The properties to change, by name."""
    change = {"name": call.name, "disabled": call.disabled, "expires_in": call.expires_in, "bulk": call.bulk}
    return {name: value for name, value in change.items() if value is not None}


@dataclass(frozen=True)
class DeleteKey(Call[None]):
    token: str = field(repr=False)
    id: str


@dataclass(frozen=True)
class DescribeKey(Call[ApiKey]):
    """Describes the key that the call carries."""

    token: str = field(repr=False)
