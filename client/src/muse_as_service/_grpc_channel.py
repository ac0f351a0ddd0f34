"""Opens gRPC channels, and describes their errors."""

from __future__ import annotations

from typing import Any, Optional
from urllib.parse import urlsplit

from ._environment import grpc_proxy_for, grpc_roots
from ._http import CA_ADVICE, certificate_error, not_tls_error
from .errors import UnavailableError

try:
    import grpc
except ImportError as missing:
    raise ImportError(f"grpc=True needs more packages ({missing}): pip install 'muse-as-service[grpc]'") from None

# The response for 4,096 sentences has 8.5 MB; gRPC's default limit is 4 MiB.
MAX_MESSAGE_BYTES = 64 << 20
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The flow retries (_transfer.py). A short backoff reconnects soon after a restart of the service.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Channels of one process with equal settings would share a connection, also across a fork.
    ("grpc.use_local_subchannel_pool", 1),
]
HOST_MISMATCH = ("hostname verification check failed", "is not in peer certificate")
# A server that speaks TLS answers a connection without TLS in HTTP/1.1.
NOT_PLAIN = ("http1.x server", "http/1.1 400")


class ChannelConnector:
    """Opens channels to one URL. Raises `ConfigurationError` if the certificates cannot be read."""

    def __init__(self, url: str, ca_file: Optional[str]) -> None:
        self.url = url
        parts = urlsplit(url)
        if parts.path.strip("/"):
            raise ValueError(f"gRPC has no paths: the url {url} must end after the port")
        host = parts.hostname or ""
        port = parts.port or (80 if parts.scheme == "http" else 443)
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._secure = parts.scheme == "https"
        self._roots = grpc_roots(ca_file) if self._secure or ca_file else None
        self._proxy = grpc_proxy_for(url)

    def open(self, *, asynchronous: bool) -> Any:
        """Opens a channel of grpc, or of grpc.aio."""
        implementation: Any = grpc.aio if asynchronous else grpc
        options = [*OPTIONS, ("grpc.enable_http_proxy", int(self._proxy is not None))]
        if not self._secure:
            return implementation.insecure_channel(self._target, options=options)
        return implementation.secure_channel(self._target, grpc.ssl_channel_credentials(self._roots), options=options)

    def unavailable(self, text: str) -> UnavailableError:
        """The error of a call that could not connect, or whose connection broke."""
        lower = text.lower()
        if "certificate_verify_failed" in lower:
            return certificate_error(self.url, _last(text), CA_ADVICE)
        if any(part in lower for part in HOST_MISMATCH):
            return certificate_error(self.url, f"it is not valid for {urlsplit(self.url).hostname}")
        if "wrong_version_number" in lower:
            return not_tls_error(self.url)
        if not self._secure and any(part in lower for part in NOT_PLAIN):
            text = f"{self.url} does not speak gRPC without TLS: does its URL begin with https://?"
            return UnavailableError(text, reason="NOT_TLS")
        if self._proxy is not None:
            reached = f"cannot reach {self.url} through {self._proxy} ({text}): {self._proxy.advice(self.url)}"
            refused = "proxy returned response code" in lower
            return UnavailableError(reached, reason="PROXY" if refused else "UNAVAILABLE")
        return UnavailableError(
            f"cannot reach {self.url} ({text}): is the service running there?", reason="UNAVAILABLE"
        )


def _last(text: str) -> str:
    """The reason in an error of OpenSSL, after the last colon."""
    return text.rpartition("CERTIFICATE_VERIFY_FAILED:")[2].strip() or text
