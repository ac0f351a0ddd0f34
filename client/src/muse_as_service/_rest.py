"""The calls as HTTP requests, and their answers. Does no input or output itself."""

from __future__ import annotations

import io
import json
import re
import ssl
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Optional, TypeVar

import httpx
import numpy as np

from ._calls import Call, Embed, Login, Refresh, Revoke, Tokenize, Tokens
from ._flow import SendAgain
from .errors import (
    AuthenticationError,
    InvalidArgumentError,
    MUSEError,
    OverloadedError,
    TooLargeError,
    UnavailableError,
)

T = TypeVar("T")

NPY = "application/octet-stream"
TEMPORARY = {429: OverloadedError, 502: UnavailableError, 503: UnavailableError, 504: UnavailableError}

# Texts of the token errors are part of the REST contract.
TOKEN_REASONS = {
    "Unauthorized": "BAD_CREDENTIALS",
    "Token has expired": "TOKEN_EXPIRED",
    "Token has been revoked": "TOKEN_REVOKED",
    "Signature verification failed": "TOKEN_INVALID",
    "Missing Authorization Header": "TOKEN_MISSING",
}
REASONS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    405: "UNIMPLEMENTED",
    413: "TOO_LARGE",
    429: "OVERLOADED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class RestProtocol:
    """How one server is spoken to."""

    def __init__(self) -> None:
        # The service that this one replaced takes sentences in the body of a GET alone.
        self._method = "POST"

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """The arguments of `httpx.Client.request` for a call."""
        if isinstance(call, Login):
            return _request("POST", "login", body={"username": call.username, "password": call.password})
        if isinstance(call, Refresh):
            return _request("POST", "token/refresh", call.token)
        if isinstance(call, Revoke):
            return _request("POST", f"logout/{call.kind}", call.token)
        if isinstance(call, Tokenize):
            return _request(self._method, "tokenize", call.token, {"sentence": call.sentences})
        if isinstance(call, Embed):
            request = _request(self._method, "embed", call.token, {"sentence": call.sentences})
            # Vectors hardly get smaller by compression.
            request["headers"].update({"Accept": f"{NPY}, application/json;q=0.5", "Accept-Encoding": "identity"})
            return request
        raise TypeError(f"no such call: {call!r}")

    def answer(self, call: Call[T], response: httpx.Response) -> T:
        """What the service answered to a call, or the `MUSEError` that it answered."""
        if response.status_code == 405 and response.request.method == "POST" and isinstance(call, (Tokenize, Embed)):
            self._method = "GET"
            raise SendAgain("POST is not allowed")
        if response.status_code != 200:
            raise _error(call, response)
        try:
            return _result(call, response)  # type: ignore[no-any-return]
        except (ValueError, KeyError, TypeError) as failure:
            text = f"the answer of {response.url} is not one of MUSE as Service ({failure}): is the address right?"
            raise MUSEError(text, status=response.status_code) from None


def http_options(url: str, ca_file: Optional[str], timeout: Optional[float]) -> dict[str, Any]:
    """The arguments of `httpx.Client` and `httpx.AsyncClient`."""
    return {
        "base_url": url + "/",
        "timeout": timeout,
        "verify": ssl.create_default_context(cafile=ca_file) if ca_file else True,
        "limits": httpx.Limits(max_keepalive_connections=20, keepalive_expiry=60.0),
        # The service sets its tokens as cookies, too; one way of sending them is enough.
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    }


def unreachable(url: str, failure: httpx.HTTPError) -> MUSEError:
    """The error where there is no answer."""
    if isinstance(failure, httpx.TimeoutException) and not isinstance(failure, httpx.ConnectTimeout):
        error = UnavailableError(
            f"{url} does not answer in time: try again, or set a longer timeout", reason="DEADLINE_EXCEEDED"
        )
    else:
        text = str(failure) or type(failure).__name__
        error = UnavailableError(f"cannot reach {url} ({text}): is the service running there?", reason="UNAVAILABLE")
    error.sent = not isinstance(failure, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    return error


def _request(method: str, path: str, token: Optional[str] = None, body: Any = None) -> dict[str, Any]:
    headers = {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if body is not None:
        headers["Content-Type"] = "application/json"
    content = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return {"method": method, "url": path, "headers": headers, "content": content}


def _result(call: Call[Any], response: httpx.Response) -> Any:
    if isinstance(call, Embed):
        return _vectors(response, len(call.sentences))
    body = response.json()
    if isinstance(call, Login):
        return Tokens(body["access_token"], body["refresh_token"])
    if isinstance(call, Refresh):
        # Another refresh token comes only where they rotate.
        return Tokens(body["access_token"], body.get("refresh_token") or call.token)
    if isinstance(call, Tokenize):
        tokens = body["tokens"]
        _expect(len(tokens), len(call.sentences))
        return tokens
    return None


def _vectors(response: httpx.Response, count: int) -> Any:
    if response.headers.get("content-type", "").partition(";")[0].strip() == NPY:
        vectors = np.load(io.BytesIO(response.content), allow_pickle=False)
    else:
        vectors = np.array(response.json()["embedding"])
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise ValueError("vectors of equal length are expected")
    _expect(len(vectors), count)
    return vectors


def _expect(found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"{found} results to {wanted} sentences")


def _error(call: Call[Any], response: httpx.Response) -> MUSEError:
    status = response.status_code
    message = _message(response)
    reason = REASONS.get(status, "INTERNAL")
    if status in (401, 422):
        reason = TOKEN_REASONS.get(message, "TOKEN_INVALID")
        return AuthenticationError(message, status=status, reason=reason)
    if status in TEMPORARY:
        if status == 429 and isinstance(call, Login):
            reason = "TOO_MANY_ATTEMPTS"
        return TEMPORARY[status](message, status=status, reason=reason, retry_after=_retry_after(response))
    if status == 413:
        place = re.match(r"sentences\[(\d+)\]: ", message)
        return TooLargeError(message, status=status, reason=reason, index=int(place[1]) if place else None)
    if status == 400:
        return InvalidArgumentError(message, status=status, reason=reason)
    return MUSEError(message, status=status, reason=reason)


def _message(response: httpx.Response) -> str:
    if response.is_redirect:
        return f"{response.url} redirects to {response.headers.get('location')}: use that address as the url"
    try:
        body = response.json()
        text = body.get("msg") or body.get("message") or body["detail"]
        return text if isinstance(text, str) else json.dumps(text)
    except (ValueError, KeyError, AttributeError):
        return f"{response.url} answers {_status_text(response)}: is that the address of MUSE as Service?"


def _status_text(response: httpx.Response) -> str:
    return f"{response.status_code} {response.reason_phrase}".strip()


def _retry_after(response: httpx.Response) -> Optional[float]:
    """Seconds, from either form of the header."""
    value = response.headers.get("retry-after", "")
    try:
        if value.isdigit():
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return None
