"""The blocking and the asyncio client against a real stack, over both protocols."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

import httpx
import numpy as np
import pytest
import requests
from conftest import GOLDEN
from relay import CannedResponse, Relay

import muse_as_service
from muse_as_service import (
    AsyncMUSEClient,
    AuthenticationError,
    MUSEClient,
    OverloadedError,
    Tokens,
    TooLargeError,
    UnavailableError,
)

SENTENCES = ["This is sentence example.", "This is yet another sentence example."]


class MemoryTokenStore:
    """A token store whose tokens the test can read."""

    def __init__(self) -> None:
        self.tokens: Optional[Tokens] = None

    def load(self) -> Optional[Tokens]:
        return self.tokens

    def save(self, tokens: Optional[Tokens]) -> None:
        self.tokens = tokens


def test_installed_wheel_is_imported_not_the_checkout() -> None:
    checkout = Path(__file__).parents[1]
    assert checkout not in Path(muse_as_service.__file__).parents
    assert (Path(muse_as_service.__file__).parent / "py.typed").exists()


def test_example_of_the_release_1_readme_works(url: str) -> None:
    address = httpx.URL(url)
    client = MUSEClient(ip=address.host, port=address.port or 80)
    client.login(username="admin", password="admin")
    tokenized_sentence = client.tokenize(SENTENCES)
    embedding = client.embed(SENTENCES)
    client.logout()
    assert tokenized_sentence == [
        ["▁This", "▁is", "▁sentence", "▁example", "."],
        ["▁This", "▁is", "▁yet", "▁another", "▁sentence", "▁example", "."],
    ]
    assert embedding.shape == (2, 512)
    # float64, like release 1, and serialisable by json.dumps.
    assert type(embedding) is np.ndarray and embedding.dtype == np.float64
    client.close()


def test_golden_sentences_have_golden_tokens_and_vectors(client: MUSEClient, golden: list[dict[str, Any]]) -> None:
    chosen = list(range(0, len(golden), 9))
    texts = [golden[index]["text"] for index in chosen]
    assert client.tokenize(texts) == [golden[index]["tokens"] for index in chosen]
    expected = np.load(GOLDEN / "embeddings.npy")[chosen]
    vectors = client.embed(texts)
    assert np.abs(vectors - expected).max() < 1e-4
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


def test_protocols_and_clients_return_the_same_results(url: str) -> None:
    async def call_all(grpc: bool) -> Any:
        async with AsyncMUSEClient(url=url, grpc=grpc, dtype=np.float32) as client:
            await client.login("admin", "admin")
            many = await asyncio.gather(*(client.embed([sentence]) for sentence in SENTENCES * 4))
            tokens = await client.tokenize(SENTENCES)
            await client.logout()
            with pytest.raises(AuthenticationError, match="not logged in"):
                await client.embed(SENTENCES)
            return np.concatenate(many), tokens

    rest, grpc = asyncio.run(call_all(False)), asyncio.run(call_all(True))
    with MUSEClient(url=url, dtype="float32") as client:
        client.login("admin", "admin")
        vectors, tokens = client.embed(SENTENCES), client.tokenize(SENTENCES)
    assert rest[0].dtype == grpc[0].dtype == vectors.dtype == np.float32
    assert rest[1] == grpc[1] == tokens
    for asked in rest[0], grpc[0]:
        assert np.abs(asked - np.tile(vectors, (4, 1))).max() < 2e-6


def test_large_input_is_chunked_and_keeps_its_order(client: MUSEClient) -> None:
    sentences = [f"{number}" for number in range(9_000)]
    tokens = client.tokenize(sentences)
    assert ["".join(found).lstrip("▁") for found in tokens] == sentences
    some = ["word " * 2_000 + str(number) for number in range(60)]
    assert [found[-1] for found in client.tokenize(some)] == [found[-1] for found in client.tokenize(some[:60])]
    few = [f"{number} books" for number in range(600)]
    vectors = client.embed(few)
    assert vectors.shape == (600, 512)
    ends = client.embed([few[0], few[511], few[512], few[599]])
    assert np.abs(vectors[[0, 511, 512, 599]] - ends).max() < 1e-5


@pytest.mark.parametrize("grpc", [False, True])
def test_chunk_with_too_many_tokens_is_halved(strict_url: str, grpc: bool) -> None:
    with MUSEClient(url=strict_url, grpc=grpc) as client:
        client.login("admin", "admin")
        sentences = [f"book {number}" + " and another" * 100 for number in range(40)]
        vectors = client.embed(sentences)
        assert vectors.shape == (40, 512)
        assert np.abs(vectors[[0, 19, 20, 39]] - client.embed([sentences[n] for n in (0, 19, 20, 39)])).max() < 1e-5
        with pytest.raises(TooLargeError) as caught:
            client.embed([*sentences, "and another " * 2_000])
        assert caught.value.index == 40


@pytest.mark.parametrize("grpc", [False, True])
def test_overloaded_service_is_retried(strict_url: str, grpc: bool) -> None:
    sentences = ["and another " * 100] * 8
    with MUSEClient(url=strict_url, grpc=grpc) as client, ThreadPoolExecutor(4) as pool:
        client.login("admin", "admin")
        found = list(pool.map(client.embed, [sentences] * 4))
    assert [vectors.shape for vectors in found] == [(8, 512)] * 4


@pytest.mark.parametrize("grpc", [False, True])
def test_overload_without_retries_raises_overloaded_error(strict_url: str, grpc: bool) -> None:
    sentences = ["and another " * 100] * 8
    with MUSEClient(url=strict_url, grpc=grpc, retry_for=0) as client, ThreadPoolExecutor(4) as pool:
        client.login("admin", "admin")
        asked = [pool.submit(client.embed, sentences) for _ in range(4)]
        errors = [call.exception() for call in asked if call.exception() is not None]
    assert errors
    for error in errors:
        assert isinstance(error, OverloadedError)
        assert (error.status, error.reason) == (429, "OVERLOADED")


def test_too_long_sentence_raises_error_with_its_index(client: MUSEClient) -> None:
    with pytest.raises(TooLargeError, match=r"sentences\[601\] is too long .*8192.*: shorten it") as caught:
        client.embed(["a"] * 601 + ["x y " * 5_000])
    assert caught.value.index == 601
    assert (caught.value.status, caught.value.reason) == (413, "TOO_LARGE")
    with pytest.raises(TooLargeError, match=r"sentences\[2\] is too long .*262144") as caught:
        client.tokenize(["a", "b", "x" * 300_000])
    assert caught.value.index == 2
    with pytest.raises(TooLargeError) as caught:
        client.tokenize(["a", "x" * (17 << 20)])
    assert caught.value.index == 1


def test_invalid_sentences_raise_type_or_value_error(client: MUSEClient) -> None:
    assert client.tokenize([]) == []
    assert client.embed([]).shape == (0, 512)
    assert client.embed([""]).shape == (1, 512)
    assert client.embed(iter(SENTENCES)).shape == (2, 512)
    with pytest.raises(TypeError, match=r"write \[sentence\]"):
        client.embed("one sentence")
    with pytest.raises(TypeError, match=r"sentences\[1\] must be a string, not int"):
        client.tokenize(["a", 5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"character 2 of sentences\[1\] is an unpaired surrogate"):
        client.embed(["a", "bc\ud800"])


def test_calls_after_logout_raise_authentication_error(client: MUSEClient) -> None:
    with pytest.raises(AuthenticationError, match="the user's name or the password is wrong") as caught:
        client.login("admin", "wrong")
    assert (caught.value.status, caught.value.reason) == (401, "BAD_CREDENTIALS")
    # A failed login does not end the previous one.
    assert client.tokenize(["a"]) == [["▁a"]]
    client.logout()
    for call in client.embed, client.tokenize:
        with pytest.raises(AuthenticationError, match=r"call login\(\) first"):
            call(["a"])
    with pytest.raises(AuthenticationError, match=r"call login\(\) first"):
        client.logout()


@pytest.mark.parametrize("grpc", [False, True])
def test_logout_revokes_both_tokens(url: str, grpc: bool) -> None:
    store = MemoryTokenStore()
    with MUSEClient(url=url, grpc=grpc, tokens=store) as client:
        client.login("admin", "admin")
        assert store.tokens is not None
        access, refresh = store.tokens
        client.logout()
    assert store.tokens is None
    for path, token in (("/tokenize?sentence=a", access), ("/token/refresh", refresh)):
        method = "GET" if token == access else "POST"
        response = httpx.request(method, url + path, headers={"Authorization": f"Bearer {token}"})
        assert (response.status_code, response.json()["msg"]) == (401, "Token has been revoked")


@pytest.mark.parametrize("grpc", [False, True])
def test_expired_token_is_refreshed_once_for_many_threads(strict_url: str, grpc: bool) -> None:
    store = MemoryTokenStore()
    with MUSEClient(url=strict_url, grpc=grpc, tokens=store) as client:
        client.login("admin", "admin")
        for _ in range(2):
            before = store.tokens
            time.sleep(3.1)
            # Many threads find the token expired at the same time. Refresh tokens rotate, so a second use would revoke
            # the login.
            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(client.tokenize, [["a"]] * 16)) == [[["▁a"]]] * 16
            assert before and store.tokens and store.tokens.access != before.access
            assert store.tokens.refresh != before.refresh
        time.sleep(3.1)
        client.logout()


def test_expired_token_is_refreshed_once_for_many_tasks(strict_url: str) -> None:
    async def run() -> None:
        async with AsyncMUSEClient(url=strict_url) as client:
            await client.login("admin", "admin")
            await asyncio.sleep(3.1)
            assert await asyncio.gather(*(client.tokenize(["a"]) for _ in range(16))) == [[["▁a"]]] * 16
            await client.logout()

    asyncio.run(run())


def test_two_clients_share_a_token_store(strict_url: str) -> None:
    store = MemoryTokenStore()
    with MUSEClient(url=strict_url, tokens=store) as one:
        one.login("admin", "admin")
        with MUSEClient(url=strict_url, tokens=store) as other:
            for client in one, other, one:
                time.sleep(3.1)
                assert client.tokenize(["a"]) == [["▁a"]]
            one.logout()


def test_revoked_refresh_token_raises_authentication_error(strict_url: str) -> None:
    store = MemoryTokenStore()
    with MUSEClient(url=strict_url, tokens=store) as client:
        client.login("admin", "admin")
        assert store.tokens
        bearer = {"Authorization": f"Bearer {store.tokens.refresh}"}
        assert httpx.post(f"{strict_url}/logout/refresh", headers=bearer).status_code == 200
        time.sleep(3.1)
        with pytest.raises(AuthenticationError, match=r"log in again|has been revoked"):
            client.tokenize(["a"])


def test_errors_are_subclasses_of_requests_http_error(url: str) -> None:
    client = MUSEClient(url=url)
    with pytest.raises(requests.HTTPError, match="401: "):
        client.login("admin", "wrong")
    with pytest.raises(IOError, match="401: ") as caught:
        client.login("admin", "wrong")
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is AuthenticationError and str(again) == str(caught.value)
    assert (again.status, again.reason) == (401, "BAD_CREDENTIALS")


def test_package_imports_with_httpx_and_numpy_only() -> None:
    missing = ["requests", "grpc", "google", "pyarrow"]
    code = f"""
