"""The calls of the service, apart from the protocol that carries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Vectors = npt.NDArray[np.floating[Any]]


class Tokens(NamedTuple):
    """What a login gives."""

    access: str
    refresh: str


class Call(Generic[T]):
    """A call whose answer is a `T`."""

    idempotent = True
    """Whether it may be made again when nobody knows whether it was carried out."""


@dataclass(frozen=True)
class Login(Call[Tokens]):
    username: str
    password: str = field(repr=False)
    # Another try would make tokens that nobody has and nobody revokes.
    idempotent = False


@dataclass(frozen=True)
class Refresh(Call[Tokens]):
    """Answers the new access token with the refresh token that is to be used from now on."""

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
    """Answers an array of float32, or of float64 where the service can only answer JSON."""

    token: str = field(repr=False)
    sentences: Sequence[str] = field(repr=False)
