"""A proxy that refuses every request, and records what it receives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RefusingProxy:
    def __init__(self) -> None:
        self.requests: list[str] = []
        """Method and target of each request."""
        self.bodies: list[bytes] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


def _handler(proxy: RefusingProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            proxy.bodies.append(self.rfile.read(int(self.headers.get("content-length") or 0)))
            proxy.requests.append(f"{self.command} {self.path}")
            self.send_response_only(502)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_CONNECT = refuse  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    return Handler


@contextmanager
def refusing_proxy() -> Iterator[RefusingProxy]:
    proxy = RefusingProxy()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