import sys
for name in {missing}: sys.modules[name] = None
import muse_as_service as muse
assert issubclass(muse.MUSEError, OSError)
try: muse.MUSEClient(grpc=True)
except ImportError as error: print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'muse-as-service[grpc]'" in ran.stdout


def test_package_and_command_import_only_what_they_need() -> None:
    code = """
import sys
from contextlib import suppress
import muse_as_service as muse
assert not {"asyncio", "httpx", "numpy", "requests"} & set(sys.modules)
from muse_as_service.cli.main import main, run
with suppress(SystemExit): main(["--version"])
assert "numpy" not in sys.modules
sys.argv = ["muse", "embed", "--help"]
with suppress(SystemExit): run()
assert "httpx" in sys.modules and not {"asyncio", "grpc", "pyarrow", "requests"} & set(sys.modules)
from muse_as_service import *
assert all(globals()[name] is getattr(muse, name) for name in muse.__all__)
assert set(muse.__all__) == set(muse._MODULES) <= set(dir(muse)) and not hasattr(muse, "missing")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_errors_are_those_of_requests_whatever_is_imported_first() -> None:
    code = """
import muse_as_service.cli.main
import muse_as_service, requests
assert issubclass(muse_as_service.errors.MUSEError, requests.HTTPError)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("grpc", [False, True])
def test_unreachable_server_raises_unavailable_error(grpc: bool) -> None:
    with MUSEClient(port=1, grpc=grpc, retry_for=0.5) as client:
        start = time.monotonic()
        with pytest.raises(
            UnavailableError, match=r"cannot reach http://localhost:1 .*is the service running there"
        ) as caught:
            client.login("admin", "admin")
    assert caught.value.status is None
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "url", ["localhost:5000", "ftp://host", "http://", "http://host:port", "http://a?b", "http://u:p@h"]
)
def test_invalid_url_raises_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="is not an address of a service"):
        MUSEClient(url=url)


