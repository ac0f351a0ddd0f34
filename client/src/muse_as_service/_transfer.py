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
from datetime import date, datetime
from functools import partial
from typing import Any, Callable, Optional, Protocol, TypeVar, Union, get_args

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
    ListUsage,
    Login,
    Page,
    Quota,
    QuotaPeriod,
    Refresh,
    Revoke,
    Tokenize,
    Tokens,
    UpdateKey,
    UsageGrouping,
    UsageRow,
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

    def create_key(
        self, name: str, expires_in: int, bulk: bool, user: Optional[str], quota: Optional[Quota]
    ) -> Flow[CreatedKey]:
        _check_key_properties(name, expires_in, quota)
        return (yield from self._with_token(lambda token: CreateKey(token, name, expires_in, bulk, user, quota)))

    def list_keys(self, user: Optional[str], all_users: bool) -> Flow[list[ApiKey]]:
        return (yield from self._all_pages(partial(ListKeys, user=user, all_users=all_users)))

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
        quota: Optional[Quota],
    ) -> Flow[ApiKey]:
        _check_key_id(id)
        _check_key_properties(name, expires_in, quota)
        call = partial(UpdateKey, id=id, name=name, disabled=disabled, expires_in=expires_in, bulk=bulk, quota=quota)
        return (yield from self._with_token(call))

    def delete_key(self, id: str) -> Flow[None]:
        _check_key_id(id)
        yield from self._with_token(lambda token: DeleteKey(token, id))

    def describe_key(self) -> Flow[ApiKey]:
        return (yield from self._with_token(DescribeKey))

    def usage(
        self,
        from_: Optional[date],
        to: Optional[date],
        by: Optional[UsageGrouping],
        user: Optional[str],
        key_id: Optional[str],
    ) -> Flow[list[UsageRow]]:
        _check_usage_query(from_, to, by, user, key_id)
        listing = partial(ListUsage, from_=from_, to=to, by=by, user=user, key_id=key_id)
        return (yield from self._all_pages(listing))

    def _all_pages(self, listing: Callable[..., Call[Page[T]]]) -> Flow[list[T]]:
        """The items of all pages of a list, whose call takes a token and `after`."""
        found: list[T] = []
        after: Optional[str] = None
        while True:
            page: Page[T] = yield from self._with_token(partial(listing, after=after))
            found += page.items
            if page.next is None:
                return found
            after = page.next

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


def _check_text(text: Optional[str], what: str) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid text") from None


def _check_key_properties(name: Optional[str], expires_in: Optional[int], quota: Optional[Quota]) -> None:
    """Raises `TypeError` or `ValueError` for what cannot be sent; the service checks the rest."""
    _check_text(name, "the name of the API key")
    if expires_in is not None and not 0 <= operator.index(expires_in) < 1 << 63:
        raise ValueError("expires_in is in seconds, at most ten years; 0 is for never")
    if quota is None:
        return
    if not isinstance(quota, Quota):
        raise TypeError("quota must be a muse_as_service.Quota; NO_QUOTA removes one")
    if not 0 <= operator.index(quota.tokens) < 1 << 63:
        raise ValueError("the tokens of a quota are a positive number; NO_QUOTA removes a quota")
    if quota.period not in get_args(QuotaPeriod):
        raise ValueError(f"the period of a quota is day or month, not {quota.period!r}")


def _check_usage_query(
    from_: Optional[date], to: Optional[date], by: Optional[str], user: Optional[str], key_id: Optional[str]
) -> None:
    """Raises `TypeError` or `ValueError` for what cannot be sent; the service checks the rest."""
    for name, day in ("from_", from_), ("to", to):
        # A datetime is a date, too, but of a time zone.
        if day is not None and (not isinstance(day, date) or isinstance(day, datetime)):
            raise TypeError(f"{name} must be a datetime.date, not {type(day).__name__}")
    if by is not None and by not in get_args(UsageGrouping):
        raise ValueError(f"by is day, user, key or hour, not {by!r}")
    _check_text(user, "the name of the user")
    if key_id is not None:
        _check_key_id(key_id)


def _may_retry(error: MUSEError, call: Call[Any]) -> bool:
    """Whether a retry may succeed, and the service cannot execute the call twice."""
    if error.reason == "QUOTA_EXHAUSTED":
        # Until the period of the quota ends, usually hours later.
        return False
    rejected = error.status is not None and (error.status < 500 or call.retried_after_5xx)
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
