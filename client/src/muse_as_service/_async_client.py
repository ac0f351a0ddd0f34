"""The asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import date
from types import TracebackType
from typing import Any, Optional, TypeVar

import httpx
import numpy as np
import numpy.typing as npt

from ._address import base_url
from ._calls import ApiKey, Call, CreatedKey, Quota, UsageGrouping, UsageRow, Vectors
from ._rest import RestProtocol, connection_error, http_options
from ._transfer import Flow, Session, SingleRequest, Sleep, Step, TokenStore
from .errors import MUSEError

T = TypeVar("T")


class AsyncMUSEClient:
    """`MUSEClient` for asyncio, for any number of tasks of one event loop: the same arguments, methods and errors.

    async with AsyncMUSEClient(ip="localhost", port=5000) as client:
        await client.login(username="admin", password="admin")
        vectors = await client.embed(["Where is the library?", "¿Dónde está la biblioteca?"])
        await client.logout()
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
    ) -> None:
        """As `MUSEClient`."""
        self.url = base_url(ip, port, url)
        self._session = Session(tokens, retry_for, dtype, api_key)
        self._refresh_lock: Optional[asyncio.Lock] = None
        self._transport: _Transport = _Grpc(self.url, ca_file, timeout) if grpc else _Rest(self.url, ca_file, timeout)

    async def login(self, username: str, password: str) -> None:
        """As `MUSEClient.login`."""
        await self._run(self._session.login(username, password))

    async def logout(self) -> None:
        """As `MUSEClient.logout`."""
        await self._run(self._session.logout())

    async def tokenize(self, sentences: Iterable[str]) -> list[list[str]]:
        """As `MUSEClient.tokenize`."""
        return await self._run(self._session.tokenize(sentences))

    async def embed(self, sentences: Iterable[str]) -> Vectors:
        """As `MUSEClient.embed`."""
        return await self._run(self._session.embed(sentences))

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
        """Closes the connections."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncMUSEClient:
        return self

    async def __aexit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

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
        if isinstance(step, SingleRequest):
            # Created here, because on Python 3.9 a lock belongs to the event loop that is current when it is created.
            self._refresh_lock = self._refresh_lock or asyncio.Lock()
            async with self._refresh_lock:
                return await self._run(step.flow)
        return await self._transport.send(step)


class _Transport:
    async def send(self, call: Call[Any]) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class _Rest(_Transport):
    def __init__(self, url: str, ca_file: Optional[str], timeout: Optional[float]) -> None:
        self._url = url
        self._http = httpx.AsyncClient(**http_options(url, ca_file, timeout))
        self._protocol = RestProtocol()

    async def send(self, call: Call[Any]) -> Any:
        try:
            response = await self._http.request(**self._protocol.request(call))
        except httpx.HTTPError as failure:
            raise connection_error(self._url, failure) from None
        return self._protocol.parse(call, response)

    async def close(self) -> None:
        await self._http.aclose()


class _Grpc(_Transport):
    def __init__(self, url: str, ca_file: Optional[str], timeout: Optional[float]) -> None:
        from . import _grpc

        self._grpc = _grpc
        self._address = url, ca_file
        self._timeout = timeout
        # Opened by the first call, in its event loop.
        self._channel: Any = None
        self._protocol: Any = None

    async def send(self, call: Call[Any]) -> Any:
        if self._channel is None:
            self._channel = self._grpc.open_channel(*self._address, asynchronous=True)
            self._protocol = self._grpc.GrpcProtocol(self._channel, self._address[0], self._timeout)
        try:
            response = await self._protocol.start(call)
        except self._grpc.RpcError as failure:
            raise self._protocol.error(failure) from None
        return self._protocol.parse(call, response)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
