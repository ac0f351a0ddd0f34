"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Optional, TypeVar

import httpx
import numpy as np
import numpy.typing as npt

from ._address import base_url
from ._calls import Call, Vectors
from ._flow import Alone, Flow, Session, Sleep, Step, TokenStore
from ._rest import RestProtocol, http_options, unreachable
from .errors import MUSEError

T = TypeVar("T")


class MUSEClient:
    """A client of MUSE as Service, for use by any number of threads.

        with MUSEClient(ip="localhost", port=5000) as client:
            client.login(username="admin", password="admin")
            vectors = client.embed(["Where is the library?", "¿Dónde está la biblioteca?"])
            client.logout()

    Connections are kept and used again; `close()`, or the end of a `with` block, closes them, and does not log out.
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
    ) -> None:
        """Makes no connection yet.

        :param ip: name or address of the service's host
        :param port: its port
        :param url: its address as `https://host:port`, in place of `ip` and `port`
        :param grpc: talk gRPC to it, not REST (needs `pip install 'muse-as-service[grpc]'`)
        :param ca_file: a PEM file with the certificates to trust, in place of the system's, where the url is https
        :param timeout: seconds to wait for each answer; None for ever
        :param retry_for: seconds for which a call that is refused for now, or breaks off, is tried again; 0 for never
        :param dtype: type of the numbers that `embed` returns. They are computed as float32; float64 is what earlier
            releases returned
        :param tokens: keeps the tokens elsewhere, so that a login outlives this object
        """
        self.url = base_url(ip, port, url)
        self._session = Session(tokens, retry_for, dtype)
        self._alone = threading.Lock()
        self._transport: _Transport = _Grpc(self.url, ca_file, timeout) if grpc else _Rest(self.url, ca_file, timeout)

    def login(self, username: str, password: str) -> None:
        """Logs in. Needed before `tokenize` and `embed`; the tokens are renewed by themselves from then on.

        Raises `AuthenticationError` if the name or the password is wrong, `OverloadedError` after too many failures.
        """
        self._run(self._session.login(username, password))

    def logout(self) -> None:
        """Ends the login: both of its tokens are revoked."""
        self._run(self._session.logout())

    def tokenize(self, sentences: Iterable[str]) -> list[list[str]]:
        """The tokens of each sentence, as the model sees them.

        Any number of sentences; they are sent in as many requests as are needed.
        """
        return self._run(self._session.tokenize(sentences))

    def embed(self, sentences: Iterable[str]) -> Vectors:
        """One unit vector for each sentence: an array of shape (sentences, 512), of the client's `dtype`.

        Any number of sentences; they are sent in as many requests as are needed. Raises `TooLargeError` if one is too
        long; its `index` says which.
        """
        return self._run(self._session.embed(sentences))

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> MUSEClient:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    outcome = self._take(step)
                except MUSEError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    def _take(self, step: Step) -> Any:
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        if isinstance(step, Alone):
            with self._alone:
                return self._run(step.flow)
        return self._transport.send(step)


class _Transport:
    def send(self, call: Call[Any]) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _Rest(_Transport):
    def __init__(self, url: str, ca_file: Optional[str], timeout: Optional[float]) -> None:
        self._url = url
        self._http = httpx.Client(**http_options(url, ca_file, timeout))
        self._protocol = RestProtocol()

    def send(self, call: Call[Any]) -> Any:
        try:
            response = self._http.request(**self._protocol.request(call))
        except httpx.HTTPError as failure:
            raise unreachable(self._url, failure) from None
        return self._protocol.answer(call, response)

    def close(self) -> None:
        self._http.close()


class _Grpc(_Transport):
    def __init__(self, url: str, ca_file: Optional[str], timeout: Optional[float]) -> None:
        from . import _grpc

        self._failure = _grpc.RpcError
        self._channel = _grpc.open_channel(url, ca_file, asynchronous=False)
        self._protocol = _grpc.GrpcProtocol(self._channel, url, timeout)

    def send(self, call: Call[Any]) -> Any:
        try:
            response = self._protocol.start(call)
        except self._failure as failure:
            raise self._protocol.error(failure) from None
        return self._protocol.answer(call, response)

    def close(self) -> None:
        self._channel.close()
