"""The logic of the clients without I/O ("sans-I/O"), shared by the blocking and the asyncio client.

A flow is a generator. It yields steps; the client executes each step and sends its result back, or throws the
`MUSEError` that it raised. The flow returns its result.
"""

from __future__ import annotations

import operator
import os
import random
import re
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Optional, Protocol, TypeVar, Union

import numpy as np
import numpy.typing as npt

from ._calls import (
    ApiKey,
    Call,
    CreatedKey,
    CreateKey,
    DeleteKey,
    DescribeKey,
    Embed,
    GetKey,
    ListKeys,
    Login,
    Refresh,
    Revoke,
    Tokenize,
    Tokens,
    UpdateKey,
    Vectors,
)
from ._chunking import check, chunks, size
from .errors import AuthenticationError, MUSEError, OverloadedError, TooLargeError, UnavailableError

API_KEY_VARIABLE = "MUSE_API_KEY"
DIMENSION = 512
INITIAL_BACKOFF_S = 0.2
MAX_BACKOFF_S = 10.0
# Usually one suffices. But a token that another process has renewed, or one that waits for a retry, may expire, too.
MAX_RENEWALS = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Sleep:
    """Step: wait."""

    seconds: float


@dataclass(frozen=True)
class SingleRequest:
    """Step: run the flow, at most one at a time for each client, so that one refresh serves all concurrent calls."""

    flow: Flow[None]


Step = Union[Call[Any], Sleep, SingleRequest]
Flow = Generator[Step, Any, T]


class SendAgain(MUSEError):
    """The protocol has switched to another HTTP method: repeat the call immediately."""


class TokenStore(Protocol):
    """Stores the tokens of a login, for example for other processes."""

    def load(self) -> Optional[Tokens]:
        """Returns the tokens that were saved last, by this or another process."""

    def save(self, tokens: Optional[Tokens]) -> None:
        """Stores new tokens; None after a logout."""


class InMemory:
    """The default store."""

    def __init__(self) -> None:
        self._tokens: Optional[Tokens] = None

    def load(self) -> Optional[Tokens]:
        return self._tokens

    def save(self, tokens: Optional[Tokens]) -> None:
        self._tokens = tokens


