from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from muse_command import Muse
from relay import Relay, running

from muse_as_service import MUSEClient


def _url_from(variable: str) -> str:
    url = os.environ.get(variable)
    if not url:
        pytest.fail(f"{variable} must be the URL of a running stack: run the tests with 'cargo test --test client'")
    return url


@pytest.fixture(scope="session")
def url() -> str:
    """The URL of a stack with the user admin / admin."""
    return _url_from("MUSE_TEST_URL")


@pytest.fixture(scope="session")
def strict_url() -> str:
    """The URL of a stack with access tokens that are valid for 2 s, rotating refresh tokens with a grace period of 1 s,
    and an embedder whose queue has room for 4,000 tokens."""
    return _url_from("MUSE_TEST_STRICT_URL")


@pytest.fixture
def relay(url: str) -> Iterator[Relay]:
    with running(url) as relay:
        yield relay


@pytest.fixture(params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, url: str) -> Iterator[MUSEClient]:
    """A logged-in client, for each protocol."""
    with MUSEClient(url=url, grpc=request.param == "grpc") as client:
        client.login(username="admin", password="admin")
        yield client


@pytest.fixture
def api_key(url: str) -> Iterator[str]:
    """A new API key, which is deleted after the test."""
    with httpx.Client(base_url=url) as http:
        token = http.post("/login", json={"username": "admin", "password": "admin"}).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        created = http.post("/api/keys", json={"name": "client test"}, headers=headers)
        assert created.status_code == 201
        yield created.json()["key"]
        http.delete(f"/api/keys/{created.json()['id']}", headers=headers)


@pytest.fixture
def muse(tmp_path: Path) -> Muse:
    return Muse(tmp_path)


@pytest.fixture(scope="session")
def login(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `muse login` saves. Tests that revoke its tokens must log in themselves."""
    muse = Muse(tmp_path_factory.mktemp("login")).login(url)
    saved: dict[str, Any] = json.loads(muse.saved_login().read_text(encoding="utf-8"))
    return saved


@pytest.fixture
def muse_on_stack(muse: Muse, login: dict[str, Any], url: str) -> Muse:
    """The command, logged in to the stack."""
    return muse.with_login(login, url)


@pytest.fixture
def muse_on_relay(muse: Muse, login: dict[str, Any], relay: Relay) -> Muse:
    """The command, logged in to the relay."""
    return muse.with_login(login, relay.url)


@pytest.fixture(scope="session")
def golden() -> list[dict[str, Any]]:
    """The golden sentences with their expected tokens."""
    with (GOLDEN / "sentences.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


GOLDEN = Path(__file__).parents[2] / "models/golden"
