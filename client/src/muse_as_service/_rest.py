"""Encodes calls as HTTP requests and parses the responses. Does no I/O."""

from __future__ import annotations

import io
import json
import re
from datetime import date, datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Optional, TypeVar
from urllib.parse import urlencode

import httpx
import numpy as np

from ._calls import (
    MODEL_LIMITS,
    ApiKey,
    Call,
    CreatedKey,
    CreateKey,
    DeleteKey,
    DescribeKey,
    Embed,
    GetKey,
    GetModel,
    ListKeys,
    ListUsage,
    Login,
    Model,
    ModelResult,
    Page,
    Quota,
    Refresh,
    Revoke,
    Tokenize,
    Tokens,
    UpdateKey,
    UsageRow,
    given_changes,
    key_fields,
)
from ._environment import Proxy
from ._fingerprint import HEADER
from ._transfer import SendAgain
from .errors import (
    AuthenticationError,
    FingerprintMismatchError,
    InvalidArgumentError,
    MUSEError,
    OverloadedError,
    TooLargeError,
    UnavailableError,
)

T = TypeVar("T")

NPY = "application/octet-stream"
PROBLEM = "application/problem+json"
# Statuses of success other than 200.
SUCCESS = {CreateKey: 201, DeleteKey: 204}
PAGE_SIZE = 1_000
MAX_QUOTED_TEXT = 200
RETRYABLE = {429: OverloadedError, 502: UnavailableError, 503: UnavailableError, 504: UnavailableError}