class Session:
    """The flows of one client and its tokens."""

    def __init__(
        self, store: Optional[TokenStore], retry_for: float, dtype: npt.DTypeLike, api_key: Optional[str] = None
    ) -> None:
        # The environment is for programs that pass neither credential.
        self._api_key = _checked_key(os.environ.get(API_KEY_VARIABLE) if api_key is None and store is None else api_key)
        self._store = store or InMemory()
        self._tokens = self._store.load()
        self._retry_for = retry_for
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        if self._dtype.kind != "f":
            raise TypeError(f"dtype must be a floating-point type such as float32, not {self._dtype}")

    def login(self, username: str, password: str) -> Flow[None]:
        try:
            tokens = yield from self._with_retries(Login(username, password))
        except AuthenticationError as error:
            text = f"the user's name or the password is wrong ({error.message})"
            raise AuthenticationError(text, status=error.status, reason=error.reason) from None
        self._api_key = None
        self._save(tokens)

    def logout(self) -> Flow[None]:
        if self._api_key is not None:
            # An API key remains valid: nothing to revoke.
            return
        tokens = self._logged_in()
        for call in Revoke(tokens.access, "access"), Revoke(tokens.refresh, "refresh"):
            try:
                yield from self._with_retries(call)
            except AuthenticationError as error:
                # The token is invalid already. If refresh tokens rotate, revoking one token of a login revokes the
                # other, too.
                if error.reason not in ("TOKEN_EXPIRED", "TOKEN_REVOKED"):
                    raise
        self._save(None)

    def tokenize(self, sentences: Iterable[str]) -> Flow[list[list[str]]]:
        found: list[list[str]] = []
        for tokens in (yield from self._chunked(check(sentences), Tokenize)):
            found += tokens
        return found

    def embed(self, sentences: Iterable[str]) -> Flow[Vectors]:
        results = yield from self._chunked(check(sentences), Embed)
        if not results:
            return np.empty((0, DIMENSION), self._dtype)
        vectors = results[0] if len(results) == 1 else np.concatenate(results)
        return vectors.astype(self._dtype, copy=False)

    def create_key(self, name: str, expires_in: int, bulk: bool, user: Optional[str]) -> Flow[CreatedKey]:
        _check_key_properties(name, expires_in)
        return (yield from self._with_token(lambda token: CreateKey(token, name, expires_in, bulk, user)))

    def list_keys(self, user: Optional[str], all_users: bool) -> Flow[list[ApiKey]]:
        found: list[ApiKey] = []
        after: Optional[str] = None
        while True:
            page = yield from self._with_token(partial(ListKeys, user=user, all_users=all_users, after=after))
            found += page.keys
            if page.next is None:
                return found
            after = page.next

    def get_key(self, id: str) -> Flow[ApiKey]:
        _check_key_id(id)
        return (yield from self._with_token(lambda token: GetKey(token, id)))

    def update_key(
        self,
        id: str,
        name: Optional[str],
        disabled: Optional[bool],
        expires_in: Optional[int],
        bulk: Optional[bool],
    ) -> Flow[ApiKey]:
        _check_key_id(id)
        _check_key_properties(name, expires_in)
        return (yield from self._with_token(lambda token: UpdateKey(token, id, name, disabled, expires_in, bulk)))

    def delete_key(self, id: str) -> Flow[None]:
        _check_key_id(id)
        yield from self._with_token(lambda token: DeleteKey(token, id))

    def describe_key(self) -> Flow[ApiKey]:
        return (yield from self._with_token(DescribeKey))

    def _chunked(self, sentences: list[str], call: Callable[[str, Sequence[str]], Call[T]]) -> Flow[list[T]]:
        results: list[T] = []
        done = 0
        for chunk in chunks((sentence, size(sentence)) for sentence in sentences):
            results += yield from self._split_if_too_large(chunk, done, call)
            done += len(chunk)
        return results

    def _split_if_too_large(
        self, chunk: list[str], start: int, call: Callable[[str, Sequence[str]], Call[T]]
    ) -> Flow[list[T]]:
        """The results for a chunk that begins at sentence `start`. A chunk that is too large is sent in halves."""
        try:
            return [(yield from self._with_token(lambda token: call(token, chunk)))]
        except TooLargeError as error:
            if len(chunk) == 1:
                error.index = 0
            if error.index is not None:
                raise _too_long(error, start + error.index) from None
        middle = len(chunk) // 2
        first = yield from self._split_if_too_large(chunk[:middle], start, call)
        return first + (yield from self._split_if_too_large(chunk[middle:], start + middle, call))

    def _with_token(self, call: Callable[[str], Call[T]]) -> Flow[T]:
        if self._api_key is not None:
            return (yield from self._with_retries(call(self._api_key)))
        for _ in range(MAX_RENEWALS):
            token = self._logged_in().access
            try:
                return (yield from self._with_retries(call(token)))
            except AuthenticationError as error:
                if error.reason != "TOKEN_EXPIRED":
                    raise
            yield SingleRequest(self._refresh(token))
        return (yield from self._with_retries(call(self._logged_in().access)))

    def _refresh(self, expired: str) -> Flow[None]:
        self._tokens = self._store.load()
        tokens = self._logged_in()
        if tokens.access != expired:
            # Another thread, task or process has refreshed it.
            return
        try:
            fresh = yield from self._with_retries(Refresh(tokens.refresh))
        except AuthenticationError as error:
            text = f"the session is over ({error.message}): log in again"
            raise AuthenticationError(text, status=error.status, reason=error.reason) from None
        self._save(fresh)

    def _with_retries(self, call: Call[T]) -> Flow[T]:
        deadline = time.monotonic() + self._retry_for
        attempts = 0
        while True:
            try:
                result: T = yield call
                return result
            except SendAgain:
                continue
            except (OverloadedError, UnavailableError) as error:
                wait = _backoff(error, attempts)
                if not _may_retry(error, call) or time.monotonic() + wait > deadline:
                    raise
            attempts += 1
            yield Sleep(wait)

    def _logged_in(self) -> Tokens:
        if self._tokens is None:
            raise AuthenticationError("not logged in: call login() first, or pass an api_key", reason="TOKEN_MISSING")
        return self._tokens

    def _save(self, tokens: Optional[Tokens]) -> None:
        self._tokens = tokens
        self._store.save(tokens)


def _checked_key(api_key: Optional[str]) -> Optional[str]:
    """The key without white space around it; None if it is empty. The error does not quote it."""
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("the API key contains characters that no key has: was it copied completely?")
    return key or None


def _check_key_id(id: str) -> None:
    """Raises `ValueError` for what is no id, such as a key, which must not be sent in a URL. The error does not quote
    it."""
    if re.fullmatch("[a-z2-7]{12}", id) is None:
        raise ValueError("that is no id of an API key: it is the 12 characters between muse_ and the secret")


def _check_key_properties(name: Optional[str], expires_in: Optional[int]) -> None:
    """Raises `TypeError` or `ValueError` for what cannot be sent; the service checks the rest."""
    if name is not None:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError("the name of the API key is not valid text") from None
    if expires_in is not None and not 0 <= operator.index(expires_in) < 1 << 63:
        raise ValueError("expires_in is in seconds, at most ten years; 0 is for never")


def _may_retry(error: MUSEError, call: Call[Any]) -> bool:
    """Whether the service cannot execute the call twice."""
    rejected = error.status is not None
    sent = not isinstance(error, UnavailableError) or error.sent
    return call.idempotent or rejected or not sent


def _backoff(error: MUSEError, attempts: int) -> float:
    """Seconds until the next attempt: `Retry-After`, else exponential backoff; both with jitter."""
    if error.retry_after is not None:
        return error.retry_after + random.uniform(0, INITIAL_BACKOFF_S)
    return min(MAX_BACKOFF_S, INITIAL_BACKOFF_S * 2.0**attempts) * random.uniform(0.5, 1)


def _too_long(error: TooLargeError, index: int) -> TooLargeError:
    text = f"sentences[{index}] is too long ({_detail(error)}): shorten it or split it"
    return TooLargeError(text, status=error.status, reason=error.reason, index=index)


def _detail(error: MUSEError) -> str:
    """The service's message without the index in the request, which differs from the index in the caller's list."""
    place, colon, rest = error.message.partition(": ")
    return rest if colon and place.startswith("sentences[") else error.message