def test_invalid_options_raise_errors() -> None:
    with pytest.raises(TypeError, match="floating-point"):
        MUSEClient(dtype=int)
    with pytest.raises(ValueError, match="gRPC has no paths"):
        MUSEClient(url="http://localhost/muse", grpc=True)


@pytest.mark.parametrize("grpc", [False, True])
def test_api_key_replaces_the_login(url: str, api_key: str, grpc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with MUSEClient(url=url, grpc=grpc, api_key=f" {api_key}\n") as client:
        assert client.embed(SENTENCES).shape == (2, 512)
        assert len(client.tokenize(SENTENCES)) == 2
        client.logout()
        assert client.embed(SENTENCES).shape == (2, 512), "a logout does not end it"
    monkeypatch.setenv("MUSE_API_KEY", api_key)
    with MUSEClient(url=url, grpc=grpc) as client:
        assert client.embed(SENTENCES).shape == (2, 512)
    with (
        MUSEClient(url=url, grpc=grpc, api_key="") as client,
        pytest.raises(AuthenticationError, match="not logged in"),
    ):
        client.embed(SENTENCES)


def test_login_with_an_api_key_logs_a_warning(
    url: str, api_key: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MUSE_API_KEY", api_key)
    for credential in {}, {"api_key": api_key}, {"api_key": ""}:
        caplog.clear()
        with MUSEClient(url=url, **credential) as client:  # type: ignore[arg-type]
            client.login("admin", "admin")
        text = "login() replaces the API key of this client, which is from an argument or MUSE_API_KEY"
        assert caplog.messages == ([] if credential.get("api_key") == "" else [text])


@pytest.mark.parametrize("grpc", [False, True])
def test_rejected_api_key_has_its_reason(url: str, api_key: str, grpc: bool) -> None:
    typo = api_key[:-1] + ("b" if api_key[-1] == "a" else "a")
    with MUSEClient(url=url, grpc=grpc, api_key=typo) as client, pytest.raises(AuthenticationError) as error:
        client.embed(SENTENCES)
    assert (error.value.status, error.value.reason) == (401, "KEY_MALFORMED")
    assert typo not in repr(error.value)
    with pytest.raises(ValueError, match="copied completely") as invalid:
        MUSEClient(url=url, api_key="muse_a b")
    assert "muse_a" not in str(invalid.value)


@pytest.mark.parametrize("grpc", [False, True])
def test_float16_is_the_rounded_float32(url: str, grpc: bool) -> None:
    sentences = [f"{number} books" for number in range(700)]
    found = []
    for dtype in np.float32, np.float16:
        with MUSEClient(url=url, grpc=grpc, dtype=dtype) as client:
            client.login("admin", "admin")
            found.append(client.embed(sentences))
    exact, half = found
    assert half.dtype == np.float16 and half.shape == (700, 512)
    assert np.abs(half.astype(np.float32) - exact).max() < 1e-4


def test_float16_is_requested_from_services_that_know_it(relay: Relay) -> None:
    with MUSEClient(url=relay.url, dtype=np.float16) as client:
        client.login("admin", "admin")
        client.embed(["a"])
        assert relay.response_bytes[-1] < 512 * 2 + 200
        message = "{\"message\": \"format: 'json' and 'npy' are known, 'float16' is not\"}"
        relay.responses = [CannedResponse(400, {}, message)]
        relay.requests.clear()
        vectors = client.embed(["a"])
        assert len(relay.requests) == 2 and vectors.dtype == np.float16
        assert relay.response_bytes[-1] > 512 * 4
