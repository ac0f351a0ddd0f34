"""A reverse proxy between the browser and the stack. It strips a path prefix, and injects responses that a healthy stack does not send."""

import http.client
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP_BY_HOP = ("connection", "content-length", "transfer-encoding", "keep-alive")


class Proxy:
    def __init__(self, upstream, prefix):
        self.upstream, self.prefix = urlsplit(upstream), prefix
        self.rules = []
        """Functions of the path and body of a request that return None, or the status, headers and body of an injected response."""
        self.requests = []
        """Method and path of each request."""
        self.outside = []
        """Paths of requests outside of the prefix."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}{prefix}"

    def inject(self, path, status, headers=None, body=b"injected by the test", times=None):
        """Respond to requests of a path, as often as `times` says."""
        left = [times]

        def rule(requested, _):
            if requested != path or left[0] == 0:
                return None
            if left[0] is not None:
                left[0] -= 1
            return status, headers or {}, body

        self.rules.append(rule)

    @contextmanager
    def holding(self, condition):
        """Hold the requests that meet a condition; they go on after the block."""
        released = threading.Event()

        def rule(path, body):
            if condition(path, body):
                released.wait()

        self.rules.append(rule)
        try:
            yield
        finally:
            self.rules.remove(rule)
            released.set()

    def count(self, path):
        return sum(requested == path for _, requested in self.requests)


@contextmanager
def running(upstream, prefix=""):
    proxy = Proxy(upstream, prefix)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        thread.join()
        proxy.server.server_close()


def handler(proxy):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def respond(self, status, headers, body):
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # The page cancels requests.
            with suppress(ConnectionError):
                self.wfile.write(body)

        def handle_request(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            if not self.path.startswith(proxy.prefix + "/"):
                proxy.outside.append(self.path)
                return self.respond(404, [], b"outside of the prefix")
            path = self.path[len(proxy.prefix) :]
            name = urlsplit(path).path.lstrip("/")
            proxy.requests.append((self.command, name))
            for rule in list(proxy.rules):
                if injected := rule(name, body):
                    status, headers, text = injected
                    return self.respond(status, headers.items(), text)
            connection = http.client.HTTPConnection(proxy.upstream.hostname, proxy.upstream.port, timeout=120)
            try:
                connection.request(self.command, path, body, {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP})
                response = connection.getresponse()
                return self.respond(response.status, response.getheaders(), response.read())
            finally:
                connection.close()

        do_GET = do_POST = do_PATCH = do_DELETE = handle_request

    return Handler
