"""Proxies and certificates of the environment."""

from __future__ import annotations

import asyncio
import os
import pickle
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from proxies import RefusingProxy, refusing_proxy
from relay import CannedResponse, Relay

from muse_as_service import AsyncMUSEClient, ConfigurationError, MUSEClient, MUSEError, UnavailableError
from muse_as_service._environment import grpc_proxy_for, is_loopback, proxy_for

VARIABLES = [f"{name}_PROXY" for name in ("HTTP", "HTTPS", "ALL", "NO", "GRPC", "NO_GRPC")]
CERTIFICATES = Path(__file__).parent / "certificates"
ELSEWHERE = "http://muse.example:5000"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*VARIABLES, "SSL_CERT_FILE", "SSL_CERT_DIR", "MUSE_API_KEY", "REQUEST_METHOD"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingProxy]:
    """A proxy that all variables name."""
    with refusing_proxy() as proxy:
        for name in "http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "grpc_proxy":
            monkeypatch.setenv(name, proxy.url)
        yield proxy


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_loopback_is_reached_without_the_proxy(url: str, proxy: RefusingProxy, grpc: bool, host: str) -> None:
    port = url.rpartition(":")[2]
    with MUSEClient(url=f"http://{host}:{port}", grpc=grpc, retry_for=0) as client:
        client.login("admin", "admin")
        assert client.tokenize(["a"]) == [["▁a"]]

    async def tokenize() -> Any:
        async with AsyncMUSEClient(url=f"http://{host}:{port}", grpc=grpc, retry_for=0) as client:
            await client.login("admin", "admin")
            return await client.tokenize(["a"])

    assert asyncio.run(tokenize()) == [["▁a"]]
    assert proxy.requests == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "127.1", "::1",
                                  "::ffff:127.0.0.1", "0.0.0.0", "::"])  # fmt: skip
def test_loopback_hosts_are_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example.org", "mylocalhost", "128.0.0.1", "10.0.0.1", "::2", "muse", ""])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("url", [ELSEWHERE, "https://muse.example"])
def test_login_refused_by_a_proxy_is_not_repeated(proxy: RefusingProxy, grpc: bool, url: str) -> None:
    with MUSEClient(url=url, grpc=grpc, retry_for=20) as client:
        start = time.monotonic()
        with pytest.raises(MUSEError) as caught:
            client.login("admin", "secret")
    assert time.monotonic() - start < 10
    assert len(proxy.requests) == 1
    variable = "grpc_proxy" if grpc else "https_proxy" if url.startswith("https") else "http_proxy"
    assert f"the proxy {proxy.url} of {variable}" in str(caught.value)
    assert f"unset {variable}, or add muse.example to " in str(caught.value)
    if url.startswith("https") or grpc:
        assert proxy.requests[0].startswith("CONNECT muse.example:")
        assert not any(b"secret" in body for body in proxy.bodies)


def test_unreachable_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:pass@127.0.0.1:1")
    with MUSEClient(url=ELSEWHERE, retry_for=0) as client, pytest.raises(UnavailableError) as caught:
        client.login("admin", "secret")
    text = str(caught.value)
    assert text.startswith(f"cannot reach {ELSEWHERE} through the proxy http://127.0.0.1:1 of HTTP_PROXY (")
    assert "pass" not in text and "secret" not in text


@pytest.mark.parametrize(
    "exceptions", ["localhost,[::1]", "[", "a b,,", "http://x:y", "*.example.org,::1/129", "%zz", ",", "\u2028"]
)
def test_unusual_no_proxy_is_accepted(monkeypatch: pytest.MonkeyPatch, url: str, exceptions: str) -> None:
    monkeypatch.setenv("NO_PROXY", exceptions)
    with MUSEClient(url=url) as client:
        client.login("admin", "admin")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    found = proxy_for(ELSEWHERE)
    assert found is not None and (found.variable, found.exceptions) == ("HTTP_PROXY", "NO_PROXY")


