"""The blocking client."""

from __future__ import annotations

import threading
import time
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


class MUSEClient:
    """A client of MUSE as Service, for use by any number of threads.

        with MUSEClient(ip="localhost", port=5000) as client:
            client.login(username="admin", password="admin")
            vectors = client.embed(["Where is the library?", "¿Dónde está la biblioteca?"])
            client.logout()

    The client reuses its connections. `close()`, or the end of a `with` block, closes them; it does not log out.
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
        """
        self.url = base_url(ip, port, url)
        self._session = Session(tokens, retry_for, dtype, api_key)
        self._refresh_lock = threading.Lock()
        self._transport: _Transport = _Grpc(self.url, ca_file, timeout) if grpc else _Rest(self.url, ca_file, timeout)

    def login(self, username: str, password: str) -> None:
        """Logs in. Required before `tokenize` and `embed` without an API key. The client renews expired tokens itself.

        Raises `AuthenticationError` if the name or the password is wrong, `OverloadedError` after too many failures.
        """
        self._run(self._session.login(username, password))

    def logout(self) -> None:
        """Revokes both tokens of the login. Does nothing with an API key, which remains valid."""
        self._run(self._session.logout())

    def tokenize(self, sentences: Iterable[str]) -> list[list[str]]:
        """Returns the model's tokens of each sentence.

        Accepts any number of sentences and splits them into requests.
        """
        return self._run(self._session.tokenize(sentences))

    def embed(self, sentences: Iterable[str]) -> Vectors:
        """Returns one unit vector for each sentence: an array (sentences, 512) of the client's `dtype`.

        Accepts any number of sentences and splits them into requests. Raises `TooLargeError` if a sentence is too
        long; `index` is its position.
        """
        return self._run(self._session.embed(sentences))

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
        """Returns the caller's API keys in the order of their creation. For admins: those of `user`, or of all."""
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
                    outcome = self._execute(step)
                except MUSEError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    def _execute(self, step: Step) -> Any:
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        if isinstance(step, SingleRequest):
            with self._refresh_lock:
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
            raise connection_error(self._url, failure) from None
        return self._protocol.parse(call, response)

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
        return self._protocol.parse(call, response)

    def close(self) -> None:
        self._channel.close()
