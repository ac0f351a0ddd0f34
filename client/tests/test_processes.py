"""Clients in several processes and event loops."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.context import BaseContext
from typing import Any, Optional

import numpy as np
import pytest

from muse_as_service import AsyncMUSEClient, Embedder, MUSEClient, MUSEError

TEXTS = [f"{number} books about the number {number}" for number in range(64)]
# Read by the child processes, as a program's client at module level is.
shared: Optional[MUSEClient] = None


def embed_with_shared(text: str) -> Any:
    assert shared is not None
    return shared.embed([text])[0]


def embed_with(arguments: tuple[MUSEClient, str]) -> Any:
    client, text = arguments
    return client.embed([text])[0]


def embed_batch(arguments: tuple[Embedder, list[str]]) -> Any:
    embedder, texts = arguments
    return embedder(texts)


@pytest.fixture(params=[False, True], ids=["rest", "grpc"])
def logged_in(request: pytest.FixtureRequest, url: str) -> Iterator[MUSEClient]:
    """A client whose connections are in use."""
    global shared
    with MUSEClient(url=url, grpc=request.param, dtype=np.float32) as client:
        client.login("admin", "admin")
        client.embed(["a"])
        shared = client
        yield client
        shared = None


@pytest.mark.parametrize("run", range(3))
def test_forked_processes_receive_their_own_vectors(logged_in: MUSEClient, run: int) -> None:
    expected = logged_in.embed(TEXTS)
    with multiprocessing.get_context("fork").Pool(8) as pool:
        found = pool.map_async(embed_with_shared, TEXTS, chunksize=8).get(60)
    assert np.abs(np.array(found) - expected).max() < 1e-5
    # The connections of the parent still work.
    assert np.abs(logged_in.embed(TEXTS) - expected).max() < 1e-5


def test_fork_while_other_threads_call_does_not_block(logged_in: MUSEClient) -> None:
    expected = logged_in.embed(TEXTS[:1])[0]
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            logged_in.embed(["busy"])

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with multiprocessing.get_context("fork").Pool(4) as pool:
            found = pool.map_async(embed_with_shared, TEXTS[:1] * 16, chunksize=4).get(60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert np.abs(np.array(found) - expected).max() < 1e-5


def test_fork_during_a_long_grpc_call_raises_an_error(url: str) -> None:
    code = f"""
import os, threading, time
from muse_as_service import MUSEClient, _grpc_fork
_grpc_fork.MAX_WAIT_S = 0.5
client = MUSEClient(url={url!r}, grpc=True)
client.login("admin", "admin")
def call():
    with _grpc_fork.fork_gate.call():
        time.sleep(1.5)
threading.Thread(target=call).start()
time.sleep(0.2)
child = os.fork()
if child == 0:
    try: client.embed(["a"])
    except Exception as error: print(error.reason, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(client.tokenize(["a"]))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "FORKED\n[['▁a']]\n"), ran.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_client_is_passed_to_processes(logged_in: MUSEClient, method: str) -> None:
    expected = logged_in.embed(TEXTS[:8])
    context: BaseContext = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        found = pool.map_async(embed_with, [(logged_in, text) for text in TEXTS[:8]]).get(120)
    assert np.abs(np.array(found) - expected).max() < 1e-5


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("grpc", [False, True])
def test_embedder_is_passed_to_processes(url: str, api_key: str, method: str, grpc: bool) -> None:
    embedder = Embedder(url, api_key=api_key, grpc=grpc)
    expected = embedder(TEXTS)
    context: BaseContext = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        found = pool.map_async(embed_batch, [(embedder, TEXTS[start : start + 8]) for start in range(0, 64, 8)])
        assert np.abs(np.concatenate(found.get(120)) - expected).max() < 1e-5


