"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from functools import partial
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar

import numpy as np
import numpy.typing as npt

from . import _fork
from ._calls import ApiKey, CreatedKey, Model, Quota, UsageGrouping, UsageRow, Vectors
from ._checks import checked_concurrency
from ._client_base import ClientBase, connection_settings
from ._jobs import Attempt, Chunk, Job, Progress
from ._retry import RetryHook
from ._sentences import Sentences
from ._tokens import TokenStore
from ._transfer import Flow, Session, SingleRequest, Sleep, Step
from ._transport import Transport, connector
from ._workers import Workers
from .errors import MUSEError

T = TypeVar("T")


class MUSEClient(ClientBase):
    """A client of MUSE as Service, for use by any number of threads and, after a fork, by child processes.

        with MUSEClient(ip="localhost", port=5000) as client:
            client.login(username="admin", password="admin")
            vectors = client.embed(["Where is the library?", "¿Dónde está la biblioteca?"])
            client.logout()

    The client reuses its connections. `close()`, or the end of a `with` block, closes them; it does not log out. A
    pickled client contains its credential, and no connections.
    """

    _lock: threading.Lock
    _connections: Optional[_Connections]

    def __init__(
        self,
        ip: str = "localhost",
        port: int = 5000,
        *,
        url: Optional[str] = None,
        grpc: bool = False,
        ca_file: Optional[str] = None,
        timeout: Optional[float] = 60.0,
        retry_for: float = 60.0,
        dtype: npt.DTypeLike = np.float64,
        tokens: Optional[TokenStore] = None,
        api_key: Optional[str] = None,
        on_retry: Optional[RetryHook] = None,
        fingerprint: Optional[str] = None,
    ) -> None:
        """Does not connect yet.

        :param ip: host name or IP address of the service
        :param port: port of the service
        :param url: URL of the service, such as `https://host:port`, instead of `ip` and `port`
        :param grpc: use gRPC instead of REST (requires `pip install 'muse-as-service[grpc]'`)
        :param ca_file: PEM file with the CA certificates to trust instead of the system's, for an https URL
        :param timeout: seconds to wait for each response; None for no limit
        :param retry_for: seconds for which the client retries calls that the service rejects temporarily or that a
            broken connection interrupts; 0 disables retries
        :param dtype: data type of the vectors. The service computes float32; float64 is the type of release 1
        :param tokens: stores the tokens outside of this object, so that a login outlives it
        :param api_key: API key (`muse_…`), instead of a login; default: the environment variable `MUSE_API_KEY`, unless
            `tokens` is set. An empty string disables both. After `login` the client uses the tokens of the login
        :param on_retry: called with a `Retry` before the client waits to repeat a failed call, in the thread of the
            call; default: logs a warning to the logger `muse_as_service` when the service is away
        :param fingerprint: the fingerprint (`Model.fingerprint`) that the model of the service must have. `model`,
            `tokenize` and `embed` raise `FingerprintMismatchError` if it has another one
        """
        settings = connection_settings(ip, port, url, ca_file, timeout, grpc)
        self._set_up(settings, Session(tokens, retry_for, dtype, api_key, on_retry, fingerprint))

    def login(self, username: str, password: str) -> None:
        """Logs in. Required before `tokenize` and `embed` without an API key. The client renews expired tokens itself.

        Raises `AuthenticationError` if the name or the password is wrong, `OverloadedError` after too many failures.
        """
        self._run(self._session.login(username, password))

    def logout(self) -> None:
        """Revokes both tokens of the login. Does nothing with an API key, which remains valid."""
        self._run(self._session.logout())

    def model(self) -> Model:
        """Returns the description of the model, and the limits of requests."""
        return self._run(self._session.model())

    def tokenize(
        self, sentences: Sentences, *, concurrency: int = 1, progress: Optional[Progress] = None
    ) -> list[list[str]]:
        """Returns the model's tokens of each sentence. The arguments and errors are those of `embed`."""
        job = self._session.tokenizing(sentences, progress)
        return self._run_job(job, self._session.tokenize_chunk, concurrency)

    def embed(self, sentences: Sentences, *, concurrency: int = 1, progress: Optional[Progress] = None) -> Vectors:
        """Returns one unit vector for each sentence: an array (sentences, 512) of the client's `dtype`.

        Accepts any number of sentences and splits them into requests. Raises `TooLargeError` if a sentence is too
        long; `index` is its position. After an error of a later request, its `partial` has the vectors of the first
        sentences.

        All vectors are of one model: if the model of the service changes between two requests, the client starts over,
        once; `progress` then begins again. With a required `fingerprint` it raises `FingerprintMismatchError` instead.

        :param sentences: a list, a generator, a numpy array, a pandas or polars Series, or an Arrow array of strings
        :param concurrency: the number of simultaneous requests, from 1 to 64
        :param progress: called after each request with the number of sentences that are done, and of all
        """
        job = self._session.embedding(sentences, progress)
        return self._run_job(job, self._session.embed_chunk, concurrency)

    def create_key(
        self,
        name: str,
        *,
        expires_in: int = 0,
        bulk: bool = False,
        user: Optional[str] = None,
        quota: Optional[Quota] = None,
    ) -> CreatedKey:
        """Creates an API key, whose `key` only this result contains. Requires a login, as all methods for keys except
        `describe_key`.

        :param name: a name for people, of 1 to 100 bytes
        :param expires_in: seconds until the key expires; 0 for never
        :param bulk: whether its calls are a bulk job, which must not slow the other calls of its owner
        :param user: the owner instead of the caller, for admins
        :param quota: a limit on its tokens, such as `Quota(1_000_000, "day")`; None for no limit
        """
        return self._run(self._session.create_key(name, expires_in, bulk, user, quota))

    def list_keys(self, *, user: Optional[str] = None, all_users: bool = False) -> list[ApiKey]:
        """Returns the caller's API keys by time of creation. For admins: those of `user`, or of all."""
        return self._run(self._session.list_keys(user, all_users))

    def get_key(self, id: str) -> ApiKey:
        """Returns the description of an API key. The `reason` of the `MUSEError` is `NO_SUCH_KEY` if there is none."""
        return self._run(self._session.get_key(id))

    def update_key(
        self,
        id: str,
        *,
        name: Optional[str] = None,
        disabled: Optional[bool] = None,
        expires_in: Optional[int] = None,
        bulk: Optional[bool] = None,
        quota: Optional[Quota] = None,
    ) -> ApiKey:
        """Changes those properties of an API key that are not None. `expires_in` counts from now; 0 is for never.
        `quota=NO_QUOTA` removes the quota."""
        return self._run(self._session.update_key(id, name, disabled, expires_in, bulk, quota))

    def delete_key(self, id: str) -> None:
        """Deletes an API key, which is rejected from then on."""
        self._run(self._session.delete_key(id))

    def describe_key(self) -> ApiKey:
        """Returns the description of the client's own API key."""
        return self._run(self._session.describe_key())

    def usage(
        self,
        from_: Optional[date] = None,
        to: Optional[date] = None,
        by: Optional[UsageGrouping] = None,
        user: Optional[str] = None,
        key_id: Optional[str] = None,
    ) -> list[UsageRow]:
        """Returns the usage of the service: the caller's own, for admins that of all users, with an API key that of the
        key. The service adds a call within some two seconds. Groups without usage are absent.

        Raises `MUSEError` with the `reason` `PERMISSION_DENIED` for the usage of others, `NO_SUCH_USER` if nobody of
        that name is a user or has used the service.

        :param from_: the first day (UTC); default: 29 days before the last one
        :param to: the last day (UTC), which is included; default: today
        :param by: how usage is grouped; default: by day, user and API key. Hours are stored for 31 days
        :param user: only the usage of this user
        :param key_id: only the usage of the API key with this id
        """
        return self._run(self._session.usage(from_, to, by, user, key_id))

    def close(self) -> None:
        """Closes the connections. A later call opens new ones."""
        with self._lock:
            connections = self._connections
            self._connections = None
        if connections is not None:
            connections.closed = True
            connections.transport.close()

    def __enter__(self) -> MUSEClient:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _set_up(self, settings: dict[str, Any], session: Session) -> None:
        self.url: str = settings["url"]
        self._settings = settings
        self._session = session
        self._connections = None
        self._open_transport, _ = connector(**settings)
        self._max_requests: Optional[int] = None
        self._lock = threading.Lock()
        _fork.register(self)

    def _after_fork(self) -> object:
        """Forgets the connections of the parent process, and returns them. Called in the child."""
        # Another thread may hold the lock.
        self._lock = threading.Lock()
        inherited, self._connections = self._connections, None
        return inherited

    def _connected(self) -> _Connections:
        with self._lock:
            if self._connections is None:
                self._connections = _Connections(self._open_transport(), self._max_requests)
            return self._connections

    def _embed_batch(
        self, sentences: list[str], batch_size: int, concurrency: int, reasons: Optional[dict[int, str]]
    ) -> tuple[Vectors, Optional[str]]:
        """As `embed`; returns also the fingerprint of the model. If `reasons` is not None, the vectors of the sentences
        in it are NaN, and sentences that are too long are added to it."""
        job = self._session.embedding(sentences, None, batch_size, reasons)
        vectors = self._run_job(job, self._session.embed_chunk, concurrency)
        if reasons is not None:
            reasons.update(job.attempt.reasons or {})
        return vectors, job.attempt.requirement.found

    def _run_job(self, job: Job[T], run: Callable[[Chunk, Attempt], Flow[list[Any]]], concurrency: int) -> T:
        """Runs the flows of the chunks, and returns their results in order."""
        checked_concurrency(concurrency)
        while True:
            try:
                self._run(self._session.check_lengths(job))
                with self._in_order(job.chunks, job.bound(run), concurrency) as results:
                    for result in results:
                        job.add(result)
                return job.result()
            except MUSEError as error:
                if not job.restart(error):
                    raise job.failure(error) from None

    @contextmanager
    def _in_order(
        self, chunks: list[Chunk], run: Callable[[Chunk], Flow[list[Any]]], concurrency: int
    ) -> Iterator[Iterator[list[Any]]]:
        if concurrency == 1 or len(chunks) < 2:
            yield (self._run(run(chunk)) for chunk in chunks)
            return
        failed, stopped = threading.Event(), threading.Event()

        def run_chunk(chunk: Chunk) -> list[Any]:
            if failed.is_set():
                # An earlier chunk has failed, because threads take chunks in their order.
                raise _StoppedError
            try:
                return self._run(run(chunk), stopped)
            except BaseException:
                failed.set()
                raise

        workers = Workers(min(concurrency, len(chunks)))
        try:
            started = [workers.submit(partial(run_chunk, chunk)) for chunk in chunks]
            yield (future.result() for future in started)
        finally:
            # After an error or Ctrl-C, the threads end with the requests that they have sent.
            stopped.set()
            workers.close()

    def _run(self, flow: Flow[T], stopped: Optional[threading.Event] = None) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    outcome = self._execute(step, stopped)
                except MUSEError as error:
                    if stopped is not None and stopped.is_set():
                        # The connections may be closed already.
                        raise _StoppedError from None
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    def _execute(self, step: Step, stopped: Optional[threading.Event]) -> Any:
        if isinstance(step, Sleep):
            if stopped is None:
                return time.sleep(step.seconds)
            if stopped.wait(step.seconds):
                raise _StoppedError
            return None
        if isinstance(step, SingleRequest):
            with self._connected().refresh_lock:
                return self._run(step.flow, stopped)
        connections = self._connected()
        with connections.slots:
            try:
                return connections.transport.send(step)
            except Exception:
                if connections.closed:
                    # Otherwise a call of another thread would be repeated.
                    raise MUSEError("the client was closed during the call", reason="CLOSED") from None
                raise


class _StoppedError(Exception):
    """Ends a thread whose result nobody waits for."""


class _Connections:
    """What one process owns. A fork copies it with the locks that other threads hold."""

    def __init__(self, transport: Transport, max_requests: Optional[int]) -> None:
        self.transport = transport
        self.closed = False
        self.refresh_lock = threading.Lock()
        self.slots: Any = nullcontext() if max_requests is None else threading.BoundedSemaphore(max_requests)
