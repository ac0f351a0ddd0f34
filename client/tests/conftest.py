from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay import Relay, running

from muse_as_service import MUSEClient


def _address(variable: str) -> str:
    url = os.environ.get(variable)
    if not url:
        pytest.fail(f"{variable} must be the address of a running stack: run the tests with 'cargo test --test client'")
    return url


@pytest.fixture(scope="session")
def url() -> str:
    """A stack with the user admin / admin."""
    return _address("MUSE_TEST_URL")


@pytest.fixture(scope="session")
def strict_url() -> str:
    """A stack whose access tokens hold for 2 s, whose refresh tokens rotate and may be repeated for 1 s, and whose
    embedder takes 2,000 tokens at a time."""
    return _address("MUSE_TEST_STRICT_URL")


@pytest.fixture
def relay(url: str) -> Iterator[Relay]:
    with running(url) as relay:
        yield relay


@pytest.fixture(params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, url: str) -> Iterator[MUSEClient]:
    """A client that is logged in, over each of the protocols."""
    with MUSEClient(url=url, grpc=request.param == "grpc") as client:
        client.login(username="admin", password="admin")
        yield client


@pytest.fixture(scope="session")
def golden() -> list[dict[str, Any]]:
    """Texts with the tokens that they must have."""
    import json

    with (GOLDEN / "sentences.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


GOLDEN = Path(__file__).parents[2] / "models/golden"
