"""The base URL of the service."""

from __future__ import annotations

from typing import Optional
from urllib.parse import urlsplit


def base_url(ip: str, port: int, url: Optional[str]) -> str:
    """Returns the URL without a trailing slash. `url` takes precedence over `ip` and `port`.

    Raises `ValueError` if the URL is invalid.
    """
    if url is None:
        host = f"[{ip}]" if ":" in ip and not ip.startswith("[") else ip
        url = f"http://{host}:{port}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        # `parts.port` raises ValueError if the port is invalid.
        valid = valid and (parts.port is None or parts.port > 0) and parts.username is None
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"{url!r} is no address of a service: write it as http://HOST:PORT or https://HOST")
    return url.rstrip("/")
