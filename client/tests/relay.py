"""A fault-injecting reverse proxy: it forwards requests to the real server, counts sentences and injects faults.

Faults are: unavailable, overloaded, an older API, a broken connection.
"""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional

import httpx
import numpy as np

NPY = "application/octet-stream"
FINGERPRINT = "muse-fingerprint"


@dataclass
class CannedResponse:
    """A response that the relay injects; if the status is None, it closes the connection."""

    status: Optional[int]
    headers: dict[str, str] = field(default_factory=dict)
    body: str = '{"message": "injected by the test"}'
    path: Optional[str] = None
    """Only for a request with this path; others are forwarded until then."""


class Relay:
    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.responses: list[Optional[CannedResponse]] = []
        """Injected for the next requests, one each; None forwards the request."""
        self.only_get = False
        """Behaves like release 1: accepts sentences only by GET and responds in JSON only."""
        self.sentences = 0
        """Number of sentences in successful requests."""
        self.requests: list[str] = []
        """Method and path of each request."""
        self.types: list[str] = []
        """Content type of each forwarded response."""
        self.response_bytes: list[int] = []
        """Length of the body of each forwarded response."""
        self.unblocked = threading.Event()
        """Requests wait until it is set, except for descriptions of the model."""
        self.unblocked.set()
        self.blocked = threading.Event()
        """Is set by requests that wait."""
        self.model_unblocked = threading.Event()
        """Requests for the description of the model wait until it is set."""
        self.model_unblocked.set()
        self.model_requested = threading.Event()
        """Is set by these requests."""
        self.block_after: Optional[int] = None
        """Blocks requests once so many sentences were processed."""
        self.seconds_per_sentence = 0.0
        """Delays responses, like a slow embedder."""
        self.precision: Optional[str] = None
        """Replaces the precision of the model in `/v1/models`, as after a restart with another model."""
        self.fingerprint: Optional[str] = None
        """Replaces the fingerprint of the model, as after a restart with another model: the service then has not its
        own any more."""
        self.fingerprints: list[Optional[str]] = []
        """The values of `fingerprint` from the next requests for vectors or tokens on, one each."""
        self.has_fingerprint = True
        """False for a service that knows no fingerprints."""
        self.required: list[Optional[str]] = []
        """The fingerprint that each request for vectors or tokens requires."""
        self._own_fingerprint: Optional[str] = None
        self.constant_vectors = False
        """Responds with vectors that depend on the sentence, `precision` and `fingerprint` only, whatever the others in
        the request are."""
        self.sizes: list[int] = []
        """Number of sentences of each request that reached the server."""
        self._lock = threading.Lock()
        self._in_flight = 0
        self._client = httpx.Client(base_url=upstream, timeout=60)
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens, on the same port after a restart."""
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stops listening and closes all connections."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._server.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Unblocks the waiting requests, waits until they end, and resets the count of sentences."""
        self.block_after = None
        self.unblocked.set()
        while self._in_flight:
            time.sleep(0.01)
        self.sentences = 0

    def handle(self, request: BaseHTTPRequestHandler) -> Optional[httpx.Response]:
        with self._lock:
            self._in_flight += 1
        try:
            return self._handle(request)
        finally:
            with self._lock:
                self._in_flight -= 1

    def _handle(self, request: BaseHTTPRequestHandler) -> Optional[httpx.Response]:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        sentences = len(json.loads(body).get("sentence", [])) if body else 0
        if request.path == "/v1/models":
            self.model_requested.set()
            self.model_unblocked.wait(60)
        elif not self.unblocked.is_set():
            self.blocked.set()
            self.unblocked.wait(60)
        with self._lock:
            self.requests.append(f"{request.command} {request.path}")
            canned = self._next_response(request.path)
            if request.path in ("/embed", "/tokenize"):
                self.required.append(request.headers[FINGERPRINT])
                if self.fingerprints and canned is None:
                    self.fingerprint = self.fingerprints.pop(0)
            fingerprint = self.fingerprint
        if canned is not None:
            return (
                None
                if canned.status is None
                else httpx.Response(canned.status, headers=canned.headers, text=canned.body)
            )
        names = ("authorization", "content-type", "accept")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        if self.only_get and request.path in ("/embed", "/tokenize"):
            headers.pop("accept", None)
            if request.command == "POST":
                return httpx.Response(405, json={"message": "The method is not allowed for the requested URL."})
        if sentences:
            self.sizes.append(sentences)
            time.sleep(sentences * self.seconds_per_sentence)
        required = request.headers[FINGERPRINT]
        if required is not None and self.has_fingerprint:
            headers[FINGERPRINT] = self._exchange(required, fingerprint, headers)
        response = self._client.request(request.command, request.path, headers=headers, content=body)
        response = self._with_fingerprint(response, fingerprint, headers)
        if self.constant_vectors and request.path == "/embed" and response.status_code == 200:
            content = _constant_vectors(json.loads(body), f"{self.precision} {fingerprint}")
            response = _replaced(response, content, {"content-type": NPY})
        if self.precision is not None and request.path == "/v1/models":
            models = response.json()
            models["data"][0]["precision"] = self.precision
            response = _replaced(response, json.dumps(models).encode())
        with self._lock:
            self.types.append(response.headers.get("content-type", ""))
            self.response_bytes.append(len(response.content))
            if response.status_code == 200:
                self.sentences += sentences
                if self.block_after is not None and self.sentences >= self.block_after:
                    self.unblocked.clear()
        return response

    def _with_fingerprint(
        self, response: httpx.Response, fingerprint: Optional[str], headers: dict[str, str]
    ) -> httpx.Response:
        """The response of a service with this fingerprint, or without one."""
        own = response.headers.get(FINGERPRINT)
        content = response.content
        if own is not None and not self.has_fingerprint:
            del response.headers[FINGERPRINT]
            if response.request.url.path == "/v1/models":
                models = response.json()
                del models["data"][0]["fingerprint"]
                content = json.dumps(models).encode()
        elif own is not None and fingerprint is not None:
            response.headers[FINGERPRINT] = self._exchange(own, fingerprint, headers)
            if response.headers.get("content-type") != NPY:
                content = self._exchange(content.decode(), fingerprint, headers).encode()
        return _replaced(response, content)

    def _exchange(self, text: str, fingerprint: Optional[str], headers: dict[str, str]) -> str:
        """Exchanges the fingerprint of the service and the one that replaces it."""
        if fingerprint is None:
            return text
        if self._own_fingerprint is None:
            described = self._client.get("/v1/models", headers={"authorization": headers["authorization"]})
            self._own_fingerprint = described.headers[FINGERPRINT]
        own = self._own_fingerprint
        return text.replace(own, "\0").replace(fingerprint, own).replace("\0", fingerprint)

    def _next_response(self, path: str) -> Optional[CannedResponse]:
        following = self.responses[0] if self.responses else None
        if following is not None and following.path not in (None, path):
            return None
        return self.responses.pop(0) if self.responses else None


