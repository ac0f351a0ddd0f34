"""The base URL of the service."""

from __future__ import annotations

import ipaddress
import re
from typing import Optional
from urllib.parse import urlsplit

import httpx


def base_url(ip: str, port: int, url: Optional[str]) -> str:
    """Returns the URL without a trailing slash. `url` takes precedence over `ip` and `port`.

    Raises `ValueError` if the URL is invalid.
    """
    if url is None:
        url = f"http://{_host(ip, port)}:{port}"
    if not _is_valid(url):
        raise ValueError(f"{url!r} is not an address of a service: write it as http://HOST:PORT or https://HOST")
    return url.rstrip("/")


def _host(ip: str, port: int) -> str:
    """The host in the form of a URL."""
    if ":" not in ip and "/" not in ip:
        return ip
    try:
        ipaddress.IPv6Address(ip.strip("[]"))
    except ValueError:
        name, _, given = ip.rpartition(":")
        example = ip if "//" in ip else f"http://{name}:{given}" if given.isdigit() else f"http://HOST:{port}"
        text = f"ip is {ip!r}, where only a host name or IP address is expected: pass port=, or url={example!r} instead"
        raise ValueError(text) from None
    return ip if ip.startswith("[") else f"[{ip}]"


def _is_valid(url: str) -> bool:
    # urlsplit removes line ends and tabs, and httpx rejects them only when it sends a request.
    if re.search(r"[\s\x00-\x1f\x7f\\?#]", url):
        return False
    try:
        parts = urlsplit(url)
        # `parts.port` raises ValueError if the port is invalid.
        if parts.port == 0 or parts.username is not None or parts.query or parts.fragment:
            return False
        host = httpx.URL(url).raw_host.decode("ascii")
        # Raises UnicodeError, a ValueError, for labels that are empty or too long; so does the resolver later.
        host.rstrip(".").encode("idna")
    except (ValueError, httpx.InvalidURL):
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
