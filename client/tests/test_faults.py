"""What the clients do where something is in the way: a relay stands before the real stack and fails as it is told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate

import numpy as np
import pytest
from relay import Answer, Relay

from muse_as_service import AsyncMUSEClient, MUSEClient, MUSEError, OverloadedError, UnavailableError

SENTENCES = ["Where is the library?", "¿Dónde está la biblioteca?"]
BUSY = Answer(429, {"Retry-After": "1"}, '{"message": "too many tokens are waiting"}')
AWAY = Answer(503, {"Retry-After": "1"}, '{"message": "the embedder does not respond"}')
BROKEN = Answer(None)


@pytest.fixture
def client(relay: Relay) -> Iterator[MUSEClient]:
    with MUSEClient(url=relay.url) as client:
        client.login("admin", "admin")
        client.tokenize(["a"])
        relay.requests.clear()
        yield client


@pytest.mark.parametrize("refusal", [BUSY, AWAY])
def test_a_refusal_is_waited_out_as_long_as_it_says(client: MUSEClient, relay: Relay, refusal: Answer) -> None:
    relay.answers = [refusal, refusal]
    begun = time.monotonic()
    assert client.tokenize(["a"]) == [["▁a"]]
    assert 2 <= time.monotonic() - begun < 5
    assert len(relay.requests) == 3


def test_a_date_is_waited_for_too(client: MUSEClient, relay: Relay) -> None:
    relay.answers = [Answer(503, {"Retry-After": formatdate(time.time() + 3, usegmt=True)})]
    begun = time.monotonic()
    assert client.tokenize(["a"]) == [["▁a"]]
    assert 1.5 <= time.monotonic() - begun < 6


def test_without_a_time_the_waits_grow(client: MUSEClient, relay: Relay) -> None:
    relay.answers = [Answer(503)] * 4
    begun = time.monotonic()
    assert client.tokenize(["a"]) == [["▁a"]]
    # 0.2, 0.4, 0.8 and 1.6 s, or down to half of that.
    assert 1.5 <= time.monotonic() - begun < 6


def test_the_patience_has_an_end(relay: Relay) -> None:
    with MUSEClient(url=relay.url, retry_for=3) as client:
        client.login("admin", "admin")
        relay.answers = [AWAY] * 99
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match="503: the embedder does not respond") as caught:
            client.embed(["a"])
        assert time.monotonic() - begun < 4
        # Longer than the patience: told at once.
        relay.answers = [Answer(429, {"Retry-After": "60"}, '{"message": "wait"}')]
        begun = time.monotonic()
        with pytest.raises(OverloadedError) as refused:
            client.embed(["a"])
        assert time.monotonic() - begun < 1
    assert (caught.value.status, caught.value.reason, caught.value.retry_after) == (503, "UNAVAILABLE", 1)
    assert (refused.value.status, refused.value.retry_after) == (429, 60)


def test_a_connection_that_breaks_is_made_again(client: MUSEClient, relay: Relay) -> None:
    relay.answers = [BROKEN, BROKEN]
    assert client.embed(SENTENCES).shape == (2, 512)
    assert len(relay.requests) == 3


def test_a_login_that_may_have_been_carried_out_is_not_repeated(relay: Relay) -> None:
    with MUSEClient(url=relay.url) as client:
        relay.answers = [BROKEN]
        with pytest.raises(UnavailableError, match="cannot reach"):
            client.login("admin", "admin")
        assert relay.requests == ["POST /login"]
        # One that was refused may.
        relay.answers = [AWAY]
        client.login("admin", "admin")
        # And so may one that cannot have arrived.
        relay.stop()
        threading.Timer(1, relay.start).start()
        client.login("admin", "admin")


def test_tasks_wait_without_holding_up_others(relay: Relay) -> None:
    async def run() -> float:
        async with AsyncMUSEClient(url=relay.url) as client:
            await client.login("admin", "admin")
            relay.answers = [BUSY, BUSY, BROKEN]
            begun = time.monotonic()
            found = await asyncio.gather(*(client.tokenize(["a"]) for _ in range(3)))
            assert found == [[["▁a"]]] * 3
            return time.monotonic() - begun

    assert 1 <= asyncio.run(run()) < 2.5


def test_vectors_come_as_numbers_not_as_text(client: MUSEClient, relay: Relay) -> None:
    vectors = client.embed(SENTENCES)
    assert relay.types[-1] == "application/octet-stream"
    assert relay.requests == ["POST /embed"]
    # Each is a float32, though float64 is returned.
    assert np.array_equal(vectors, vectors.astype(np.float32)) and vectors.dtype == np.float64


def test_the_service_of_old_is_asked_as_it_was(client: MUSEClient, relay: Relay) -> None:
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
    # Only the first had to find out.
    assert [line for line in relay.requests if line.startswith("POST /t")] == ["POST /tokenize"]
    assert relay.requests.count("GET /embed") == 2


def test_no_cookies_are_sent_back(relay: Relay) -> None:
    with MUSEClient(url=relay.url) as client:
        relay.answers = [
            Answer(200, {"Set-Cookie": "access_token_cookie=x; Path=/"}, '{"access_token": "a", "refresh_token": "b"}')
        ]
        client.login("admin", "admin")
        assert not client._transport._http.cookies  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            Answer(308, {"Location": "https://elsewhere/"}),
            "redirects to https://elsewhere/: use that address as the url",
        ),
        (Answer(404, {}, "<html>"), "answers 404 Not Found: is that the address of MUSE as Service?"),
        (Answer(200, {}, "<html>"), "is not one of MUSE as Service"),
        (Answer(200, {}, '{"tokens": []}'), "0 results to 1 sentences"),
        (Answer(200, {}, "[]"), "is the address right?"),
        (Answer(500, {}, '{"message": "Internal Server Error"}'), "500: Internal Server Error"),
        (Answer(400, {}, '{"message": {"sentence": "This field cannot be blank"}}'), "400: .*cannot be blank"),
    ],
)
def test_what_makes_no_sense_is_said(client: MUSEClient, relay: Relay, answer: Answer, text: str) -> None:
    relay.answers = [answer]
    with pytest.raises(MUSEError, match=text.replace("?", r"\?")):
        client.tokenize(["a"])
    assert len(relay.requests) == 1


def test_a_server_that_hangs(relay: Relay) -> None:
    with MUSEClient(url=relay.url, timeout=0.5, retry_for=0) as client:
        client.login("admin", "admin")
        relay.open.clear()
        with pytest.raises(UnavailableError, match="does not answer in time") as caught:
            client.tokenize(["a"])
    assert caught.value.reason == "DEADLINE_EXCEEDED"


def test_a_server_that_comes_back(client: MUSEClient, relay: Relay) -> None:
    relay.stop()
    threading.Timer(1.5, relay.start).start()
    begun = time.monotonic()
    assert client.tokenize(["b"]) == [["▁b"]]
    assert time.monotonic() - begun >= 1.5
