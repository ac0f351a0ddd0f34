"""The arguments of `embed` and `tokenize`: types, lengths, concurrency, progress and partial results."""

from __future__ import annotations

import asyncio
import gzip
import io
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from relay import CannedResponse, Relay

from muse_as_service import AsyncMUSEClient, Model, MUSEClient, MUSEError, Retry, TooLargeError, UnavailableError
from muse_as_service._sentences import check

WORDS = ["one", "two", "three"]
UNAVAILABLE = CannedResponse(503, {"Retry-After": "1"}, '{"message": "the embedder does not respond"}')


@pytest.fixture
def on_relay(relay: Relay) -> Iterator[MUSEClient]:
    with MUSEClient(url=relay.url) as client:
        client.login("admin", "admin")
        relay.requests.clear()
        yield client


class Frame:
    """A table, as pandas, polars, Spark and Arrow have."""

    columns = ("sentence", "id")
    ndim = 2

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class Series:
    """A column, as pandas has."""

    ndim = 1

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def tolist(self) -> list[Any]:
        return self._values

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("the items of a column may be scalars of the library")


@pytest.mark.parametrize(
    "sentences",
    [
        WORDS,
        tuple(WORDS),
        (word for word in WORDS),
        iter(WORDS),
        np.array(WORDS),
        np.array(WORDS, dtype=object),
        Series(WORDS),
        pa.array(WORDS),
        pa.array(WORDS, pa.large_string()),
        pa.array(WORDS).dictionary_encode(),
        pa.chunked_array([WORDS[:1], WORDS[1:]]),
        dict.fromkeys(WORDS).keys(),
        OrderedDict.fromkeys(WORDS).keys(),
        {1: "one", 2: "two", 3: "three"}.values(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_sequences_of_strings_are_accepted(sentences: Any) -> None:
    checked = check(sentences)
    assert checked == WORDS and {type(sentence) for sentence in checked} == {str}


@pytest.mark.parametrize(
    ("sentences", "advice"),
    [
        ("one", r"not one str: write \[sentence\]"),
        (b"one", r"not one bytes: write \[sentence\]"),
        (bytearray(b"one"), "not one bytearray"),
        (memoryview(b"one"), "not one memoryview"),
        (Frame(), r"is a table \(Frame\): pass one column, such as table\['sentence'\]"),
        (pa.table({"sentence": WORDS}), r"is a table \(Table\): pass one column"),
        (pa.record_batch({"sentence": WORDS}), r"is a table \(RecordBatch\): pass one column"),
        (dict.fromkeys(WORDS), r"is a mapping \(dict\): pass list\(sentences\.values\(\)\)"),
        (set(WORDS), "is a set, which has no order: pass a list"),
        (frozenset(WORDS), "is a frozenset, which has no order"),
        ({1: "one"}.items(), "is a dict_items, which has no order"),
        (np.array([WORDS]), "an array of 2 dimensions: pass one with 1 dimension"),
        (np.array("one"), "an array of 0 dimensions"),
        (None, "not NoneType: pass a list, a generator"),
        (7, "not int: pass a list"),
        ([1], r"sentences\[0\] must be a string, not int"),
        (["a", None], r"sentences\[1\] must be a string, not a missing value \(None\): remove or fill it"),
        (Series(["a", float("nan")]), r"sentences\[1\] must be a string, not a missing value \(nan\)"),
        (pa.array(["a", None]), r"sentences\[1\] must be a string, not a missing value \(None\)"),
        (pa.array([b"a"]), r"sentences\[0\] must be a string, not bytes: decode it"),
        (np.array([b"a"]), r"sentences\[0\] must be a string, not bytes: decode it"),
        ([["a", "b"]], r"sentences\[0\] must be a string, not list"),
        (io.StringIO("a\nb\n"), r"is a file \(StringIO\): pass .* \[line\.rstrip\('\\n'\) for line in file\]"),
        (io.TextIOWrapper(io.BytesIO()), r"is a file \(TextIOWrapper\)"),
        (gzip.GzipFile(fileobj=io.BytesIO(), mode="wb"), r"is a file \(GzipFile\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_arguments_raise_type_error_with_advice(sentences: Any, advice: str) -> None:
    with pytest.raises(TypeError, match=advice):
        check(sentences)


def test_clients_check_their_arguments(client: MUSEClient, url: str) -> None:
    assert np.array_equal(client.embed(pa.array(WORDS)), client.embed(WORDS))
    assert client.tokenize(word for word in WORDS) == client.tokenize(WORDS)
    for call in client.embed, client.tokenize:
        with pytest.raises(TypeError, match="no order"):
            call(set(WORDS))

    async def call_async() -> None:
        async with AsyncMUSEClient(url=url) as other:
            with pytest.raises(TypeError, match="is a table"):
                await other.embed(Frame())

    asyncio.run(call_async())


def test_error_of_a_generator_is_not_changed() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise TypeError("of the generator")

    with pytest.raises(TypeError, match=r"^of the generator$"):
        check(broken())


def test_too_long_sentence_fails_before_any_request(on_relay: MUSEClient, relay: Relay) -> None:
    sentences = [f"{number}" for number in range(3_000)]
    sentences[2_500] = "x" * 300_000
    for call in on_relay.embed, on_relay.tokenize:
        with pytest.raises(TooLargeError, match=r"sentences\[2500\] is too long \(300000 bytes; .*262144") as caught:
            call(sentences)
        assert (caught.value.index, caught.value.status, caught.value.reason) == (2_500, 413, "TOO_LARGE")
    # The limits are requested once.
    assert relay.requests == ["GET /v1/models"]


def test_lengths_count_bytes_of_utf8(client: MUSEClient) -> None:
    with pytest.raises(TooLargeError, match=r"sentences\[600\].*300000 bytes") as caught:
        client.tokenize(["a"] * 600 + ["本" * 100_000])
    assert caught.value.index == 600


def test_service_without_models_has_no_length_check(on_relay: MUSEClient, relay: Relay) -> None:
    relay.responses = [CannedResponse(404, {}, "<html>")]
    with pytest.raises(TooLargeError, match=r"sentences\[600\] is too long .*262144"):
        on_relay.tokenize(["a"] * 600 + ["x" * 300_000])
    assert relay.requests[0] == "GET /v1/models" and len(relay.requests) == 4


def test_model_describes_the_service(client: MUSEClient, url: str) -> None:
    model = client.model()
    assert model.id == "universal-sentence-encoder-multilingual"
    assert (model.version, model.dimension) == ("3", 512) and model.precision in ("f32", "bf16", "f16")
    assert model.device
    with pytest.raises(AttributeError):
        model.id = "other"  # type: ignore[misc]
    if model.max_sentence_bytes is not None:
        assert model.max_sentence_bytes == 262_144 and model.languages and "en" in model.languages

    async def describe() -> Model:
        async with AsyncMUSEClient(url=url) as other:
            await other.login("admin", "admin")
            return await other.model()

    assert asyncio.run(describe()).id == model.id


@pytest.mark.parametrize("concurrency", [1, 4])
def test_progress_counts_all_sentences_in_order(client: MUSEClient, url: str, concurrency: int) -> None:
    sentences = [f"{number} books" for number in range(1_200)]
    expected = client.embed(sentences)
    seen: list[tuple[int, int]] = []
    found = client.embed(sentences, concurrency=concurrency, progress=lambda *counts: seen.append(counts))
    assert np.abs(found - expected).max() < 1e-5
    assert seen == [(512, 1_200), (1_024, 1_200), (1_200, 1_200)]
    assert client.tokenize(sentences, concurrency=concurrency) == client.tokenize(sentences)

    async def embed() -> Any:
        async with AsyncMUSEClient(url=url) as other:
            await other.login("admin", "admin")
            seen.clear()
            return await other.embed(sentences, concurrency=concurrency, progress=lambda *counts: seen.append(counts))

    assert np.abs(asyncio.run(embed()) - expected).max() < 1e-5
    assert seen == [(512, 1_200), (1_024, 1_200), (1_200, 1_200)]


def test_concurrency_bounds_simultaneous_requests(on_relay: MUSEClient, relay: Relay) -> None:
    sentences = [f"{number}" for number in range(512 * 8)]
    on_relay.model()
    for concurrency, client in ((3, on_relay), (3, None)):
        relay.unblocked.clear()
        peak = 0

        def run(client: Any = client, concurrency: int = concurrency) -> None:
            if client is not None:
                client.tokenize(sentences, concurrency=concurrency)
                return

            async def tokenize() -> None:
                async with AsyncMUSEClient(url=relay.url, tokens=on_relay._session._store) as other:
                    await other.tokenize(sentences, concurrency=concurrency)

            asyncio.run(tokenize())

        thread = threading.Thread(target=run)
        thread.start()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            peak = max(peak, relay._in_flight)
            time.sleep(0.01)
        relay.unblocked.set()
        thread.join(60)
        assert peak == concurrency
    with pytest.raises(ValueError, match="concurrency is between 1 and 64, not 0"):
        on_relay.embed(["a"], concurrency=0)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_error_has_the_results_so_far(url: str, concurrency: int) -> None:
    sentences = [f"{number} books" for number in range(1_536)]
    # Too many tokens, which only the service counts.
    sentences[1_100] = "x y " * 5_000
    with MUSEClient(url=url) as client:
        client.login("admin", "admin")
        with pytest.raises(TooLargeError) as caught:
            client.embed(sentences, concurrency=concurrency)
        assert caught.value.index == 1_100
        assert caught.value.partial.shape == (1_024, 512)
        assert np.abs(caught.value.partial[1_000] - client.embed([sentences[1_000]])[0]).max() < 1e-5
        sentences[3] = sentences[1_100]
        with pytest.raises(TooLargeError) as caught:
            client.embed(sentences, concurrency=concurrency)
        assert (caught.value.index, caught.value.partial.shape) == (3, (0, 512))


def test_async_error_has_the_results_so_far(url: str) -> None:
    async def run() -> None:
        sentences = [f"{number} books" for number in range(1_100)]
        sentences[600] = "x y " * 5_000
        async with AsyncMUSEClient(url=url) as client:
            await client.login("admin", "admin")
            with pytest.raises(TooLargeError) as caught:
                await client.embed(sentences, concurrency=4)
            assert (caught.value.index, caught.value.partial.shape) == (600, (512, 512))

    asyncio.run(run())


def test_failed_service_stops_all_requests(on_relay: MUSEClient, relay: Relay) -> None:
    relay.responses = [None, None, *[CannedResponse(500)] * 99]
    with pytest.raises(MUSEError, match="500: ") as caught:
        on_relay.embed([f"{number}" for number in range(512 * 40)], concurrency=2)
    time.sleep(0.5)
    assert caught.value.partial.shape in ((0, 512), (512, 512)) and len(relay.requests) < 10

    async def run() -> None:
        async with AsyncMUSEClient(url=relay.url) as client:
            relay.responses = []
            await client.login("admin", "admin")
            await client.model()
            relay.responses = [None, None, *[CannedResponse(500)] * 99]
            with pytest.raises(MUSEError, match="500: "):
                await client.embed([f"{number}" for number in range(512 * 40)], concurrency=2)

    relay.requests.clear()
    asyncio.run(run())
    assert len(relay.requests) < 10


def test_retry_hook_is_called_at_once(relay: Relay) -> None:
    seen: list[Retry] = []
    with MUSEClient(url=relay.url, on_retry=seen.append, retry_for=30) as client:
        client.login("admin", "admin")
        relay.responses = [UNAVAILABLE]
        client.tokenize(["a"])
    (retry,) = seen
    assert isinstance(retry.error, UnavailableError) and retry.attempt == 1
    assert 1 <= retry.delay < 1.5 and 29 < retry.remaining <= 30
    assert str(retry) == "503: the embedder does not respond. Retrying for up to 30 s"


def test_retries_are_logged_when_the_service_is_away(relay: Relay, caplog: pytest.LogCaptureFixture, url: str) -> None:
    with MUSEClient(port=1, retry_for=2.4) as client, pytest.raises(UnavailableError):
        client.login("admin", "secret")
    (record,) = [record for record in caplog.records if record.name == "muse_as_service"]
    assert record.levelname == "WARNING" and "secret" not in record.message
    assert record.message.startswith("cannot reach http://localhost:1 (")
    assert record.message.endswith("is the service running there? Retrying for up to 2 s")

    async def run() -> None:
        async with AsyncMUSEClient(url=relay.url) as other:
            await other.login("admin", "admin")
            relay.responses = [UNAVAILABLE]
            await other.tokenize(["a"])

    asyncio.run(run())
    assert sum("the embedder does not respond" in record.message for record in caplog.records) == 1
