"""The package index in pip's configuration: URLs of files, and requests with retries."""

import ast
import base64
import contextlib
import html.parser
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ATTEMPTS = 5


class Failure(Exception):
    """An expected error: only its message is printed."""


def say(text):
    print(f"fetch: {text}", flush=True)


def opener(certificates=None):
    """Opens URLs with the certificates in the environment, else in the file `certificates`, else the system's."""
    variables = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
    bundle = next((os.environ[v] for v in variables if os.environ.get(v)), certificates)
    try:
        context = ssl.create_default_context(cafile=bundle)
    except (OSError, ssl.SSLError) as error:
        raise Failure(f"cannot use the certificates in {bundle}: {error}") from None
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))


class Index:
    """The package index in pip's configuration."""

    def __init__(self):
        settings = self.pip_settings()
        url = os.environ.get("PIP_INDEX_URL") or settings.get("index-url") or self.pip_default()
        parts = urllib.parse.urlsplit(url)
        # urllib does not accept credentials in a URL.
        userinfo, _, self.host = parts.netloc.rpartition("@")
        self.credentials = urllib.parse.unquote(userinfo)
        self.url = urllib.parse.urlunsplit(parts._replace(netloc=self.host)).rstrip("/")
        self.opener = opener(settings.get("cert"))

    @staticmethod
    def pip(arguments, purpose):
        try:
            done = subprocess.run([sys.executable] + arguments, capture_output=True)
        except OSError as error:
            raise Failure(f"cannot run {sys.executable}: {error.strerror}") from None
        if done.returncode != 0:
            raise Failure(f"{sys.executable} has no working pip to query {purpose}: install pip or set PIP_INDEX_URL")
        return done.stdout.decode(errors="replace")

    @classmethod
    def pip_settings(cls):
        if os.environ.get("PIP_INDEX_URL"):
            return {}
        found = {}
        for line in cls.pip(["-m", "pip", "config", "list"], "the index").splitlines():
            key, _, value = line.partition("=")
            section, _, option = key.rpartition(".")
            # The section of a command overrides the global one; the command here is `pip download`.
            if section == "download" or (section == "global" and option not in found):
                with contextlib.suppress(ValueError, SyntaxError):
                    found[option] = ast.literal_eval(value)
        return found

    @classmethod
    def pip_default(cls):
        code = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
        return cls.pip(["-c", code], "its default index").strip()

    def open(self, url, headers):
        request = urllib.request.Request(url, headers={"User-Agent": "muse-fetch", **headers})
        if self.credentials and urllib.parse.urlsplit(url).netloc == self.host:
            request.add_header("Authorization", "Basic " + base64.b64encode(self.credentials.encode()).decode())
        return self.opener.open(request, timeout=60)

    def address(self, project, name):
        """Returns the URL of the file `name` of `project`."""
        accept = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

        def get_page():
            with self.open(f"{self.url}/{project}/", {"Accept": accept}) as response:
                return response.geturl(), response.headers.get_content_type(), response.read()

        base, kind, body = with_retries(get_page, f"querying {self.url} for {project}")
        try:
            if kind.endswith("json"):
                links = [(file["filename"], file["url"]) for file in json.loads(body)["files"]]
            else:
                links = Links.of(body.decode("utf-8", errors="replace"))
        except (ValueError, KeyError, TypeError):
            raise Failure(f"{self.url}/{project}/ is not a page of a package index") from None
        for text, link in links:
            address = urllib.parse.urldefrag(urllib.parse.urljoin(base, link)).url
            if text == name or urllib.parse.unquote(address.rsplit("/", 1)[-1]) == name:
                return address
        raise Failure(f"the index {self.url} has no file {name}")


class Links(html.parser.HTMLParser):
    """The links of an HTML index page."""

    def __init__(self):
        super().__init__()
        self.base, self.found = "", []

    @classmethod
    def of(cls, page):
        parser = cls()
        parser.feed(page)
        return [("", urllib.parse.urljoin(parser.base, href)) for href in parser.found]

    def handle_starttag(self, tag, attrs):
        href = dict(attrs).get("href")
        if href and tag == "base":
            self.base = href
        elif href and tag == "a":
            self.found.append(href)


def with_retries(action, doing, progressed=lambda: False, attempts=ATTEMPTS):
    """Runs `action` until it succeeds. An attempt that made progress resets the number of attempts."""
    attempt = 1
    while True:
        try:
            return action()
        except urllib.error.HTTPError as error:
            reason, final = f"HTTP {error.code} {error.reason}", error.code < 500 and error.code not in (408, 429)
        except urllib.error.URLError as error:
            reason, final = str(error.reason), isinstance(error.reason, ssl.SSLCertVerificationError)
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason, final = str(error) or type(error).__name__, False
        except OSError as error:
            # An OSError with a file name is an error of the disk. Before Python 3.10 socket.timeout is one without.
            if error.filename is not None or error.errno is not None:
                raise
            reason, final = str(error) or "the connection timed out", False
        attempt = 1 if progressed() else attempt + 1
        if final or attempt > attempts:
            raise Failure(f"{doing}: {reason}")
        pause = 2 ** max(attempt - 2, 0)
        say(f"{doing}: {reason}; retrying in {pause} s")
        time.sleep(pause)
