"""Executes calls over REST or gRPC, blocking or with asyncio.

A connector is created with the client and validates its settings; it opens a transport, which connects, in each process
and event loop that uses the client.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import httpx

from ._calls import Call
from ._grpc_fork import fork_gate
from ._http import HttpConnector
from ._rest import RestProtocol


class Transport:
    """A blocking transport, for any number of threads."""

    def send(self, call: Call[Any]) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class AsyncTransport:
    """A transport of one event loop."""

    async def send(self, call: Call[Any]) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


def connector(
    url: str, ca_file: Optional[str], timeout: Optional[float], *, grpc: bool
) -> tuple[Callable[[], Transport], Callable[[], AsyncTransport]]:
    """Returns the functions that open a transport to `url`."""
    if not grpc:
        http = HttpConnector(url, ca_file, timeout)
        return lambda: _Rest(http), lambda: _AsyncRest(http)
    # Both need optional packages.
    from ._grpc import GrpcProtocol
    from ._grpc_channel import ChannelConnector

    channels = ChannelConnector(url, ca_file)

    def protocol(channel: Any) -> GrpcProtocol:
        return GrpcProtocol(channel, channels, timeout)

    return lambda: _Grpc(channels, protocol), lambda: _AsyncGrpc(channels, protocol)


class _Rest(Transport):
    def __init__(self, connector: HttpConnector) -> None:
        self._connector = connector
        self._http = connector.open()
        self._protocol = RestProtocol(connector.visible_proxy)

    def send(self, call: Call[Any]) -> Any:
        try:
            response = self._http.request(**self._protocol.request(call))
        except httpx.HTTPError as failure:
            raise self._connector.error(failure) from None
        return self._protocol.parse(call, response)

    def close(self) -> None:
        self._http.close()


class _AsyncRest(AsyncTransport):
    def __init__(self, connector: HttpConnector) -> None:
        self._connector = connector
        self._http = connector.open_async()
        self._protocol = RestProtocol(connector.visible_proxy)

    async def send(self, call: Call[Any]) -> Any:
        try:
            response = await self._http.request(**self._protocol.request(call))
        except httpx.HTTPError as failure:
            raise self._connector.error(failure) from None
        return self._protocol.parse(call, response)

    async def close(self) -> None:
        await self._http.aclose()


class _Grpc(Transport):
    def __init__(self, channels: Any, protocol: Callable[[Any], Any]) -> None:
        with fork_gate.call():
            self._channel = channels.open(asynchronous=False)
        self._protocol = protocol(self._channel)

    def send(self, call: Call[Any]) -> Any:
        try:
            method, message = self._protocol.request(call)
            with fork_gate.call():
                response, finished = method.with_call(message, **self._protocol.options(call))
                metadata = finished.initial_metadata()
        except self._protocol.failure as failure:
            raise self._protocol.error(call, failure) from None
        return self._protocol.parse(call, response, metadata)

    def close(self) -> None:
        with fork_gate.call():
            self._channel.close()


class _AsyncGrpc(AsyncTransport):
    def __init__(self, channels: Any, protocol: Callable[[Any], Any]) -> None:
        fork_gate.check_asyncio()
        self._channel = channels.open(asynchronous=True)
        self._protocol = protocol(self._channel)

    async def send(self, call: Call[Any]) -> Any:
        try:
            method, message = self._protocol.request(call)
            started = method(message, **self._protocol.options(call))
            response, metadata = await started, await started.initial_metadata()
        except self._protocol.failure as failure:
            raise self._protocol.error(call, failure) from None
        return self._protocol.parse(call, response, metadata)

    async def close(self) -> None:
        await self._channel.close()
