"""The clients under faults, which a relay in front of a real stack injects."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate

import numpy as np
import pytest
from relay import CannedResponse, Relay

from muse_as_service import AsyncMUSEClient, MUSEClient, MUSEError, OverloadedError, UnavailableError

SENTENCES = ["Where is the library?", "¿Dónde está la biblioteca?"]
OVERLOADED = CannedResponse(429, {"Retry-After": "1"}, '{"message": "too many tokens are waiting"}')
UNAVAILABLE = CannedResponse(503, {"Retry-After": "1"}, '{"message": "the embedder does not respond"}')
QUOTA_EXHAUSTED = CannedResponse(
    429, {"Retry-After": "1", "X-Should-Retry": "false"}, '{"message": "The quota of the user is exhausted"}'
)
CONNECTION_CLOSED = CannedResponse(None)


@pytest.fixture
def client(relay: Relay) -> Iterator[MUSEClient]:
    with MUSEClient(url=relay.url) as client:
        client.login("admin", "admin")
        client.tokenize(["a"])
        relay.requests.clear()
        yield client


@pytest.mark.parametrize("rejection", [OVERLOADED, UNAVAILABLE])
def test_retry_after_seconds_delays_the_retry(client: MUSEClient, relay: Relay, rejection: CannedResponse) -> None:
    relay.responses = [rejection, rejection]
    start = time.monotonic()
    assert client.tokenize(["a"]) == [["▁a"]]
    assert 2 <= time.monotonic() - start < 5
    assert len(relay.requests) == 3


@pytest.mark.parametrize("reason", ["TOO_MANY_ATTEMPTS", "OVERLOADED"])
def test_rejected_login_has_the_reason_of_the_service(relay: Relay, reason: str) -> None:
    body = json.dumps({"message": "wait", "reason": reason})
    relay.responses = [CannedResponse(429, {"Retry-After": "60"}, body)]
    with MUSEClient(url=relay.url) as client, pytest.raises(OverloadedError) as rejected:
        client.login("admin", "admin")
    assert (rejected.value.status, rejected.value.reason) == (429, reason)


def test_retry_after_date_delays_the_retry(client: MUSEClient, relay: Relay) -> None:
    relay.responses = [CannedResponse(503, {"Retry-After": formatdate(time.time() + 3, usegmt=True)})]
    start = time.monotonic()
    assert client.tokenize(["a"]) == [["▁a"]]
    assert 1.5 <= time.monotonic() - start < 6


def test_retries_without_retry_after_back_off_exponentially(client: MUSEClient, relay: Relay) -> None:
    relay.responses = [CannedResponse(503)] * 4
    start = time.monotonic()
    assert client.tokenize(["a"]) == [["▁a"]]
    # 0.2, 0.4, 0.8 and 1.6 s, or down to half of that.
    assert 1.5 <= time.monotonic() - start < 6


def test_retries_stop_after_retry_for(relay: Relay) -> None:
    with MUSEClient(url=relay.url, retry_for=3) as client:
        client.login("admin", "admin")
        relay.responses = [UNAVAILABLE] * 99
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="503: the embedder does not respond") as caught:
            client.embed(["a"])
        assert time.monotonic() - start < 4
        # Retry-After exceeds retry_for: the client raises the error immediately.
        relay.responses = [CannedResponse(429, {"Retry-After": "60"}, '{"message": "wait"}')]
        start = time.monotonic()
        with pytest.raises(OverloadedError) as refused:
            client.embed(["a"])
        assert time.monotonic() - start < 1
    assert (caught.value.status, caught.value.reason, caught.value.retry_after) == (503, "UNAVAILABLE", 1)
    assert (refused.value.status, refused.value.retry_after) == (429, 60)


def test_exhausted_quota_raises_at_once(client: MUSEClient, relay: Relay) -> None:
    relay.responses = [QUOTA_EXHAUSTED]
    start = time.monotonic()
    with pytest.raises(OverloadedError, match="429: The quota of the user is exhausted") as caught:
        client.embed(["a"])
    assert time.monotonic() - start < 1
    assert (caught.value.reason, caught.value.retry_after, len(relay.requests)) == ("QUOTA_EXHAUSTED", 1, 1)


def test_broken_connection_is_retried(client: MUSEClient, relay: Relay) -> None:
    relay.responses = [CONNECTION_CLOSED, CONNECTION_CLOSED]
    assert client.embed(SENTENCES).shape == (2, 512)
    assert len(relay.requests) == 3


def test_login_that_may_have_succeeded_is_not_retried(relay: Relay) -> None:
    with MUSEClient(url=relay.url) as client:
        relay.responses = [CONNECTION_CLOSED]
        with pytest.raises(UnavailableError, match="cannot reach"):
            client.login("admin", "admin")
        assert relay.requests == ["POST /login"]
        # The client retries a login that the service rejected,
        relay.responses = [UNAVAILABLE]
        client.login("admin", "admin")
        # and one that cannot have reached the service.
        relay.stop()
        threading.Timer(1, relay.start).start()
        client.login("admin", "admin")


def test_backoff_of_one_task_does_not_block_others(relay: Relay) -> None:
    async def run() -> float:
        async with AsyncMUSEClient(url=relay.url) as client:
            await client.login("admin", "admin")
            relay.responses = [OVERLOADED, OVERLOADED, CONNECTION_CLOSED]
            start = time.monotonic()
            found = await asyncio.gather(*(client.tokenize(["a"]) for _ in range(3)))
            assert found == [[["▁a"]]] * 3
            return time.monotonic() - start

    assert 1 <= asyncio.run(run()) < 2.5


def test_embed_requests_binary_vectors(client: MUSEClient, relay: Relay) -> None:
    vectors = client.embed(SENTENCES)
    assert relay.types[-1] == "application/octet-stream"
    assert relay.requests == ["POST /embed"]
    # The service sends float32, the client returns float64.
    assert np.array_equal(vectors, vectors.astype(np.float32)) and vectors.dtype == np.float64


def test_release_1_service_is_called_with_get(client: MUSEClient, relay: Relay) -> None:
    vectors, tokens = client.embed(SENTENCES), client.tokenize(SENTENCES)
    relay.only_get = True
    relay.requests.clear()
    with MUSEClient(url=relay.url) as other:
        other.login("admin", "admin")
        assert other.tokenize(SENTENCES) == tokens
        found = other.embed(SENTENCES)
        assert relay.types[-1] == "application/json"
        assert np.abs(found - vectors).max() < 2e-6 and found.dtype == np.float64
        assert other.embed(["x" * 10_000]).shape == (1, 512)
    # Only the first call tries POST.
    assert [line for line in relay.requests if line.startswith("POST /t")] == ["POST /tokenize"]
    assert relay.requests.count("GET /embed") == 2


def test_cookies_are_not_stored(relay: Relay) -> None:
    with MUSEClient(url=relay.url) as client:
        relay.responses = [
            CannedResponse(
                200, {"Set-Cookie": "access_token_cookie=x; Path=/"}, '{"access_token": "a", "refresh_token": "b"}'
            )
        ]
        client.login("admin", "admin")
        assert not client._connected().transport._http.cookies  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (
            CannedResponse(308, {"Location": "https://elsewhere/"}),
            "redirects to https://elsewhere/: use that URL",
        ),
        (CannedResponse(404, {}, "<html>"), "returns 404 Not Found: is that the URL of MUSE as Service?"),
        (CannedResponse(200, {}, "<html>"), "is not one of MUSE as Service"),
        (CannedResponse(200, {}, '{"tokens": []}'), "0 results, where 1 are expected"),
        (CannedResponse(200, {}, "[]"), "is the URL right?"),
        (CannedResponse(500, {}, '{"message": "Internal Server Error"}'), "500: Internal Server Error"),
        (CannedResponse(400, {}, '{"message": {"sentence": "This field cannot be blank"}}'), "400: .*cannot be blank"),
    ],
)
def test_unexpected_response_raises_muse_error(
    client: MUSEClient, relay: Relay, response: CannedResponse, text: str
) -> None:
    relay.responses = [response]
    with pytest.raises(MUSEError, match=text.replace("?", r"\?")):
        client.tokenize(["a"])
    assert len(relay.requests) == 1


def test_timeout_raises_unavailable_error(relay: Relay) -> None:
    with MUSEClient(url=relay.url, timeout=0.5, retry_for=0) as client:
        client.login("admin", "admin")
        relay.unblocked.clear()
        with pytest.raises(UnavailableError, match="does not respond in time") as caught:
            client.tokenize(["a"])
    assert caught.value.reason == "DEADLINE_EXCEEDED"


def test_call_succeeds_after_the_server_restarts(client: MUSEClient, relay: Relay) -> None:
    relay.stop()
    threading.Timer(1.5, relay.start).start()
    start = time.monotonic()
    assert client.tokenize(["b"]) == [["▁b"]]
    assert time.monotonic() - start >= 1.5
