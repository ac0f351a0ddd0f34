"""A server in front of the real one, which hands requests on, counts the sentences in them, and fails as it is told.

It is for what a good server does not do when a test wants it: to be away, busy, older, or to break off.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional

import httpx


@dataclass
class Answer:
    """An answer of the relay's own; without a status the connection is broken off."""

    status: Optional[int]
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"message": "as the test wants it"}'


class Relay:
    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.answers: list[Optional[Answer]] = []
        """Given in place of the server's, one for each request; None is the server's own."""
        self.only_get = False
        """As the service of old: sentences are taken by GET alone, and all answers are JSON."""
        self.sentences = 0
        """How many have been asked for and answered."""
        self.requests: list[str] = []
        """Method and path of each."""
        self.types: list[str] = []
        """Content type of each answer."""
        self.open = threading.Event()
        """Requests wait until it is set."""
        self.open.set()
        self.hold_after: Optional[int] = None
        """After so many sentences requests wait as long as this is set."""
        self._lock = threading.Lock()
        self._under_way = 0
        self._client = httpx.Client(base_url=upstream, timeout=60)
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens, on the same port as before."""
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Is away: nothing listens any more, and all connections end."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._server.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Lets the requests that wait go on, waits for their end, and counts the sentences anew."""
        self.hold_after = None
        self.open.set()
        while self._under_way:
            time.sleep(0.01)
        self.sentences = 0

    def handle(self, request: BaseHTTPRequestHandler) -> Optional[httpx.Response]:
        with self._lock:
            self._under_way += 1
        try:
            return self._handle(request)
        finally:
            with self._lock:
                self._under_way -= 1

    def _handle(self, request: BaseHTTPRequestHandler) -> Optional[httpx.Response]:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        sentences = len(json.loads(body).get("sentence", [])) if body else 0
        self.open.wait(60)
        with self._lock:
            self.requests.append(f"{request.command} {request.path}")
            own = self.answers.pop(0) if self.answers else None
        if own is not None:
            return None if own.status is None else httpx.Response(own.status, headers=own.headers, text=own.body)
        names = ("authorization", "content-type", "accept")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        if self.only_get and request.path in ("/embed", "/tokenize"):
            headers.pop("accept", None)
            if request.command == "POST":
                return httpx.Response(405, json={"message": "The method is not allowed for the requested URL."})
        answer = self._client.request(request.command, request.path, headers=headers, content=body)
        with self._lock:
            self.types.append(answer.headers.get("content-type", ""))
            if answer.status_code == 200:
                self.sentences += sentences
                if self.hold_after is not None and self.sentences >= self.hold_after:
                    self.open.clear()
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no error here."""


def _handler(relay: Relay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def relay(self) -> None:
            answer = relay.handle(self)
            if answer is None:
                self.close_connection = True
                return
            # Without headers of this server's own.
            self.send_response_only(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "content-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = relay  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler


@contextmanager
def running(upstream: str) -> Iterator[Relay]:
    relay = Relay(upstream)
    try:
        yield relay
    finally:
        relay.open.set()
        relay.stop()