def _replaced(response: httpx.Response, content: bytes, headers: Optional[dict[str, str]] = None) -> httpx.Response:
    """The response with another body, which has no content encoding any more."""
    left_out = ("content-length", "transfer-encoding", "content-encoding")
    rest = {name: value for name, value in response.headers.items() if name not in left_out}
    return httpx.Response(response.status_code, headers={**rest, **(headers or {})}, content=content)


def _constant_vectors(request: dict[str, Any], model: str) -> bytes:
    seeds = [zlib.crc32(f"{model} {sentence}".encode()) for sentence in request["sentence"]]
    file = io.BytesIO()
    np.save(file, np.array([np.random.default_rng(seed).random(512, np.float32) for seed in seeds]))
    return file.getvalue()


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
        """Ignores clients that have disconnected."""


def _handler(relay: Relay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def relay(self) -> None:
            response = relay.handle(self)
            if response is None:
                self.close_connection = True
                return
            # Without the Server and Date headers of this server.
            self.send_response_only(response.status_code)
            for name, value in response.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "content-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        do_GET = do_POST = relay  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    return Handler


@contextmanager
def running(upstream: str) -> Iterator[Relay]:
    relay = Relay(upstream)
    try:
        yield relay
    finally:
        relay.unblocked.set()
        relay.model_unblocked.set()
        relay.stop()
        relay._client.close()
