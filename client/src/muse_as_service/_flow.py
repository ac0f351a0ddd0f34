"""What a client does, step by step, without doing any of it: written once for the blocking and the async client.

A flow is a generator. It yields what is to be done next, is sent what came of it (or thrown a `MUSEError`), and
returns its result.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol, TypeVar, Union

import numpy as np
import numpy.typing as npt

from ._calls import Call, Embed, Login, Refresh, Revoke, Tokenize, Tokens, Vectors
from ._parts import check, parts, size
from .errors import AuthenticationError, MUSEError, OverloadedError, TooLargeError, UnavailableError

DIMENSION = 512
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
# One is enough, but a token that another process has renewed may have expired, too, and so may one during a long wait.
MAX_RENEWALS = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Sleep:
    """To be done: nothing, for a while."""

    seconds: float


@dataclass(frozen=True)
class Alone:
    """To be done: this flow, while no other such flow of the same client runs."""

    flow: Flow[None]


Step = Union[Call[Any], Sleep, Alone]
Flow = Generator[Step, Any, T]


class SendAgain(MUSEError):
    """The same call will be sent in another way: make it again at once."""


class TokenStore(Protocol):
    """Keeps the tokens of a login, so that another process may use them."""

    def load(self) -> Optional[Tokens]:
        """The tokens that were saved last, by whomever."""

    def save(self, tokens: Optional[Tokens]) -> None:
        """Keeps new tokens; None after a logout."""


class InMemory:
    """The store of who names none."""

    def __init__(self) -> None:
        self._tokens: Optional[Tokens] = None

    def load(self) -> Optional[Tokens]:
        return self._tokens

    def save(self, tokens: Optional[Tokens]) -> None:
        self._tokens = tokens


class Session:
    """The flows of one client, and the tokens that they share."""

    def __init__(self, store: Optional[TokenStore], retry_for: float, dtype: npt.DTypeLike) -> None:
        self._store = store or InMemory()
        self._tokens = self._store.load()
        self._retry_for = retry_for
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        if self._dtype.kind != "f":
            raise TypeError(f"dtype must be a floating-point type such as float32, not {self._dtype}")

    def login(self, username: str, password: str) -> Flow[None]:
        try:
            tokens = yield from self._retrying(Login(username, password))
        except AuthenticationError as error:
            text = f"the user's name or the password is wrong ({error.message})"
            raise AuthenticationError(text, status=error.status, reason=error.reason) from None
        self._keep(tokens)

    def logout(self) -> Flow[None]:
        tokens = self._logged_in()
        for call in Revoke(tokens.access, "access"), Revoke(tokens.refresh, "refresh"):
            try:
                yield from self._retrying(call)
            except AuthenticationError as error:
                # A token that holds no more is what was wanted. Where refresh tokens rotate, the end of one of the
                # login's tokens is the end of the other.
                if error.reason not in ("TOKEN_EXPIRED", "TOKEN_REVOKED"):
                    raise
        self._keep(None)

    def tokenize(self, sentences: Iterable[str]) -> Flow[list[list[str]]]:
        found: list[list[str]] = []
        for answer in (yield from self._in_parts(check(sentences), Tokenize)):
            found += answer
        return found

    def embed(self, sentences: Iterable[str]) -> Flow[Vectors]:
        answers = yield from self._in_parts(check(sentences), Embed)
        if not answers:
            return np.empty((0, DIMENSION), self._dtype)
        whole = answers[0] if len(answers) == 1 else np.concatenate(answers)
        return whole.astype(self._dtype, copy=False)

    def _in_parts(self, sentences: list[str], call: Callable[[str, Sequence[str]], Call[T]]) -> Flow[list[T]]:
        answers: list[T] = []
        done = 0
        for part in parts((sentence, size(sentence)) for sentence in sentences):
            answers += yield from self._halving(part, done, call)
            done += len(part)
        return answers

    def _halving(self, part: list[str], start: int, call: Callable[[str, Sequence[str]], Call[T]]) -> Flow[list[T]]:
        """The answers to a part that begins at sentence `start`, in halves if it is too large as a whole."""
        try:
            return [(yield from self._authorized(lambda token: call(token, part)))]
        except TooLargeError as error:
            if len(part) == 1:
                error.index = 0
            if error.index is not None:
                raise _too_long(error, start + error.index) from None
        middle = len(part) // 2
        first = yield from self._halving(part[:middle], start, call)
        return first + (yield from self._halving(part[middle:], start + middle, call))

    def _authorized(self, call: Callable[[str], Call[T]]) -> Flow[T]:
        for _ in range(MAX_RENEWALS):
            token = self._logged_in().access
            try:
                return (yield from self._retrying(call(token)))
            except AuthenticationError as error:
                if error.reason != "TOKEN_EXPIRED":
                    raise
            yield Alone(self._refresh(token))
        return (yield from self._retrying(call(self._logged_in().access)))

    def _refresh(self, expired: str) -> Flow[None]:
        self._tokens = self._store.load()
        tokens = self._logged_in()
        if tokens.access != expired:
            # Another thread, task or process was faster.
            return
        try:
            fresh = yield from self._retrying(Refresh(tokens.refresh))
        except AuthenticationError as error:
            text = f"the session is over ({error.message}): log in again"
            raise AuthenticationError(text, status=error.status, reason=error.reason) from None
        self._keep(fresh)

    def _retrying(self, call: Call[T]) -> Flow[T]:
        give_up = time.monotonic() + self._retry_for
        tries = 0
        while True:
            try:
                answer: T = yield call
                return answer
            except SendAgain:
                continue
            except (OverloadedError, UnavailableError) as error:
                wait = _wait(error, tries)
                if not _may_retry(error, call) or time.monotonic() + wait > give_up:
                    raise
            tries += 1
            yield Sleep(wait)

    def _logged_in(self) -> Tokens:
        if self._tokens is None:
            raise AuthenticationError("not logged in: call login() first", reason="TOKEN_MISSING")
        return self._tokens

    def _keep(self, tokens: Optional[Tokens]) -> None:
        self._tokens = tokens
        self._store.save(tokens)


def _may_retry(error: MUSEError, call: Call[Any]) -> bool:
    """Whether nothing can have happened twice."""
    answered = error.status is not None
    reached = not isinstance(error, UnavailableError) or error.sent
    return call.idempotent or answered or not reached


def _wait(error: MUSEError, tries: int) -> float:
    """Seconds until the next try: as long as the service says, or else longer each time; never in step with others."""
    if error.retry_after is not None:
        return error.retry_after + random.uniform(0, FIRST_WAIT_S)
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**tries) * random.uniform(0.5, 1)


def _too_long(error: TooLargeError, index: int) -> TooLargeError:
    text = f"sentences[{index}] is too long ({_detail(error)}): shorten it, or cut it into several"
    return TooLargeError(text, status=error.status, reason=error.reason, index=index)


def _detail(error: MUSEError) -> str:
    """The service's text, without the place in the request, which is another one in the caller's list."""
    place, colon, rest = error.message.partition(": ")
    return rest if colon and place.startswith("sentences[") else error.message
