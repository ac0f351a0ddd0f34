"""The calls of the service, independent of the protocol (REST or gRPC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Vectors = npt.NDArray[np.floating[Any]]


class Tokens(NamedTuple):
    """The two tokens of a login."""

    access: str
    refresh: str


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