def test_pickle_contains_the_login_and_no_connections(logged_in: MUSEClient) -> None:
    expected = logged_in.embed(TEXTS[:2])
    data = pickle.dumps(logged_in)
    assert len(data) < 10_000
    with pickle.loads(data) as client:
        assert client.url == logged_in.url
        assert np.abs(client.embed(TEXTS[:2]) - expected).max() < 1e-5


def test_refresh_works_in_a_forked_process(strict_url: str) -> None:
    with MUSEClient(url=strict_url) as client:
        client.login("admin", "admin")
        client.tokenize(["a"])
        # Another thread of the parent holds the lock of refreshes at the time of the fork.
        with client._connected().refresh_lock:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                import time

                time.sleep(3.1)
                os.write(writer, b"ok" if client.tokenize(["a"]) == [["▁a"]] else b"wrong")
                os._exit(0)
            os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read() == b"ok"
        os.waitpid(child, 0)


@pytest.mark.parametrize("grpc", [False, True])
def test_async_client_works_in_several_event_loops(url: str, grpc: bool) -> None:
    code = f"""
import asyncio, gc
from muse_as_service import AsyncMUSEClient
client = AsyncMUSEClient(url={url!r}, grpc={grpc})
asyncio.run(client.login("admin", "admin"))
for _ in range(3):
    assert asyncio.run(client.tokenize(["a"])) == [["▁a"]]
    gc.collect()
async def both():
    print(await asyncio.gather(*(client.tokenize(["a"]) for _ in range(3))))
    await client.close()
    print(await client.tokenize(["b"]))
asyncio.run(both())
del client
gc.collect()
"""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "[[['▁a']], [['▁a']], [['▁a']]]\n[['▁b']]\n"


@pytest.mark.parametrize("grpc", [False, True])
def test_async_client_works_in_threads_with_loops(url: str, grpc: bool) -> None:
    client = AsyncMUSEClient(url=url, grpc=grpc)
    asyncio.run(client.login("admin", "admin"))
    found: list[Any] = []

    def run() -> None:
        found.append(asyncio.run(client.tokenize(["a"])))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[["▁a"]]] * 4


def embed_in_loop(client: AsyncMUSEClient) -> Any:
    return asyncio.run(client.embed(TEXTS[:2]))


@pytest.mark.parametrize(("method", "grpc"), [("fork", False), ("spawn", False), ("spawn", True)])
def test_async_client_is_passed_to_processes(url: str, method: str, grpc: bool) -> None:
    client = AsyncMUSEClient(url=url, grpc=grpc)
    asyncio.run(client.login("admin", "admin"))
    expected = asyncio.run(client.embed(TEXTS[:2]))
    context: BaseContext = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        for found in pool.map_async(embed_in_loop, [client] * 2).get(120):
            assert np.abs(found - expected).max() < 1e-5


def test_forked_process_cannot_use_grpc_with_asyncio(url: str) -> None:
    client = AsyncMUSEClient(url=url, grpc=True)
    asyncio.run(client.login("admin", "admin"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(client.tokenize(["a"]))
        except MUSEError as error:
            os.write(writer, error.reason.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"FORKED"
    os.waitpid(child, 0)
    assert asyncio.run(client.tokenize(["a"])) == [["▁a"]]


FAILING_PROGRAM = """
import sys
from muse_as_service import MUSEClient, MUSEError

client = MUSEClient(url=sys.argv[1], api_key="muse_key", retry_for=0)
try:
    client.embed([str(number) for number in range(2_000)], concurrency=4)
except MUSEError as error:
    print(error.status)
"""


def test_unanswered_requests_do_not_delay_a_failed_exit() -> None:
    arrived, ended = threading.Barrier(4), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.wait(20)
            # The client waits for the requests before the one that fails: the first one fails.
            if b'"0"' in body:
                self.send_error(400)
            else:
                ended.wait(60)

        def log_message(self, *_: Any) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        # The timeout of the client is 60 s.
        command = [sys.executable, "-c", FAILING_PROGRAM, url]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert (ran.returncode, ran.stdout.strip()) == (0, "400"), ran.stderr
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
