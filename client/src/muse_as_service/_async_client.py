"""The asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import date
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
from ._transport import AsyncTransport, connector
from .errors import MUSEError

T = TypeVar("T")


class AsyncMUSEClient(ClientBase):
    """`MUSEClient` for asyncio, for any number of tasks: the same arguments, methods and errors.

    async with AsyncMUSEClient(ip="localhost", port=5000) as client:
        await client.login(username="admin", password="admin")
        vectors = await client.embed(["Where is the library?", "¿Dónde está la biblioteca?"])
        await client.logout()

    Each event loop has connections of its own, which also close when `asyncio.run` ends.
    """

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
        """As `MUSEClient`."""
        settings = connection_settings(ip, port, url, ca_file, timeout, grpc)
        self._set_up(settings, Session(tokens, retry_for, dtype, api_key, on_retry, fingerprint))

    async def login(self, username: str, password: str) -> None:
        """As `MUSEClient.login`."""
        await self._run(self._session.login(username, password))

    async def logout(self) -> None:
        """As `MUSEClient.logout`."""
        await self._run(self._session.logout())

    async def model(self) -> Model:
        """As `MUSEClient.model`."""
        return await self._run(self._session.model())

    async def tokenize(
        self, sentences: Sentences, *, concurrency: int = 1, progress: Optional[Progress] = None
    ) -> list[list[str]]:
        """As `MUSEClient.tokenize`."""
        job = self._session.tokenizing(sentences, progress)
        return await self._run_job(job, self._session.tokenize_chunk, concurrency)

    async def embed(
        self, sentences: Sentences, *, concurrency: int = 1, progress: Optional[Progress] = None
    ) -> Vectors:
        """As `MUSEClient.embed`."""
        job = self._session.embedding(sentences, progress)
        return await self._run_job(job, self._session.embed_chunk, concurrency)

    async def create_key(
        self,
        name: str,
        *,
        expires_in: int = 0,
        bulk: bool = False,
        user: Optional[str] = None,
        quota: Optional[Quota] = None,
    ) -> CreatedKey:
        """As `MUSEClient.create_key`."""
        return await self._run(self._session.create_key(name, expires_in, bulk, user, quota))

    async def list_keys(self, *, user: Optional[str] = None, all_users: bool = False) -> list[ApiKey]:
        """As `MUSEClient.list_keys`."""
        return await self._run(self._session.list_keys(user, all_users))

    async def get_key(self, id: str) -> ApiKey:
        """As `MUSEClient.get_key`."""
        return await self._run(self._session.get_key(id))

    async def update_key(
        self,
        id: str,
        *,
        name: Optional[str] = None,
        disabled: Optional[bool] = None,
        expires_in: Optional[int] = None,
        bulk: Optional[bool] = None,
        quota: Optional[Quota] = None,
    ) -> ApiKey:
        """As `MUSEClient.update_key`."""
        return await self._run(self._session.update_key(id, name, disabled, expires_in, bulk, quota))

    async def delete_key(self, id: str) -> None:
        """As `MUSEClient.delete_key`."""
        await self._run(self._session.delete_key(id))

    async def describe_key(self) -> ApiKey:
        """As `MUSEClient.describe_key`."""
        return await self._run(self._session.describe_key())

    async def usage(
        self,
        from_: Optional[date] = None,
        to: Optional[date] = None,
        by: Optional[UsageGrouping] = None,
        user: Optional[str] = None,
        key_id: Optional[str] = None,
    ) -> list[UsageRow]:
        """As `MUSEClient.usage`."""
        return await self._run(self._session.usage(from_, to, by, user, key_id))

    async def close(self) -> None:
        """Closes the connections of this event loop. A later call opens new ones."""
        connections = self._loops.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.close()

    async def __aenter__(self) -> AsyncMUSEClient:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    def _set_up(self, settings: dict[str, Any], session: Session) -> None:
        self.url: str = settings["url"]
        self._settings = settings
        self._session = session
        _, self._open_transport = connector(**settings)
        self._loops: dict[asyncio.AbstractEventLoop, _Connections] = {}
        _fork.register(self)

    def _after_fork(self) -> object:
        """Forgets the connections of the parent process, and returns them. Called in the child."""
        inherited, self._loops = self._loops, {}
        return inherited

    async def _connected(self) -> _Connections:
        loop = asyncio.get_running_loop()
        connections = self._loops.get(loop)
        if connections is None:
            # Those of closed loops are closed. Other threads may run loops at the same time.
            for other in [other for other in list(self._loops) if other.is_closed()]:
                self._loops.pop(other, None)
            self._loops[loop] = connections = _Connections(self._open_transport())
            await connections.close_with_loop()
        return connections

    async def _run_job(self, job: Job[T], run: Callable[[Chunk, Attempt], Flow[list[Any]]], concurrency: int) -> T:
        """Runs the flows of the chunks, and returns their results in order."""
        checked_concurrency(concurrency)
        while True:
            try:
                await self._run(self._session.check_lengths(job))
                await self._add_all(job, job.bound(run), concurrency)
                return job.result()
            except MUSEError as error:
                if not job.restart(error):
                    raise job.failure(error) from None

    async def _add_all(self, job: Job[Any], run: Callable[[Chunk], Flow[list[Any]]], concurrency: int) -> None:
        """Runs the flows of the chunks, and adds their results to the job in order."""
        slots = asyncio.Semaphore(concurrency)
        failed = asyncio.Event()

        async def run_chunk(chunk: Chunk) -> list[Any]:
            async with slots:
                if failed.is_set():
                    # An earlier chunk has failed, because tasks start in their order.
                    raise asyncio.CancelledError
                try:
                    return await self._run(run(chunk))
                except BaseException:
                    failed.set()
                    raise

        tasks: list[asyncio.Future[list[Any]]] = []
        try:
            tasks = [asyncio.ensure_future(run_chunk(chunk)) for chunk in job.chunks]
            for task in tasks:
                job.add(await task)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    outcome = await self._execute(step)
                except MUSEError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _execute(self, step: Step) -> Any:
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        connections = await self._connected()
        if isinstance(step, SingleRequest):
            async with connections.refresh_lock:
                return await self._run(step.flow)
        return await connections.transport.send(step)


class _Connections:
    """What one event loop owns."""

    def __init__(self, transport: AsyncTransport) -> None:
        self.transport = transport
        # On Python 3.9 a lock belongs to the event loop that is current when it is created.
        self.refresh_lock = asyncio.Lock()
        self._closer = self._close_at_end()

    async def close_with_loop(self) -> None:
        """Makes `asyncio.run` close the connections: it ends suspended asynchronous generators before it closes the
        loop. Connections that are closed later fail with 'Event loop is closed'."""
        await self._closer.__anext__()

    async def close(self) -> None:
        await self._closer.aclose()

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.transport.close()
