"""Where the service is."""

from __future__ import annotations

from typing import Optional
from urllib.parse import urlsplit


def base_url(ip: str, port: int, url: Optional[str]) -> str:
    """The address without a slash at its end; `url` counts more than `ip` and `port`.

    Raises `ValueError` where it is no address.
    """
    if url is None:
        host = f"[{ip}]" if ":" in ip and not ip.startswith("[") else ip
        url = f"http://{host}:{port}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        # Asking for the port checks it.
        valid = valid and (parts.port is None or parts.port > 0) and parts.username is None
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"{url!r} is no address of a service: write it as http://HOST:PORT or https://HOST")
    return url.rstrip("/")
