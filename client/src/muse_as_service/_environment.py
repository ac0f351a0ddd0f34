"""What the environment configures: proxies, and the certificates to trust."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from .errors import ConfigurationError

# The variables that gRPC reads, in its order.
GRPC_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that configures it."""

    url: str = field(repr=False)
    """May contain a password."""
    variable: str
    exceptions: str
    """The variable with the hosts to which clients connect directly."""

    def __str__(self) -> str:
        # The URL may be one that urlsplit rejects.
        scheme, _, rest = self.url.partition("://")
        return f"the proxy {scheme}://{rest.rpartition('@')[2].rstrip('/')} of {self.variable}"

    def advice(self, url: str) -> str:
        host = urlsplit(url).hostname
        return f"unset {self.variable}, or add {host} to {self.exceptions}, to connect without the proxy"


def proxy_for(url: str) -> Optional[Proxy]:
    """The proxy for requests to `url` over HTTP. Connections to this machine never use one."""
    parts = urlsplit(url)
    settings = getproxies()
    scheme = parts.scheme if settings.get(parts.scheme) else "all"
    address = settings.get(scheme)
    if not address or is_loopback(parts.hostname or "") or _bypasses(settings.get("no", ""), url):
        return None
    # getproxies() also returns the settings of the system on macOS and Windows.
    variable = _set_variable(f"{scheme}_proxy", f"{scheme}_proxy".upper()) or "the system's settings"
    exceptions = _set_variable("no_proxy", "NO_PROXY") or "NO_PROXY"
    return Proxy(address if "://" in address else f"http://{address}", variable, exceptions)


def grpc_proxy_for(url: str) -> Optional[Proxy]:
    """The proxy that gRPC uses for a channel to `url`, which it reads from variables of its own."""
    variable = _set_variable(*GRPC_PROXY_VARIABLES)
    exceptions = _set_variable("no_grpc_proxy", "no_proxy")
    if variable is None or is_loopback(urlsplit(url).hostname or ""):
        return None
    if exceptions and _bypasses(os.environ[exceptions], url):
        return None
    address = os.environ[variable]
    return Proxy(address if "://" in address else f"http://{address}", variable, exceptions or "no_grpc_proxy")


def http_proxy(proxy: Proxy) -> httpx.Proxy:
    """Raises `ConfigurationError` if httpx does not support the proxy."""
    try:
        if not urlsplit(proxy.url).hostname:
            raise ValueError("it has no host")
        found = httpx.Proxy(proxy.url)
        # Raises ImportError for SOCKS without its package.
        httpx.HTTPTransport(verify=no_certificates(), proxy=found, trust_env=False).close()
    except (ValueError, httpx.InvalidURL, ImportError) as failure:
        # httpx quotes the URL, which may contain a password.
        reason = str(failure).replace(proxy.url, "URL") or type(failure).__name__
        raise ConfigurationError(f"cannot use {proxy}: {reason}", reason="PROXY") from None
    return found


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, by its name or address."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    if address is None:
        try:
            # The other forms that the resolver accepts, such as 127.1.
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, ValueError):
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def tls_context(url: str, ca_file: Optional[str]) -> ssl.SSLContext:
    """The certificates to trust: those of `ca_file`, else of SSL_CERT_FILE or SSL_CERT_DIR, else of certifi.

    Raises `ConfigurationError` if they cannot be read.
    """
    if ca_file:
        return _context_of_file("ca_file", ca_file)
    if urlsplit(url).scheme == "http":
        return no_certificates()
    if path := os.environ.get("SSL_CERT_FILE"):
        return _context_of_file("SSL_CERT_FILE", path)
    if folders := os.environ.get("SSL_CERT_DIR"):
        # OpenSSL ignores folders that do not exist, and reports a certificate of an unknown CA later.
        if not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
            raise _unreadable("SSL_CERT_DIR", folders, "no such directory")
        return ssl.create_default_context(capath=folders)
    return httpx.create_ssl_context(trust_env=False)


def no_certificates() -> ssl.SSLContext:
    """For connections without TLS."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def grpc_roots(ca_file: Optional[str]) -> Optional[bytes]:
    """The certificates to trust over gRPC: those of `ca_file`, else of SSL_CERT_FILE; None for those of gRPC."""
    variable, path = ("ca_file", ca_file) if ca_file else ("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE"))
    if not path:
        return None
    # gRPC reports certificates that it cannot read only in its log.
    _context_of_file(variable, path)
    return Path(path).read_bytes()


def _context_of_file(variable: str, path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError as failure:
        raise _unreadable(variable, path, f"no certificates in PEM format ({failure.reason})") from None
    except OSError as failure:
        raise _unreadable(variable, path, failure.strerror or str(failure)) from None


def _unreadable(variable: str, path: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"cannot read the certificates in {variable} {path}: {reason}", reason="CERTIFICATES")


def _set_variable(*names: str) -> Optional[str]:
    """The first of the variables that is not empty."""
    return next((name for name in names if os.environ.get(name)), None)


def _bypasses(exceptions: str, url: str) -> bool:
    """Whether a list of hosts, as in NO_PROXY, contains the host of `url`: as a name, domain, address or network. No
    library has this for a given list; an entry of another form matches nothing."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    entries = exceptions.replace(",", " ").lower().split()
    return any(_matches(entry.rpartition("://")[2], host, port) for entry in entries)


def _matches(entry: str, host: str, port: int) -> bool:
    name = entry.removesuffix(f":{port}") if entry.count(":") == 1 or "]:" in entry else entry
    address = _address(host)
    if address is None:
        domain = name.lstrip("*").lstrip(".")
        return name == "*" or host == domain or (domain != "" and host.endswith(f".{domain}"))
    try:
        return name == "*" or address in ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
