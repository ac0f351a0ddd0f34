"""Connections over HTTP, and their errors."""

from __future__ import annotations

import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Optional
from urllib.parse import urlsplit

import httpx

from ._environment import Proxy, http_proxy, proxy_for, tls_context
from .errors import MUSEError, UnavailableError

CONNECT_TIMEOUT_S = 10.0
LIMITS = httpx.Limits(max_keepalive_connections=20, keepalive_expiry=60.0)
# OpenSSL's names of the errors of a server that does not speak TLS.
NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
# OpenSSL's codes for a certificate whose CA is not trusted.
UNKNOWN_CA = (18, 19, 20, 21)
CA_ADVICE = "pass the certificate of its CA as ca_file (--ca-file)"


class HttpConnector:
    """Opens HTTP clients for one URL. The environment is read once.

    Raises `ConfigurationError` if the environment or `ca_file` cannot be used.
    """

    def __init__(self, url: str, ca_file: Optional[str], timeout: Optional[float]) -> None:
        self.url = url
        self.proxy = proxy_for(url)
        self._context = tls_context(url, ca_file)
        self._proxy = None if self.proxy is None else http_proxy(self.proxy)
        # A short timeout of connections reports a host that drops packets soon.
        connect = CONNECT_TIMEOUT_S if timeout is None else min(timeout, CONNECT_TIMEOUT_S)
        self._timeout = httpx.Timeout(timeout, connect=connect)

    @property
    def visible_proxy(self) -> Optional[Proxy]:
        """The proxy if it can read requests and respond itself, which TLS prevents."""
        return self.proxy if urlsplit(self.url).scheme == "http" else None

    def open(self) -> httpx.Client:
        transport = httpx.HTTPTransport(verify=self._context, limits=LIMITS, proxy=self._proxy, trust_env=False)
        return httpx.Client(transport=transport, **self._options())

    def open_async(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(verify=self._context, limits=LIMITS, proxy=self._proxy, trust_env=False)
        return httpx.AsyncClient(transport=transport, **self._options())

    def error(self, failure: httpx.HTTPError) -> MUSEError:
        """Converts the error of a request without a response."""
        if found := _tls_failure(failure):
            return _tls_error(self.url, found)
        if isinstance(failure, httpx.ProxyError) and self.proxy is not None:
            text = f"{self.proxy} refuses to connect to {self.url} ({failure}): {self.proxy.advice(self.url)}"
            return UnavailableError(text, reason="PROXY")
        if isinstance(failure, httpx.TimeoutException) and not isinstance(failure, httpx.ConnectTimeout):
            text = f"{self.url} does not respond in time: try again, or set a longer timeout"
            error = UnavailableError(text, reason="DEADLINE_EXCEEDED")
        else:
            reason = str(failure) or type(failure).__name__
            error = UnavailableError(self._unreachable(reason), reason="UNAVAILABLE")
        error.sent = not isinstance(failure, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
        return error

    def _unreachable(self, reason: str) -> str:
        if self.proxy is not None:
            return f"cannot reach {self.url} through {self.proxy} ({reason}): {self.proxy.advice(self.url)}"
        return f"cannot reach {self.url} ({reason}): is the service running there?"

    def _options(self) -> dict[str, Any]:
        return {
            "base_url": self.url + "/",
            "timeout": self._timeout,
            # The service also sets the tokens as cookies. The client sends them in the header only.
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            "trust_env": False,
        }


def certificate_error(url: str, reason: str, advice: str = "") -> UnavailableError:
    """The certificate of the server is not valid: a retry cannot succeed."""
    text = f"cannot verify the certificate of {url}: {reason.rstrip('.')}"
    error = UnavailableError(f"{text}: {advice}" if advice else text, reason="CERTIFICATE")
    error.sent = False
    return error


def not_tls_error(url: str) -> UnavailableError:
    """The server does not speak TLS: a retry cannot succeed."""
    error = UnavailableError(f"{url} does not speak TLS: does its URL begin with http://?", reason="NOT_TLS")
    error.sent = False
    return error


def _tls_failure(failure: BaseException) -> Optional[ssl.SSLError]:
    """The error of TLS that caused the failure, if a retry cannot succeed."""
    cause: Optional[BaseException] = failure
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause
        if isinstance(cause, ssl.SSLError) and cause.reason in NOT_TLS:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _tls_error(url: str, failure: ssl.SSLError) -> UnavailableError:
    if not isinstance(failure, ssl.SSLCertVerificationError):
        return not_tls_error(url)
    advice = CA_ADVICE if failure.verify_code in UNKNOWN_CA else ""
    return certificate_error(url, failure.verify_message or str(failure), advice)