@pytest.mark.parametrize(
    ("host", "exceptions"),
    [
        ("muse.example", "muse.example"),
        ("muse.example", "localhost, .example"),
        ("muse.example", "*.example"),
        ("muse.example", "http://muse.example"),
        ("muse.example", "muse.example:5000"),
        ("muse.example", "a,*"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3"),
        ("[fd00::5]", "[fd00::5]"),
        ("[fd00::5]", "localhost fd00::/16"),
    ],
)
def test_no_proxy_matches_names_domains_and_networks(
    monkeypatch: pytest.MonkeyPatch, host: str, exceptions: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert proxy_for(f"http://{host}:5000") is not None and grpc_proxy_for(f"http://{host}:5000") is not None
    monkeypatch.setenv("no_proxy", exceptions)
    assert proxy_for(f"http://{host}:5000") is None and grpc_proxy_for(f"http://{host}:5000") is None
    assert proxy_for("http://other:5000") is None if exceptions == "a,*" else proxy_for("http://other:5000")


@pytest.mark.parametrize("value", ["ftp://proxy", "http://pass:word@proxy:port", "socks9://proxy", "http://[proxy"])
def test_unusable_proxy_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", value)
    with pytest.raises(ConfigurationError, match="HTTP_PROXY") as caught:
        MUSEClient(url=ELSEWHERE)
    assert "\n" not in str(caught.value) and "word" not in str(caught.value)


def test_missing_certificates_do_not_affect_http(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such.pem")
    monkeypatch.setenv("SSL_CERT_DIR", "/no/such")
    for grpc in False, True:
        with MUSEClient(url=url, grpc=grpc) as client:
            client.login("admin", "admin")


@pytest.mark.parametrize("grpc", [False, True])
def test_missing_certificates_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, grpc: bool) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such.pem")
    message = "cannot read the certificates in SSL_CERT_FILE /no/such.pem: No such file or directory"
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        MUSEClient(url="https://localhost", grpc=grpc)
    with pytest.raises(ConfigurationError, match=r"in ca_file /no/ca\.pem: No such file"):
        MUSEClient(url="https://localhost", grpc=grpc, ca_file="/no/ca.pem")
    (tmp_path / "empty.pem").write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"in ca_file .*empty\.pem: no certificates in PEM format"):
        MUSEClient(url="https://localhost", grpc=grpc, ca_file=str(tmp_path / "empty.pem"))
    if not grpc:
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.setenv("SSL_CERT_DIR", "/no/such")
        with pytest.raises(ConfigurationError, match="in SSL_CERT_DIR /no/such: no such directory"):
            MUSEClient(url="https://localhost")


class TlsServer:
    """Accepts TLS connections with a certificate for localhost of the CA in certificates/ca.pem."""

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATES / "localhost.pem")
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.connections = 0
        server = self

        class Server(ThreadingHTTPServer):
            def get_request(self) -> tuple[Any, Any]:
                server.connections += 1
                return super().get_request()

            def handle_error(self, *_: object) -> None:
                """Ignores clients that reject the certificate."""

        self.server = Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
        # The handshake must not block the thread that accepts connections.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def tls() -> Iterator[TlsServer]:
    server = TlsServer()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.mark.parametrize("grpc", [False, True])
def test_unknown_ca_is_named_and_not_retried(tls: TlsServer, grpc: bool) -> None:
    with MUSEClient(url=f"https://localhost:{tls.port}", grpc=grpc, retry_for=30) as client:
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="cannot verify the certificate of https://localhost") as caught:
            client.login("admin", "admin")
    assert time.monotonic() - start < 10
    assert caught.value.reason == "CERTIFICATE" and "--ca-file" in str(caught.value)


@pytest.mark.parametrize("grpc", [False, True])
def test_certificate_of_another_host_is_not_retried(tls: TlsServer, grpc: bool) -> None:
    ca = str(CERTIFICATES / "ca.pem")
    with MUSEClient(url=f"https://127.0.0.1:{tls.port}", grpc=grpc, ca_file=ca, retry_for=30) as client:
        start = time.monotonic()
        with pytest.raises(UnavailableError, match=r"certificate of https://127\.0\.0\.1.*not valid for") as caught:
            client.login("admin", "admin")
    assert time.monotonic() - start < 10
    assert caught.value.reason == "CERTIFICATE"


def test_relative_ca_file_survives_a_change_of_folder(
    tls: TlsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(CERTIFICATES)
    client = MUSEClient(url=f"https://localhost:{tls.port}", ca_file="ca.pem", retry_for=0)
    monkeypatch.chdir(tmp_path)
    for used in client, pickle.loads(pickle.dumps(client)):
        with pytest.raises(MUSEError) as caught:
            used.login("admin", "admin")
        # The server accepts the connection, and knows no such method.
        assert caught.value.status == 501


@pytest.mark.parametrize("grpc", [False, True])
def test_https_to_a_port_without_tls_is_not_retried(relay: Relay, grpc: bool) -> None:
    with MUSEClient(url=f"https://localhost:{relay.port}", grpc=grpc, retry_for=30) as client:
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="does not speak TLS: does its URL begin with http://") as caught:
            client.login("admin", "admin")
    assert time.monotonic() - start < 10
    assert caught.value.reason == "NOT_TLS"


def test_http_to_a_tls_port_shows_the_advice_of_the_server(relay: Relay) -> None:
    # As the services respond (chassis/server/src/tls/accept.rs).
    relay.responses = [
        CannedResponse(400, {"Content-Type": "text/plain"}, "This port speaks TLS: use https:// instead")
    ]
    with MUSEClient(url=relay.url) as client, pytest.raises(MUSEError) as caught:
        client.login("admin", "admin")
    assert "(This port speaks TLS: use https:// instead)" in str(caught.value)


def test_environment_of_a_process_is_read_by_the_command(tmp_path: Path, url: str) -> None:
    command = [sys.executable, "-m", "muse_as_service", "login", url, "--user", "admin"]
    environment = {
        "XDG_STATE_HOME": str(tmp_path),
        "HTTP_PROXY": "http://127.0.0.1:1",
        "NO_PROXY": "localhost,[::1]",
        "SSL_CERT_FILE": "/no/such.pem",
    }
    ran = subprocess.run(command, env={**os.environ, **environment}, input="admin\n", capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
