"""The logic of the clients without I/O ("sans-I/O"), shared by the blocking and the asyncio client.

A flow is a generator. It yields steps; the client executes each step and sends its result back, or throws the
`MUSEError` that it raised. The flow returns its result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Callable, Optional, TypeVar, Union

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
    GetModel,
    ListKeys,
    ListUsage,
    Login,
    Model,
    ModelResult,
    Page,
    Quota,
    Refresh,
    Revoke,
    Tokenize,
    Tokens,
    UpdateKey,
    UsageGrouping,
    UsageRow,
    Vectors,
)
from ._checks import check_key_id, check_key_properties, check_text, check_usage_query, checked_key
from ._chunking import MAX_SENTENCES, size
from ._fingerprint import Requirement, checked_fingerprint
from ._jobs import Attempt, Chunk, Job, Progress
from ._retry import Retry, RetryHook, backoff, log_retry, logger, may_retry
from ._sentences import Sentences, check
from ._tokens import InMemory, TokenStore
from .errors import AuthenticationError, MUSEError, OverloadedError, TooLargeError, UnavailableError

API_KEY_VARIABLE = "MUSE_API_KEY"
DIMENSION = 512
# The limit of a service that reports none: `/v1/models` does not.
MAX_SENTENCE_BYTES = 262_144
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


class Session:
    """The flows of one client and its tokens."""

    def __init__(
        self,
        store: Optional[TokenStore],
        retry_for: float,
        dtype: npt.DTypeLike,
        api_key: Optional[str] = None,
        on_retry: Optional[RetryHook] = None,
        fingerprint: Optional[str] = None,
    ) -> None:
        self._required = checked_fingerprint(fingerprint)
        self.fingerprint: Optional[str] = None
        """That of the last response of the model."""
        # The environment is for programs that pass neither credential.
        self._api_key = checked_key(os.environ.get(API_KEY_VARIABLE) if api_key is None and store is None else api_key)
        self._store = store or InMemory()
        self._tokens = self._store.load()
        self._retry_for = retry_for
        self._on_retry = on_retry or log_retry
        self._model: Optional[Model] = None
        self._has_models = True
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        if self._dtype.kind != "f":
            raise TypeError(f"dtype must be a floating-point type such as float32, not {self._dtype}")
        self._embed_call = partial(Embed, float16=self._dtype == np.float16)

    def login(self, username: str, password: str) -> Flow[None]:
        check_text(username, "the name of the user")
        check_text(password, "the password")
        try:
            tokens = yield from self._with_retries(Login(username, password))
        except AuthenticationError as error:
            text = f"the user's name or the password is wrong ({error.message})"
            raise AuthenticationError(text, status=error.status, reason=error.reason) from None
        if self._api_key is not None:
            source = f"which is from an argument or {API_KEY_VARIABLE}"
            logger.warning("login() replaces the API key of this client, %s", source)
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

    def require(self, fingerprint: Optional[str]) -> None:
        """Requires a fingerprint for all further calls of the model."""
        self._required = checked_fingerprint(fingerprint)

    def model(self) -> Flow[Model]:
        model = yield from self._with_token(partial(GetModel, fingerprint=self._required))
        self._accept(model.fingerprint, Requirement(self._required))
        self._model = model
        return model

    def tokenizing(self, sentences: Sentences, progress: Optional[Progress]) -> Job[list[list[str]]]:
        return Job(check(sentences), _joined, progress, MAX_SENTENCES, self._required)

    def embedding(
        self,
        sentences: Sentences,
        progress: Optional[Progress],
        chunk_size: int = MAX_SENTENCES,
        reasons: Optional[dict[int, str]] = None,
    ) -> Job[Vectors]:
        """If `reasons` is not None, the vectors of the sentences in it, and of those that are too long, are NaN."""
        return Job(check(sentences), self._concatenated, progress, chunk_size, self._required, reasons)

    def tokenize_chunk(self, chunk: Chunk, attempt: Attempt) -> Flow[list[list[list[str]]]]:
        return (yield from self._split_if_too_large(chunk.sentences, chunk.start, Tokenize, attempt.requirement))

    def embed_chunk(self, chunk: Chunk, attempt: Attempt) -> Flow[list[Vectors]]:
        if attempt.reasons is not None:
            return (yield from self._embed_chunk_without(chunk, attempt.reasons, attempt.requirement))
        call, requirement = self._embed_call, attempt.requirement
        return (yield from self._split_if_too_large(chunk.sentences, chunk.start, call, requirement))

    def _embed_chunk_without(
        self, chunk: Chunk, reasons: dict[int, str], requirement: Requirement
    ) -> Flow[list[Vectors]]:
        """The vectors of a chunk, with NaN for the sentences in `reasons`, to which sentences that are too long are
        added."""
        positions = [position for position in chunk.positions() if position not in reasons]
        found: list[Vectors] = []
        while positions:
            sentences = [chunk.sentences[position - chunk.start] for position in positions]
            try:
                found = yield from self._split_if_too_large(sentences, 0, self._embed_call, requirement)
                break
            except TooLargeError as error:
                if error.index is None:
                    raise
                reasons[positions.pop(error.index)] = error.message.partition("] is ")[2]
        vectors = np.full((len(chunk.sentences), found[0].shape[1] if found else DIMENSION), np.nan, np.float32)
        if found:
            vectors[np.array(positions) - chunk.start] = np.concatenate(found)
        return [vectors]

    def check_lengths(self, job: Job[Any]) -> Flow[None]:
        """Checks all sentences before the first request, if the job has several. Raises `TooLargeError` for the first
        one that is too long, or adds them to the reasons of the attempt."""
        if len(job.chunks) < 2:
            return
        limit = yield from self._max_sentence_bytes()
        for chunk in job.chunks:
            for position, sentence in zip(chunk.positions(), chunk.sentences):
                # A character has up to four bytes.
                if limit is None or 4 * len(sentence) <= limit or size(sentence) <= limit:
                    continue
                text = f"{size(sentence)} bytes; the limit is {limit} a sentence"
                error = _too_long(TooLargeError(text, status=413, reason="TOO_LARGE"), position)
                if job.attempt.reasons is None:
                    raise error
                job.attempt.reasons[position] = error.message.partition("] is ")[2]

    def create_key(
        self, name: str, expires_in: int, bulk: bool, user: Optional[str], quota: Optional[Quota]
    ) -> Flow[CreatedKey]:
        check_key_properties(name, expires_in, quota)
        return (yield from self._with_token(lambda token: CreateKey(token, name, expires_in, bulk, user, quota)))

    def list_keys(self, user: Optional[str], all_users: bool) -> Flow[list[ApiKey]]:
        return (yield from self._all_pages(partial(ListKeys, user=user, all_users=all_users)))

    def get_key(self, id: str) -> Flow[ApiKey]:
        check_key_id(id)
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
        check_key_id(id)
        check_key_properties(name, expires_in, quota)
        call = partial(UpdateKey, id=id, name=name, disabled=disabled, expires_in=expires_in, bulk=bulk, quota=quota)
        return (yield from self._with_token(call))

    def delete_key(self, id: str) -> Flow[None]:
        check_key_id(id)
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
        check_usage_query(from_, to, by, user, key_id)
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

    def _max_sentence_bytes(self) -> Flow[Optional[int]]:
        """The limit of the service; None if it is unknown."""
        if self._model is None and self._has_models:
            try:
                yield from self.model()
            except MUSEError as error:
                # Release 1 has no such call.
                if error.status not in (404, 405):
                    raise
                self._has_models = False
        if self._model is None:
            return None
        return self._model.max_sentence_bytes or MAX_SENTENCE_BYTES

    def _concatenated(self, results: list[Vectors]) -> Vectors:
        if not results:
            return np.empty((0, DIMENSION), self._dtype)
        vectors = results[0] if len(results) == 1 else np.concatenate(results)
        return vectors.astype(self._dtype, copy=False)

    def _split_if_too_large(
        self, chunk: list[str], start: int, call: Callable[..., Call[ModelResult[T]]], requirement: Requirement
    ) -> Flow[list[T]]:
        """The results for a chunk that begins at sentence `start`. A chunk that is too large is sent in halves.

        `call` takes a token, sentences and the required fingerprint.
        """
        try:
            result: ModelResult[T] = yield from self._with_token(
                lambda token: call(token, chunk, fingerprint=requirement.fingerprint)
            )
            self._accept(result.fingerprint, requirement)
            return [result.value]
        except TooLargeError as error:
            if len(chunk) == 1:
                error.index = 0
            if error.index is not None:
                raise _too_long(error, start + error.index) from None
        middle = len(chunk) // 2
        first = yield from self._split_if_too_large(chunk[:middle], start, call, requirement)
        return first + (yield from self._split_if_too_large(chunk[middle:], start + middle, call, requirement))

    def _accept(self, fingerprint: Optional[str], requirement: Requirement) -> None:
        """Checks the fingerprint of a response: also a service that ignores the requirement must fulfil it."""
        requirement.check(fingerprint)
        self.fingerprint = fingerprint

    def _with_token(self, call: Callable[[str], Call[T]]) -> Flow[T]:
        if self._api_key is not None:
            return (yield from self._with_retries(call(self._api_key)))
        for _ in range(MAX_RENEWALS):
            token = self._logged_in().access
            try:
                return (yield from self._with_retries(call(token)))
            except AuthenticationError as error:
                if error.reason == "TOKEN_REVOKED" and self._reload(token):
                    # Another process has logged out and in again.
                    continue
                if error.reason != "TOKEN_EXPIRED":
                    raise
            yield SingleRequest(self._refresh(token))
        return (yield from self._with_retries(call(self._logged_in().access)))

    def _reload(self, rejected: str) -> bool:
        """Loads the tokens of the store. Returns whether they replace the rejected access token."""
        self._tokens = self._store.load()
        return self._logged_in().access != rejected

    def _refresh(self, expired: str) -> Flow[None]:
        if self._reload(expired):
            # Another thread, task or process has refreshed it.
            return
        tokens = self._logged_in()
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
                wait = backoff(error, attempts)
                remaining = deadline - time.monotonic()
                if not may_retry(error, call) or wait > remaining:
                    raise
                attempts += 1
                self._on_retry(Retry(error, attempts, wait, remaining))
            yield Sleep(wait)

    def _logged_in(self) -> Tokens:
        if self._tokens is None:
            raise AuthenticationError("not logged in: call login() first, or pass an api_key", reason="TOKEN_MISSING")
        return self._tokens

    def _save(self, tokens: Optional[Tokens]) -> None:
        self._tokens = tokens
        self._store.save(tokens)


def _joined(results: list[list[list[str]]]) -> list[list[str]]:
    return [tokens for chunk in results for tokens in chunk]


def _too_long(error: TooLargeError, index: int) -> TooLargeError:
    text = f"sentences[{index}] is too long ({_detail(error)}): shorten it or split it"
    return TooLargeError(text, status=error.status, reason=error.reason, index=index)


def _detail(error: MUSEError) -> str:
    """The service's message without the index in the request, which differs from the index in the caller's list."""
    place, colon, rest = error.message.partition(": ")
    return rest if colon and place.startswith("sentences[") else error.message