# The messages of token errors are part of the REST API.
TOKEN_REASONS = {
    "Unauthorized": "BAD_CREDENTIALS",
    "Token has expired": "TOKEN_EXPIRED",
    "Token has been revoked": "TOKEN_REVOKED",
    "Signature verification failed": "TOKEN_INVALID",
    "Missing Authorization Header": "TOKEN_MISSING",
    "The API key is malformed: its checksum is wrong. Was it copied completely?": "KEY_MALFORMED",
    "There is no such API key": "KEY_UNKNOWN",
    "The API key has been revoked": "KEY_REVOKED",
    "The API key has expired": "KEY_EXPIRED",
    "The API key is disabled": "KEY_DISABLED",
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
    """The REST protocol of one server."""

    def __init__(self, proxy: Optional[Proxy] = None) -> None:
        """`proxy` is the one through which requests without TLS pass, whose responses may be those of the proxy."""
        self._proxy = proxy
        # Release 1 of the service accepts sentences only in the body of a GET.
        self._method = "POST"
        # Earlier services know only float32.
        self._has_float16 = True

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """Returns the arguments of `httpx.Client.request` for a call."""
        request = self._request(call)
        if call.fingerprint is not None:
            request["headers"][HEADER] = call.fingerprint
        return request

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        if isinstance(call, Login):
            return _request("POST", "login", body={"username": call.username, "password": call.password})
        if isinstance(call, Refresh):
            return _request("POST", "token/refresh", call.token)
        if isinstance(call, Revoke):
            return _request("POST", f"logout/{call.kind}", call.token)
        if isinstance(call, Tokenize):
            return _request(self._method, "tokenize", call.token, {"sentence": call.sentences})
        if isinstance(call, Embed):
            body: dict[str, Any] = {"sentence": call.sentences}
            if call.float16 and self._has_float16:
                body["format"] = "float16"
            request = _request(self._method, "embed", call.token, body)
            # Compression hardly reduces the size of vectors.
            request["headers"].update({"Accept": f"{NPY}, application/json;q=0.5", "Accept-Encoding": "identity"})
            return request
        if isinstance(call, GetModel):
            return _request("GET", "v1/models", call.token)
        if isinstance(call, ListUsage):
            return _usage_request(call)
        return _key_request(call)

    def parse(self, call: Call[T], response: httpx.Response) -> T:
        """Returns the result of a call. Raises `MUSEError` if the response is an error."""
        if response.status_code == 405 and response.request.method == "POST" and isinstance(call, (Tokenize, Embed)):
            self._method = "GET"
            raise SendAgain("POST is not allowed")
        if isinstance(call, Embed) and call.float16 and _rejects_format(response):
            self._has_float16 = False
            raise SendAgain("float16 is unknown")
        if response.status_code != SUCCESS.get(type(call), 200):
            raise error_of(response, self._proxy, call)
        try:
            return _result(call, response)  # type: ignore[no-any-return]
        except (ValueError, KeyError, TypeError) as failure:
            text = f"the response of {response.url} is not one of MUSE as Service ({failure}): is the URL right?"
            raise MUSEError(text, status=response.status_code) from None


def _rejects_format(response: httpx.Response) -> bool:
    """Whether the service, or its embedder, does not know the format of the request. Other threads may know already."""
    if b'"format":"float16"' not in response.request.content or response.status_code not in (400, 503):
        return False
    return (_service_text(response) or "").startswith("format: ")


def _request(method: str, path: str, token: Optional[str] = None, body: Any = None) -> dict[str, Any]:
    headers = {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if body is not None:
        headers["Content-Type"] = "application/json"
    content = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return {"method": method, "url": path, "headers": headers, "content": content}


def _list_request(path: str, token: str, query: dict[str, Optional[str]]) -> dict[str, Any]:
    """A request for a page of a list, with those parameters that are not None."""
    given = {name: value for name, value in query.items() if value is not None}
    return _request("GET", f"{path}?{urlencode({'limit': PAGE_SIZE, **given})}", token)


def _usage_request(call: ListUsage) -> dict[str, Any]:
    query = {
        "from": call.from_.isoformat() if call.from_ else None,
        "to": call.to.isoformat() if call.to else None,
        "by": call.by,
        "user": call.user,
        "key_id": call.key_id,
        "after": call.after,
    }
    return _list_request("api/usage", call.token, query)


def _key_request(call: Call[Any]) -> dict[str, Any]:
    if isinstance(call, CreateKey):
        body = {"name": call.name, "expires_in": call.expires_in, "bulk": call.bulk, "user": call.user}
        return _request("POST", "api/keys", call.token, {**body, "quota": _quota_body(call.quota)})
    if isinstance(call, ListKeys):
        query = {"user": call.user, "all": "true" if call.all_users else None, "after": call.after}
        return _list_request("api/keys", call.token, query)
    if isinstance(call, GetKey):
        return _request("GET", f"api/keys/{call.id}", call.token)
    if isinstance(call, UpdateKey):
        change = given_changes(call)
        if call.quota is not None:
            change["quota"] = _quota_body(call.quota)
        return _request("PATCH", f"api/keys/{call.id}", call.token, change)
    if isinstance(call, DeleteKey):
        return _request("DELETE", f"api/keys/{call.id}", call.token)
    if isinstance(call, DescribeKey):
        return _request("GET", "api/key", call.token)
    raise TypeError(f"no such call: {call!r}")


def _quota_body(quota: Optional[Quota]) -> Optional[dict[str, Any]]:
    return {"tokens": quota.tokens, "period": quota.period} if quota and quota.tokens else None


def _result(call: Call[Any], response: httpx.Response) -> Any:
    if isinstance(call, Embed):
        return ModelResult(_vectors(response, len(call.sentences)), _fingerprint(response))
    if isinstance(call, DeleteKey):
        return None
    body = response.json()
    if isinstance(call, Login):
        return Tokens(body["access_token"], body["refresh_token"])
    if isinstance(call, Refresh):
        # The response has a refresh token only if refresh tokens rotate.
        return Tokens(body["access_token"], body.get("refresh_token") or call.token)
    if isinstance(call, Tokenize):
        tokens = body["tokens"]
        _check_count(len(tokens), len(call.sentences))
        return ModelResult(tokens, _fingerprint(response))
    if isinstance(call, GetModel):
        return _model(body["data"][0], _fingerprint(response))
    if isinstance(call, CreateKey):
        return CreatedKey(**_key_fields(body), key=body["key"])
    if isinstance(call, ListKeys):
        return Page([ApiKey(**_key_fields(key)) for key in body["keys"]], body["next"])
    if isinstance(call, (GetKey, UpdateKey, DescribeKey)):
        return ApiKey(**_key_fields(body))
    if isinstance(call, ListUsage):
        return Page([_usage_row(row) for row in body["usage"]], body["next"])
    return None


def _key_fields(key: dict[str, Any]) -> dict[str, Any]:
    quota = key["quota"]
    return {**key_fields(key.__getitem__), "quota": Quota(quota["tokens"], quota["period"]) if quota else None}


def _fingerprint(response: httpx.Response) -> Optional[str]:
    return response.headers.get(HEADER) or None


def _model(model: dict[str, Any], fingerprint: Optional[str]) -> Model:
    """The five fields of every service, and further ones that the service may report."""
    languages = model.get("languages")
    limits = model.get("limits") or {}
    fields: dict[str, Any] = {name: model[name] for name in ("id", "version", "dimension", "precision", "device")}
    fields.update({name: model.get(name) for name in ("source_sha256", "source_precision", "license")})
    fields.update({name: limits.get(name) for name in MODEL_LIMITS})
    fields["fingerprint"] = model.get("fingerprint") or fingerprint
    return Model(**fields, languages=None if languages is None else tuple(languages))


def _usage_row(row: dict[str, Any]) -> UsageRow:
    hour = datetime.strptime(row["hour"], "%Y-%m-%dT%H:%M:%SZ") if "hour" in row else None
    return UsageRow(
        day=date.fromisoformat(row["day"]) if "day" in row else None,
        hour=hour.replace(tzinfo=timezone.utc) if hour else None,
        user=row.get("user"),
        key_id=row.get("key_id"),
        **{name: row[name] for name in ("requests", "sentences", "tokens", "refused")},
    )


def _vectors(response: httpx.Response, count: int) -> Any:
    if _media_type(response) == NPY:
        vectors = np.load(io.BytesIO(response.content), allow_pickle=False)
    else:
        vectors = np.array(response.json()["embedding"])
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise ValueError("vectors of equal length are expected")
    _check_count(len(vectors), count)
    return vectors


def _check_count(results: int, sentences: int) -> None:
    if results != sentences:
        raise ValueError(f"{results} results, where {sentences} are expected")


def error_of(response: httpx.Response, proxy: Optional[Proxy], call: Optional[Call[Any]] = None) -> MUSEError:
    """Converts an error response."""
    text = None if response.is_redirect else _service_text(response)
    message = _foreign_text(response, proxy) if text is None else text
    error = _error_of_status(call, response, message)
    error.from_service = text is not None
    return error


def _error_of_status(call: Optional[Call[Any]], response: httpx.Response, message: str) -> MUSEError:
    status = response.status_code
    sent = _sent_reason(response)
    reason = sent or REASONS.get(status, "INTERNAL")
    if status in (401, 422):
        reason = sent or TOKEN_REASONS.get(message, "TOKEN_INVALID")
        return AuthenticationError(message, status=status, reason=reason)
    if status in RETRYABLE:
        if status == 429 and response.headers.get("x-should-retry") == "false":
            reason = "QUOTA_EXHAUSTED"
        return RETRYABLE[status](message, status=status, reason=reason, retry_after=_retry_after(response))
    if status == 413:
        place = re.match(r"sentences\[(\d+)\]: ", message)
        return TooLargeError(message, status=status, reason=reason, index=int(place[1]) if place else None)
    if status == 412 and call is not None and call.fingerprint is not None and _service_text(response) is not None:
        return FingerprintMismatchError(
            message,
            status=status,
            reason="FINGERPRINT_MISMATCH",
            expected=call.fingerprint,
            found=_fingerprint(response),
        )
    if status == 400:
        return InvalidArgumentError(message, status=status, reason=reason)
    return MUSEError(message, status=status, reason=reason)


def _service_text(response: httpx.Response) -> Optional[str]:
    """The text of an error of the service, in one of its formats; None for other responses."""
    try:
        body = response.json()
        error = body.get("error")
        text = body.get("msg") or body.get("message") or (error or {}).get("message") or body["detail"]
        return text if isinstance(text, str) else json.dumps(text)
    except (ValueError, KeyError, AttributeError):
        return None


def _foreign_text(response: httpx.Response, proxy: Optional[Proxy]) -> str:
    """Describes an error response that is not in a format of the service."""
    if response.is_redirect:
        return f"{response.url} redirects to {response.headers.get('location')}: use that URL"
    returned = f"{response.url} returns {response.status_code} {response.reason_phrase}".rstrip()
    text = response.text[:MAX_QUOTED_TEXT].strip()
    if text and not text.startswith("<") and _media_type(response) == "text/plain":
        # Such as the advice of a port that speaks TLS only.
        returned += f" ({' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())})"
    if proxy is not None:
        return f"{returned}, perhaps from {proxy}: {proxy.advice(str(response.url))}"
    return f"{returned}: is that the URL of MUSE as Service?"


def _sent_reason(response: httpx.Response) -> Optional[str]:
    """The reason code, which problem details contain, and other errors with the status 429."""
    if _media_type(response) != PROBLEM and response.status_code != 429:
        return None
    try:
        reason = response.json().get("reason")
        return reason if isinstance(reason, str) else None
    except (ValueError, AttributeError):
        return None


def _media_type(response: httpx.Response) -> str:
    value: str = response.headers.get("content-type", "")
    return value.partition(";")[0].strip()


def _retry_after(response: httpx.Response) -> Optional[float]:
    """Seconds, from a number or an HTTP date."""
    value = response.headers.get("retry-after", "")
    try:
        if value.isdigit():
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return None
