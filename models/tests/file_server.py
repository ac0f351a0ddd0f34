"""An HTTP server with one file, whose responses may break."""

import http.server
import threading


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `body` at any path. `cuts` are the lengths after which the next responses break."""

    def __init__(self, body=b"", status=200, cuts=(), ranges=True, etag='"1"', length=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.status, self.cuts, self.ranges = body, status, list(cuts), ranges
        self.etag, self.length, self.requests = etag, length, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/3.tar.gz"

    def __exit__(self, *details):
        self.shutdown()
        super().__exit__(*details)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") in (None, server.etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        body = server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(body)
        self.wfile.write(body[:cut])

    def log_message(self, *details):
        pass
