"""The calls of the service, independent of the protocol (REST or gRPC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any, Callable, Generic, Literal, NamedTuple, Optional, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Vectors = npt.NDArray[np.floating[Any]]
QuotaPeriod = Literal["day", "month"]
UsageGrouping = Literal["day", "user", "key", "hour"]


class Tokens(NamedTuple):
    """The two tokens of a login."""

    access: str
    refresh: str


@dataclass(frozen=True)
class Quota:
    """A limit on the tokens of an API key within each period."""

    tokens: int
    """At least 1; 0 stands for no limit (`NO_QUOTA`)."""
    period: QuotaPeriod
    """A day or a calendar month (UTC)."""


NO_QUOTA = Quota(0, "day")
"""Removes the quota of an API key (`update_key`)."""


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
    quota: Optional[Quota]
    """The limit on its tokens; None for no limit. The tokens count for the quota of the owner, too."""


@dataclass(frozen=True)
class CreatedKey(ApiKey):
    """A new API key."""

    key: str = field(repr=False)
    """The key itself. It cannot be read again."""


@dataclass(frozen=True)
class UsageRow:
    """The usage of a group. Those of its first four fields that the grouping sums over are None."""

    day: Optional[date]
    """The day (UTC)."""
    hour: Optional[datetime]
    """The start of the hour (UTC)."""
    user: Optional[str]
    key_id: Optional[str]
    """`ApiKey.id`; None also for calls with a login."""
    requests: int
    """Answered requests to embed or tokenize; a stream of gRPC is one."""
    sentences: int
    """Sentences whose vectors were computed."""
    tokens: int
    """Tokens of these sentences, without `<s>` and `</s>`."""
    refused: int
    """Requests that were rejected because of a quota, of load, or of a limit of memory."""


@dataclass(frozen=True)
class Model:
    """The model of the service, and the limits of requests. Fields are None if the protocol does not report them: REST
    reports the first five and the fingerprint."""

    id: str
    version: str
    dimension: int
    """The number of components of a vector."""
    precision: str
    """The precision of the computation: f32, bf16, f16 or int8."""
    device: str
    """The device that runs the model, such as cpu or cuda:0."""
    languages: Optional[tuple[str, ...]] = None
    """BCP 47 codes of the languages of the training data."""
    max_sentences: Optional[int] = None
    """Sentences of a request; the client splits larger inputs."""
    max_sentence_bytes: Optional[int] = None
    """Bytes of UTF-8 of a sentence."""
    max_sentence_tokens: Optional[int] = None
    """Tokens of a sentence to embed, including `<s>` and `</s>`."""
    max_request_tokens: Optional[int] = None
    max_request_bytes: Optional[int] = None
    source_sha256: Optional[str] = None
    """The SHA-256 of the file from which the model was converted."""
    source_precision: Optional[str] = None
    license: Optional[str] = None
    fingerprint: Optional[str] = None
    """A short id of what produces a vector: the weights, the tokenizer and the precision. None for older services."""


MODEL_LIMITS = ("max_sentences", "max_sentence_bytes", "max_sentence_tokens", "max_request_tokens", "max_request_bytes")


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list."""

    items: list[T]
    next: Optional[str]
    """For the next page; None if this is the last."""


def key_fields(get: Callable[[str], Any]) -> dict[str, Any]:
    """The fields of `ApiKey` except `quota`, from those of a response, where null, 0 and "" stand for None."""

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

    fingerprint: Optional[str] = None
    """The fingerprint that the model of the service must have; None for any."""
    idempotent = True
    """Whether the call may be repeated if it is unknown whether the service executed it."""
    retried_after_5xx = True
    """Whether the call is repeated after an error of the service itself."""


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
class ModelResult(Generic[T]):
    """What the model of the service returns."""

    value: T
    fingerprint: Optional[str]
    """The fingerprint of that model; None if the service does not report it."""


@dataclass(frozen=True)
class Tokenize(Call[ModelResult[list[list[str]]]]):
    token: str = field(repr=False)
    sentences: Sequence[str] = field(repr=False)
    fingerprint: Optional[str] = None


@dataclass(frozen=True)
class Embed(Call[ModelResult[Vectors]]):
    """Returns an array of float32, or of float64 if the service supports JSON only."""

    token: str = field(repr=False)
    sentences: Sequence[str] = field(repr=False)
    float16: bool = False
    """Whether the service may return float16, which has half of the bytes."""
    fingerprint: Optional[str] = None


@dataclass(frozen=True)
class GetModel(Call[Model]):
    token: str = field(repr=False)
    fingerprint: Optional[str] = None


@dataclass(frozen=True)
class CreateKey(Call[CreatedKey]):
    token: str = field(repr=False)
    name: str
    expires_in: int
    """Seconds; 0 for never."""
    bulk: bool
    user: Optional[str]
    """The owner; None for the caller."""
    quota: Optional[Quota]
    # A repeated call could create keys that the client never receives, also after a 5xx: the gateway responds with it
    # if its connection to the auth service breaks, or the deadline passes, after the key was created.
    idempotent = False
    retried_after_5xx = False


@dataclass(frozen=True)
class ListKeys(Call[Page[ApiKey]]):
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
    quota: Optional[Quota]


def given_changes(call: UpdateKey) -> dict[str, Any]:
    """The properties to change except `quota`, by name."""
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


@dataclass(frozen=True)
class ListUsage(Call[Page[UsageRow]]):
    token: str = field(repr=False)
    from_: Optional[date]
    to: Optional[date]
    by: Optional[UsageGrouping]
    user: Optional[str]
    key_id: Optional[str]
    after: Optional[str]
    """`next` of the page before."""
