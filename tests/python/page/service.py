"""The REST API, as the tests call it beside the page."""

import io
import json
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

import numpy as np


class Service:
    """A stack with the user admin / admin."""

    def __init__(self, url):
        self.url = url
        self.token = None

    def call(self, method, path, body=None, token=None):
        """Return the body of the response to a token, or to admin."""
        try:
            return self._send(method, path, body, token or self.token or self._log_in())
        except urllib.error.HTTPError as error:
            if token or error.code != 401:
                raise
            return self._send(method, path, body, self._log_in())

    def _log_in(self):
        self.token = self.log_in("admin", "admin")["access_token"]
        return self.token

    def log_in(self, username, password):
        return json.loads(self._send("POST", "login", {"username": username, "password": password}))

    def _send(self, method, path, body=None, token=None):
        headers = {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{path}", data, headers, method=method), timeout=60) as response:
            return response.read()

    def get(self, path, token=None):
        return json.loads(self.call("GET", path, token=token))

    def post(self, path, body, token=None):
        return json.loads(self.call("POST", path, body, token))

    def status(self, path, token):
        """Return the status of a GET."""
        try:
            self.call("GET", path, token=token)
            return 200
        except urllib.error.HTTPError as error:
            return error.code

    def embed(self, sentences):
        return np.load(io.BytesIO(self.call("POST", "embed", {"sentence": sentences, "format": "npy"})))

    @contextmanager
    def user(self, username, password="a long password", role="user"):
        """A user who is removed afterwards."""
        self.remove(username)
        self.post("api/users", {"username": username, "password": password, "role": role})
        try:
            yield username
        finally:
            self.remove(username)

    def remove(self, username):
        try:
            self.call("DELETE", f"api/users/{urllib.parse.quote(username, safe='')}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
