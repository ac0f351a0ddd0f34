"""The picklable embedder for data engines, and the similarity of vectors."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from relay import CannedResponse, Relay

from muse_as_service import AuthenticationError, Embedder, MUSEClient, TooLargeError, similarity

TEXTS = [f"{number} books" for number in range(600)]


@pytest.mark.parametrize("grpc", [False, True])
def test_embedder_returns_the_vectors_of_the_client(url: str, api_key: str, grpc: bool) -> None:
    embedder = Embedder(url, api_key=api_key, grpc=grpc, batch_size=100)
    with MUSEClient(url=url, api_key=api_key, dtype=np.float32) as client:
        expected = client.embed(TEXTS)
    found = embedder(TEXTS)
    assert found.dtype == np.float32 and found.shape == (600, 512)
    assert np.abs(found - expected).max() < 1e-5
    for batch in np.array(TEXTS[:9]), pa.array(TEXTS[:9]), tuple(TEXTS[:9]):
        assert np.abs(embedder(batch) - expected[:9]).max() < 1e-5
    assert embedder([]).shape == (0, 512)
    half = Embedder(url, api_key=api_key, dtype=np.float16)(TEXTS[:2])
    assert half.dtype == np.float16 and np.abs(half - expected[:2]).max() < 1e-3


def test_embedder_takes_the_key_of_the_environment(url: str, api_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSE_API_KEY", api_key)
    embedder = Embedder(url)
    monkeypatch.delenv("MUSE_API_KEY")
    assert pickle.loads(pickle.dumps(embedder))(["a"]).shape == (1, 512)
    assert api_key not in repr(embedder) and api_key not in repr(vars(embedder))
    advice = "no credential: pass api_key, or username and password, or set MUSE_API_KEY in this process"
    with pytest.raises(AuthenticationError, match=advice):
        Embedder(url)(["b"])


def test_embedders_of_a_process_share_a_login(relay: Relay) -> None:
    embedder = Embedder(relay.url, username="admin", password="admin")
    copies = [pickle.loads(pickle.dumps(embedder)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda copy: copy(["a"]), copies))
    assert np.array(found).shape == (4, 1, 512)
    assert relay.requests.count("POST /login") == 1
    assert "admin" not in repr(vars(embedder)).replace("username='admin'", "")


def test_embedder_logs_in_again_after_a_revocation(relay: Relay) -> None:
    embedder = Embedder(relay.url, username="admin", password="admin")
    embedder(["a"])
    relay.responses = [CannedResponse(401, {}, '{"msg": "Token has been revoked"}')]
    assert embedder(["b"]).shape == (1, 512)
    assert relay.requests.count("POST /login") == 2


def test_embedder_repeats_within_the_deadline(relay: Relay, api_key: str) -> None:
    relay.responses = [CannedResponse(None), CannedResponse(503, {"Retry-After": "1"})]
    assert Embedder(relay.url, api_key=api_key, deadline=30)(["a"]).shape == (1, 512)


def test_embedder_bounds_the_requests_of_a_process(relay: Relay, api_key: str) -> None:
    embedder = Embedder(relay.url, api_key=api_key, concurrency=2, batch_size=10)
    relay.unblocked.clear()
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(embedder, TEXTS[:80]) for _ in range(4)]
        end, peak = time.monotonic() + 1, 0
        while time.monotonic() < end:
            peak = max(peak, relay._in_flight)
            time.sleep(0.01)
        relay.unblocked.set()
        assert peak == 2
        assert {future.result().shape for future in running} == {(80, 512)}


@pytest.mark.parametrize("grpc", [False, True])
def test_null_and_long_texts_have_reasons(url: str, api_key: str, grpc: bool) -> None:
    tokens, long = "x y " * 5_000, "x" * 300_000
    texts: list[Any] = ["a", None, "b", tokens, float("nan"), long, "", "\ud800", "c", *TEXTS]
    embedder = Embedder(url, api_key=api_key, grpc=grpc, on_error="null")
    embedded = embedder.embed(texts)
    assert [reason is None for reason in embedded.reasons[:9]] == [
        True, False, True, False, False, False, True, False, True,
    ]  # fmt: skip
    assert embedded.reasons[1] == embedded.reasons[4] == "null"
    assert embedded.reasons[3] and "too long (" in embedded.reasons[3] and "8192" in embedded.reasons[3]
    assert embedded.reasons[5] and "too long (300000 bytes" in embedded.reasons[5]
    assert embedded.reasons[7] == "not valid text: it contains an unpaired surrogate"
    assert embedded.reasons[9:] == [None] * len(TEXTS)
    missing = np.isnan(embedded.vectors).all(axis=1)
    assert missing.tolist() == [reason is not None for reason in embedded.reasons]
    expected = Embedder(url, api_key=api_key)([text for text, reason in zip(texts, embedded.reasons) if reason is None])
    assert np.abs(embedded.vectors[~missing] - expected).max() < 1e-5
    array = embedded.to_arrow()
    assert array.type == pa.list_(pa.float32(), 512)
    assert array.is_null().to_pylist() == missing.tolist()
    assert np.array_equal(np.array(array[8].as_py(), np.float32), embedded.vectors[8])
    rows = embedded.to_pylist()
    assert rows[1] is None and rows[8] == embedded.vectors[8].tolist()
    # One batch of which nothing can be sent.
    assert np.isnan(embedder([None, long])).all() and embedder([None]).shape == (1, 512)


def test_null_and_long_texts_raise_by_default(url: str, api_key: str) -> None:
    embedder = Embedder(url, api_key=api_key)
    with pytest.raises(TypeError, match=r"sentences\[1\] must be a string, not a missing value"):
        embedder(["a", None])
    with pytest.raises(TooLargeError) as caught:
        embedder([*TEXTS, "x" * 300_000])
    assert caught.value.index == 600
    assert embedder.embed(["a"]).reasons == [None]
    assert embedder.embed(pa.array([], pa.string())).to_arrow().type == pa.list_(pa.float32(), 512)
    with pytest.raises(TypeError, match=r"texts\[0\] must be a string, not int"):
        Embedder(url, api_key=api_key, on_error="null")([7])


def test_invalid_options_of_an_embedder_raise_errors(tmp_path: Path) -> None:
    for options, text in (
        ({"username": "a"}, "either api_key, or username and password"),
        ({"username": "a", "password": "b", "api_key": "c"}, "either api_key"),
        ({"on_error": "skip"}, "on_error is raise or null, not 'skip'"),
        ({"batch_size": 0}, "batch_size is between 1 and 512, not 0"),
        ({"batch_size": 513}, "batch_size is between 1 and 512"),
        ({"concurrency": 65}, "concurrency is between 1 and 64, not 65"),
        ({"url": "localhost"}, "is not an address of a service"),
    ):
        with pytest.raises(ValueError, match=text):
            Embedder(**options)
    with pytest.raises(TypeError, match="floating-point"):
        Embedder(dtype=int)


def test_pickle_of_an_embedder_has_no_client(url: str, api_key: str) -> None:
    embedder = Embedder(url, api_key=api_key)
    embedder(["a"])
    assert len(pickle.dumps(embedder)) < 2_000
    assert threading.active_count() < 100


def test_similarity_is_the_cosine_of_all_pairs(client: MUSEClient) -> None:
    vectors = client.embed(["Where is the library?", "¿Dónde está la biblioteca?", "I like tea."])
    found = similarity(vectors, vectors[:2])
    assert found.shape == (3, 2) and found.dtype == np.float64
    assert np.abs(found - vectors @ vectors[:2].T).max() < 1e-6
    assert found[0, 1] > found[2, 1]


def test_similarity_accepts_any_lengths_and_shapes() -> None:
    a, b = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[30, 40], [-4, 3]])
    assert np.allclose(similarity(a, b), [[1, 0], [0, 0]], atol=1e-6)
    assert similarity([1.0, 0.0], b).shape == (1, 2)
    assert similarity(a.astype(np.float32), b.astype(np.int8)).dtype == np.float32
    assert similarity(a.astype(np.float16), a.astype(np.float16)).dtype == np.float32
    assert similarity(np.empty((0, 2)), b).shape == (0, 2)
    assert similarity(a.astype(">f8"), b.astype(np.float32)).dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_similarity_does_not_depend_on_the_length_of_vectors(dtype: type) -> None:
    limits = np.finfo(dtype)
    a: Any = np.array([[3, 4], [4, -3]], dtype)
    for scale in 1e30, 1e-30, limits.max / 4, limits.tiny, limits.smallest_subnormal:
        assert np.allclose(similarity(a * dtype(scale), a), np.eye(2), atol=1e-6), scale
    largest: Any = np.full((1, 512), limits.max, dtype)
    assert np.allclose(similarity(largest, -largest), -1)


def test_similarity_to_vectors_that_are_not_finite_is_nan() -> None:
    found = similarity([[1.0, 0.0], [np.nan, 0.0], [np.inf, 1.0]], [[1.0, 1.0], [0.0, 0.0]])
    assert np.isnan(found[1:]).all() and np.allclose(found[0], [0.5**0.5, 0])


@pytest.mark.parametrize(
    ("a", "error", "text"),
    [
        (np.ones((2, 3)), ValueError, "a has vectors of 3 components, b of 2"),
        (np.ones((1, 2, 2)), ValueError, r"a must have the shape \(vectors, components\)"),
        (1.0, ValueError, "a must have the shape"),
        (np.ones((2, 0)), ValueError, "a has vectors of 0 components"),
        ([], ValueError, "a has vectors of 0 components"),
        (["one"], TypeError, "a must be an array of numbers"),
        ([[1.0], [1.0, 2.0]], ValueError, "a has vectors of different lengths"),
        (np.array([[True, False]]), TypeError, "a must be an array of numbers"),
    ],
)
def test_similarity_of_other_arguments_raises_errors(a: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        similarity(a, np.ones((2, 2)))
