"""The fingerprint of the model in the clients: requirements, and calls during which the model changes."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import httpx
import numpy as np
import pytest
from relay import CannedResponse, Relay

from muse_as_service import (
    AsyncMUSEClient,
    Embedder,
    FingerprintMismatchError,
    Model,
    MUSEClient,
    MUSEError,
)
from muse_as_service._calls import DescribeKey, Embed, GetModel, Login, Tokenize
from muse_as_service._fingerprint import Requirement
from muse_as_service._rest import RestProtocol

TEXTS = [f"{number} books" for number in range(1_100)]
FIRST, SECOND = "f32-111111111111", "f32-222222222222"
PATTERN = re.compile("(f32|bf16|f16)-[0-9a-f]{12}")


@pytest.fixture
def on_relay(relay: Relay) -> Iterator[MUSEClient]:
    """A logged-in client whose responses have vectors that depend on the fingerprint."""
    relay.constant_vectors = True
    with MUSEClient(url=relay.url, dtype=np.float32) as client:
        client.login("admin", "admin")
        client.model()
        relay.requests.clear()
        yield client


def vectors_of(relay: Relay, client: MUSEClient, fingerprint: Optional[str]) -> Any:
    relay.fingerprint = fingerprint
    vectors = client.embed(TEXTS)
    relay.required.clear()
    relay.requests.clear()
    return vectors


@pytest.mark.parametrize("value", ["", "f32", "f32-3FA9C07B12DE", "f32-3fa9c07b12d", "f32-3fa9c07b12de ", "f32 x", "é"])
def test_malformed_fingerprint_raises_value_error(value: str) -> None:
    for create in MUSEClient, AsyncMUSEClient, Embedder:
        with pytest.raises(ValueError, match=r"is not a fingerprint of a model, such as f32-"):
            create(fingerprint=value)
        with pytest.raises(TypeError, match="fingerprint must be a string, not bytes"):
            create(fingerprint=value.encode())  # type: ignore[arg-type]


def test_only_calls_of_the_model_require_a_fingerprint() -> None:
    protocol = RestProtocol()
    for call in Embed("t", ["a"], fingerprint=FIRST), Tokenize("t", ["a"], FIRST), GetModel("t", FIRST):
        assert protocol.request(call)["headers"]["muse-fingerprint"] == FIRST
    for other in Embed("t", ["a"]), Tokenize("t", ["a"]), GetModel("t"), Login("a", "b"), DescribeKey("t"):
        assert "muse-fingerprint" not in protocol.request(other)["headers"]


def test_requirement_is_that_of_the_first_response() -> None:
    requirement = Requirement(None)
    requirement.check(None)
    assert requirement.fingerprint is None
    for found in FIRST, None, FIRST:
        requirement.check(found)
    with pytest.raises(FingerprintMismatchError, match=f"{SECOND}, where {FIRST} is required") as caught:
        requirement.check(SECOND)
    assert (caught.value.expected, caught.value.found, requirement.found) == (FIRST, SECOND, FIRST)


def test_requirement_of_the_caller_needs_a_report() -> None:
    with pytest.raises(FingerprintMismatchError, match="does not report the fingerprint") as caught:
        Requirement(FIRST).check(None)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is FingerprintMismatchError and str(again) == str(caught.value)
    assert (again.expected, again.found, again.reason) == (FIRST, None, "FINGERPRINT_MISMATCH")


def test_rejection_by_a_proxy_is_no_mismatch() -> None:
    protocol, call = RestProtocol(), Embed("t", ["a"], fingerprint=FIRST)
    request = httpx.Request("POST", "http://host/embed")
    for response, kind in (
        (httpx.Response(412, json={"message": "another model"}, headers={"muse-fingerprint": SECOND}), True),
        (httpx.Response(412, text="<html>"), False),
    ):
        response.request = request
        with pytest.raises(MUSEError, match="412: ") as caught:
            protocol.parse(call, response)
        assert isinstance(caught.value, FingerprintMismatchError) is kind
        assert not kind or (caught.value.expected, caught.value.found) == (FIRST, SECOND)  # type: ignore[attr-defined]


def test_client_reports_the_fingerprint_of_the_model(client: MUSEClient, url: str) -> None:
    assert client.fingerprint is None
    model = client.model()
    assert model.fingerprint and PATTERN.fullmatch(model.fingerprint)
    assert model.fingerprint.startswith(model.precision + "-")
    other = pickle.loads(pickle.dumps(client))
    for call in other.embed, other.tokenize:
        call(["a"])
        assert other.fingerprint == model.fingerprint

    async def describe() -> tuple[Model, Optional[str]]:
        async with AsyncMUSEClient(url=url, tokens=client._session._store) as again:
            return await again.model(), again.fingerprint

    described, fingerprint = asyncio.run(describe())
    assert described.fingerprint == fingerprint == model.fingerprint


@pytest.mark.parametrize("grpc", [False, True])
def test_required_fingerprint_of_the_service_is_accepted(url: str, api_key: str, grpc: bool) -> None:
    with MUSEClient(url=url, api_key=api_key, grpc=grpc) as client:
        fingerprint = client.model().fingerprint
        expected = client.embed(TEXTS)
    with MUSEClient(url=url, api_key=api_key, grpc=grpc, fingerprint=fingerprint) as client:
        assert client.model().fingerprint == fingerprint
        assert np.abs(client.embed(TEXTS, concurrency=2) - expected).max() < 1e-5
        assert client.tokenize(["a"]) == [["▁a"]]

    async def embed() -> Any:
        async with AsyncMUSEClient(url=url, api_key=api_key, grpc=grpc, fingerprint=fingerprint) as other:
            return await other.embed(TEXTS, concurrency=2)

    assert np.abs(asyncio.run(embed()) - expected).max() < 1e-5
    embedded = Embedder(url, api_key=api_key, grpc=grpc, fingerprint=fingerprint).embed(TEXTS)
    assert embedded.fingerprint == fingerprint
    assert np.abs(embedded.vectors - expected).max() < 1e-5


@pytest.mark.parametrize("grpc", [False, True])
def test_other_required_fingerprint_raises_mismatch_error(url: str, api_key: str, grpc: bool) -> None:
    with MUSEClient(url=url, api_key=api_key) as client:
        fingerprint = client.model().fingerprint
    errors = []

    def record(call: Any, *arguments: Any) -> None:
        with pytest.raises(FingerprintMismatchError) as caught:
            call(*arguments)
        errors.append(caught.value)

    with MUSEClient(url=url, api_key=api_key, grpc=grpc, fingerprint=FIRST) as client:
        for call in client.embed, client.tokenize:
            record(call, ["a"])
            record(call, TEXTS)
        record(client.model)

    async def embed() -> None:
        async with AsyncMUSEClient(url=url, api_key=api_key, grpc=grpc, fingerprint=FIRST) as other:
            await other.embed(["a"])

    record(asyncio.run, embed())
    record(pickle.loads(pickle.dumps(Embedder(url, api_key=api_key, grpc=grpc, fingerprint=FIRST))), ["a"])
    for error in errors:
        assert (error.status, error.reason) == (412, "FINGERPRINT_MISMATCH"), error
        assert (error.expected, error.found) == (FIRST, fingerprint), error
        assert FIRST in str(error) and str(fingerprint) in str(error)
    assert errors[0].partial.shape == (0, 512) and errors[2].partial == []


def test_mismatch_is_not_retried(relay: Relay, api_key: str) -> None:
    with MUSEClient(url=relay.url, api_key=api_key, fingerprint=FIRST, retry_for=60) as client:
        with pytest.raises(FingerprintMismatchError):
            client.embed(["a"])
        assert relay.requests == ["POST /embed"] and relay.required == [FIRST]
        relay.fingerprint = FIRST
        assert client.embed(["a"]).shape == (1, 512)
        # The model changes during a call.
        relay.fingerprints = [FIRST, SECOND]
        relay.requests.clear()
        with pytest.raises(FingerprintMismatchError) as caught:
            client.embed(TEXTS)
    assert (caught.value.expected, caught.value.found) == (FIRST, SECOND)
    assert caught.value.partial.shape == (0, 512)
    assert relay.requests.count("POST /embed") == 2


def test_call_requires_the_model_of_its_first_response(on_relay: MUSEClient, relay: Relay) -> None:
    relay.fingerprint = FIRST
    on_relay.embed(TEXTS)
    assert relay.required == [None, FIRST, FIRST]
    relay.required.clear()
    on_relay.tokenize(TEXTS)
    assert relay.required == [None, FIRST, FIRST]
    # The next call accepts any model.
    relay.fingerprint = SECOND
    on_relay.embed(["a"])
    assert relay.required[3:] == [None] and on_relay.fingerprint == SECOND


def test_call_starts_over_when_the_model_changes(
    on_relay: MUSEClient, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    expected = vectors_of(relay, on_relay, SECOND)
    relay.fingerprints = [FIRST, SECOND]
    seen: list[int] = []
    found = on_relay.embed(TEXTS, progress=lambda done, total: seen.append(done))
    assert np.array_equal(found, expected)
    assert relay.required == [None, FIRST, None, SECOND, SECOND]
    assert seen == [512, 512, 1_024, 1_100]
    assert on_relay.fingerprint == SECOND
    (record,) = [record for record in caplog.records if record.name == "muse_as_service"]
    assert "has changed during a call, which starts over" in record.message


def test_concurrent_requests_have_one_model(on_relay: MUSEClient, relay: Relay) -> None:
    expected = {name: vectors_of(relay, on_relay, name) for name in (FIRST, SECOND)}

    async def embed() -> Any:
        async with AsyncMUSEClient(url=relay.url, dtype=np.float32, tokens=on_relay._session._store) as other:
            return await other.embed(TEXTS, concurrency=3)

    for call in (lambda: on_relay.embed(TEXTS, concurrency=3)), (lambda: asyncio.run(embed())):
        # The requests are in flight before the first response, so none requires a fingerprint.
        relay.fingerprint = FIRST
        relay.fingerprints = [FIRST, FIRST, SECOND]
        found = call()
        assert any(np.array_equal(found, vectors) for vectors in expected.values())


def test_second_change_of_the_model_raises_mismatch_error(on_relay: MUSEClient, relay: Relay) -> None:
    async def embed() -> Any:
        async with AsyncMUSEClient(url=relay.url, tokens=on_relay._session._store) as other:
            return await other.embed(TEXTS)

    for call in (lambda: on_relay.embed(TEXTS)), (lambda: asyncio.run(embed())):
        relay.fingerprints = [FIRST, SECOND, SECOND, FIRST]
        relay.required.clear()
        text = (
            f"several models during the call, with the fingerprints {SECOND} and {FIRST}, also after the call started"
        )
        with pytest.raises(FingerprintMismatchError, match=text) as caught:
            call()
        assert caught.value.partial.shape == (0, 512)
        assert relay.required == [None, FIRST, None, SECOND]


def test_error_after_a_restart_has_results_of_one_model(on_relay: MUSEClient, relay: Relay) -> None:
    expected = vectors_of(relay, on_relay, SECOND)
    relay.fingerprints = [FIRST, SECOND, SECOND]
    failure = CannedResponse(500, {}, '{"message": "broken"}', path="/embed")
    with pytest.raises(MUSEError, match="500: broken") as caught:
        # The third request is the first one of the second attempt.
        on_relay.embed(TEXTS, progress=lambda *_: relay.responses.append(failure) if len(relay.required) == 3 else None)
    assert np.array_equal(caught.value.partial, expected[:512])


def test_service_without_fingerprints_needs_none(on_relay: MUSEClient, relay: Relay) -> None:
    relay.has_fingerprint = False
    assert on_relay.embed(TEXTS).shape == (1_100, 512)
    assert relay.required == [None] * 3
    assert on_relay.model().fingerprint is None and on_relay.fingerprint is None
    assert on_relay.tokenize(["a"]) == [["▁a"]]
    store = on_relay._session._store
    with MUSEClient(url=relay.url, tokens=store, fingerprint=FIRST) as client:
        for call in client.embed, client.tokenize:
            with pytest.raises(FingerprintMismatchError, match="too old, or a proxy removes the header") as caught:
                call(["a"])
            assert (caught.value.expected, caught.value.found) == (FIRST, None)


def test_embedder_restarts_with_the_reasons_of_one_model(relay: Relay, api_key: str) -> None:
    texts: list[Any] = list(TEXTS)
    texts[3], texts[700] = None, "x y " * 5_000
    embedder = Embedder(relay.url, api_key=api_key, on_error="null", concurrency=1)
    relay.constant_vectors = True
    relay.fingerprint = SECOND
    expected = embedder.embed(texts)
    relay.fingerprints = [FIRST, FIRST, FIRST, SECOND]
    found = embedder.embed(texts)
    assert found.fingerprint == expected.fingerprint == SECOND
    assert np.array_equal(found.vectors, expected.vectors, equal_nan=True)
    assert found.reasons == expected.reasons and found.reasons[3] == "null"
    assert [index for index, reason in enumerate(found.reasons) if reason] == [3, 700]
    assert embedder.embed([]).fingerprint is None


def test_embedders_with_other_requirements_share_no_client(relay: Relay, api_key: str) -> None:
    relay.fingerprint = FIRST
    right = Embedder(relay.url, api_key=api_key, fingerprint=FIRST)
    wrong = Embedder(relay.url, api_key=api_key, fingerprint=SECOND)
    assert right(["a"]).shape == (1, 512)
    with pytest.raises(FingerprintMismatchError):
        wrong(["a"])
    assert Embedder(relay.url, api_key=api_key)(["a"]).shape == (1, 512)


def test_package_documents_the_error() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert "`FingerprintMismatchError`" in readme
