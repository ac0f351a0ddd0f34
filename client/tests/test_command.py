"""The installed command `muse` against a real stack."""

from __future__ import annotations

import base64
import csv
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any, Optional

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import GOLDEN
from relay import CannedResponse, Relay

from muse_as_service.cli.doctor import Golden
from muse_as_service.cli.spool import Spool

MUSE = Path(sys.executable).with_name("muse")
SENTENCES = [f'Book {number}: über, книга, 本, "quoted"' for number in range(520)]
CHUNK = 512


class Muse:
    """The command, with its own state directory and working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.environment = {**os.environ, "XDG_STATE_HOME": str(self.state), "PYTHONUTF8": "1"}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([MUSE, *arguments], cwd=self.folder, env=self.environment, text=True, **options)

    def __call__(self, *arguments: str, stdin: Optional[str] = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MUSE, *arguments], cwd=self.folder, env=self.environment, input=stdin or "", capture_output=True, text=True
        )

    def run(self, *arguments: str, stdin: Optional[str] = None) -> str:
        ran = self(*arguments, stdin=stdin)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def fails(self, *arguments: str, stdin: Optional[str] = None) -> str:
        """Returns the error message, which must be one line."""
        ran = self(*arguments, stdin=stdin)
        assert ran.returncode == 1, ran.stderr
        assert ran.stderr.startswith("muse: error: ") and ran.stderr.count("\n") == 1, ran.stderr
        return ran.stderr

    def login(self, url: str) -> Muse:
        self.run("login", url, "--user", "admin", stdin="admin\n")
        return self

    def checkpointed_rows(self, output: str) -> int:
        """Number of sentences that are done, from the checkpoint."""
        try:
            rows: int = json.loads((self.folder / f"{output}.part.json").read_text())["rows"]
            return rows
        except FileNotFoundError:
            return 0

    def wait_for(self, output: str, rows: int) -> None:
        start = time.monotonic()
        while self.checkpointed_rows(output) < rows:
            assert time.monotonic() - start < 60
            time.sleep(0.02)

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if path != self.state}


@pytest.fixture
def muse(tmp_path: Path) -> Muse:
    return Muse(tmp_path)


@pytest.fixture
def muse_on_stack(muse: Muse, url: str) -> Muse:
    """The command, logged in to the stack."""
    return muse.login(url)


@pytest.fixture
def muse_on_relay(muse: Muse, relay: Relay) -> Iterator[Muse]:
    """The command, logged in to the relay."""
    yield muse.login(relay.url)


def write_text(path: Path, sentences: list[str] = SENTENCES) -> None:
    path.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")


def write_inputs(folder: Path) -> None:
    write_text(folder / "in.txt")
    rows = [{"id": str(number), "words": sentence} for number, sentence in enumerate(SENTENCES)]
    for name, dialect in ("in.csv", "excel"), ("in.tsv", "excel-tab"):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "words"], dialect=dialect)
            writer.writeheader()
            writer.writerows(rows)
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), folder / "in.parquet")


def read_json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_doctor_passes_every_check_of_a_healthy_service(tmp_path: Path, url: str) -> None:
    muse = Muse(tmp_path)
    lines = muse.run("doctor", url, "--user", "admin", stdin="admin\n").splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", check]
        for check in ("service", "clock", "keys", "log-in", "auth-clock", "model", "tokens", "vectors", "log-out")
    ], lines
    # doctor saves no login. The first checks need none.
    assert not muse.state.exists()
    verdicts = [line.split()[0] for line in muse.run("doctor", url).splitlines()]
    assert verdicts == ["ok"] * 3 + ["skipped"] * 6


def test_doctor_reports_clock_skew(tmp_path: Path, relay: Relay) -> None:
    muse = Muse(tmp_path)
    for ahead, direction in ((-90, "behind"), (3600, "ahead")):
        claims = base64.urlsafe_b64encode(json.dumps({"iat": int(time.time()) + ahead}).encode()).decode().rstrip("=")
        tokens = {"access_token": f"h.{claims}.s", "refresh_token": f"h.{claims}.s"}
        date = formatdate(time.time() + ahead, usegmt=True)
        relay.responses = [
            CannedResponse(200, {"Date": date}, '{"keys": [{"kid": "k"}]}'),
            CannedResponse(200, {}, json.dumps(tokens)),
        ]
        ran = muse("doctor", relay.url, "--user", "admin", stdin="admin\n")
        found = {line.split()[1]: line for line in ran.stdout.splitlines()}
        for check in ("clock", "auth-clock"):
            assert found[check].startswith("FAILED") and "synchronise them (NTP)" in found[check], ran.stdout
            assert f"is {direction}" in found[check], ran.stdout


def test_doctor_reports_an_unreachable_service(tmp_path: Path, url: str) -> None:
    muse = Muse(tmp_path)
    away = muse("doctor", "http://127.0.0.1:1")
    assert away.returncode == 1 and away.stdout.startswith("FAILED  service  cannot reach http://127.0.0.1:1")
    assert away.stderr == "muse: error: 1 of the checks failed\n"


def test_doctor_reports_every_failed_check(tmp_path: Path, relay: Relay) -> None:
    muse = Muse(tmp_path)
    relay.responses = [
        CannedResponse(200, {"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}, '{"keys": []}'),
        None,
        CannedResponse(200, {}, "[]"),
        CannedResponse(200, {}, json.dumps({"tokens": [["a"]] * 16})),
        CannedResponse(200, {}, json.dumps({"embedding": [[1.0] + [0.0] * 511] * 16})),
        CannedResponse(500),
    ]
    ran = muse("doctor", relay.url, "--user", "admin", stdin="admin\n")
    found = {line.split()[1]: line for line in ran.stdout.splitlines()}
    assert ran.returncode == 1 and "6 of the checks failed" in ran.stderr
    for check, text in (
        ("clock", "s apart"),
        ("keys", "publishes no key"),
        ("model", "not one of MUSE as Service"),
        ("tokens", "16 of 16 golden sentences have other tokens"),
        ("vectors", "this is another model"),
        ("log-out", "500"),
    ):
        assert found[check].startswith("FAILED") and text in found[check], ran.stdout


def test_doctor_golden_data_equals_the_model_golden_data(golden: list[dict[str, Any]]) -> None:
    golden_of_doctor = Golden.read()
    place = {line["text"]: index for index, line in enumerate(golden)}
    rows = [place[text] for text in golden_of_doctor.texts]
    assert len(rows) == 16 and golden_of_doctor.tokens == [golden[row]["tokens"] for row in rows]
    np.testing.assert_array_equal(golden_of_doctor.vectors, np.load(GOLDEN / "embeddings.npy")[rows])


def test_every_input_and_output_format_round_trips(muse_on_stack: Muse) -> None:
    write_inputs(muse_on_stack.folder)
    muse_on_stack.run("embed", "in.txt", "out.npy")
    vectors = np.load(muse_on_stack.folder / "out.npy", mmap_mode="r")
    assert vectors.shape == (520, 512) and vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5

    muse_on_stack.run("embed", "in.csv", "out.parquet", "--column", "words", "--grpc")
    table = pq.read_table(muse_on_stack.folder / "out.parquet")
    assert table.column_names == ["sentence", "embedding"]
    assert table["sentence"].to_pylist() == SENTENCES
    assert np.abs(np.array(table["embedding"].to_pylist()) - vectors).max() < 2e-6

    muse_on_stack.run("embed", "in.parquet", "out.jsonl", "--column", "words", "--in-flight", "1")
    lines = read_json_lines(muse_on_stack.folder / "out.jsonl")
    assert [line["sentence"] for line in lines] == SENTENCES
    assert np.abs(np.array([line["embedding"] for line in lines]) - vectors).max() < 2e-6

    for name in "in.txt", "in.csv", "in.tsv", "in.jsonl", "in.parquet":
        column = [] if name == "in.txt" else ["--column", "words"]
        for output in f"{name}.parquet", f"{name}.jsonl":
            muse_on_stack.run("tokenize", name, output, *column)
        tokens = pq.read_table(muse_on_stack.folder / f"{name}.parquet").to_pylist()
        assert tokens == read_json_lines(muse_on_stack.folder / f"{name}.jsonl")
        assert [row["sentence"] for row in tokens] == SENTENCES
        assert tokens[5]["tokens"][:4] == ["▁Book", "▁5:", "▁über", ","]
    assert not [name for name in muse_on_stack.files() if ".part" in name]


def test_standard_input_and_output_work_in_pipes(muse_on_stack: Muse) -> None:
    out = muse_on_stack.run("tokenize", "-", "-", stdin="a\n\nb")
    assert [json.loads(line)["tokens"] for line in out.splitlines()] == [["▁a"], [], ["▁b"]]
    out = muse_on_stack.run("tokenize", "-", "-", "--format", "jsonl", stdin='"a"\n\n{"sentence": "b"}\n')
    assert [json.loads(line)["sentence"] for line in out.splitlines()] == ["a", "b"]
    muse_on_stack.run("embed", "-", "out", "--output-format", "npy", stdin="\ufeffa\r\nb\r\n")
    assert np.load(muse_on_stack.folder / "out").shape == (2, 512)
    write_text(muse_on_stack.folder / "in.txt", ["a"] * 100_000)
    process = muse_on_stack.start("tokenize", "in.txt", "-")
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(30), process.stderr.read()) == (1, "")


def test_killed_embed_resumes_at_the_last_checkpoint(muse_on_relay: Muse, relay: Relay) -> None:
    sentences = [f"{number} books" for number in range(2 * CHUNK + 50)]
    write_text(muse_on_relay.folder / "in.txt", sentences)
    relay.block_after = CHUNK
    process = muse_on_relay.start("embed", "in.txt", "out.npy", "--in-flight", "1")
    muse_on_relay.wait_for("out.npy", CHUNK)
    process.kill()
    process.wait()
    assert muse_on_relay.files() == {"in.txt", "out.npy.part", "out.npy.part.json"}
    # As if the command had been killed during a write.
    with (muse_on_relay.folder / "out.npy.part").open("ab") as file:
        file.write(b"half a row")
    relay.release()
    muse_on_relay.run("embed", "in.txt", "out.npy")
    assert relay.sentences == CHUNK + 50
    assert muse_on_relay.files() == {"in.txt", "out.npy"}
    resumed = np.load(muse_on_relay.folder / "out.npy")
    assert resumed.shape == (len(sentences), 512)
    write_text(muse_on_relay.folder / "some.txt", sentences[::73])
    muse_on_relay.run("embed", "some.txt", "some.npy")
    assert np.abs(resumed[::73] - np.load(muse_on_relay.folder / "some.npy")).max() < 1e-5


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_tokenize_resumes_at_the_last_checkpoint(
    muse_on_relay: Muse, relay: Relay, kind: str, how: signal.Signals
) -> None:
    sentences = [f"{number}" for number in range(9 * CHUNK + 1)]
    write_text(muse_on_relay.folder / "in.txt", sentences)
    output = f"out.{kind}"
    relay.block_after = 6 * CHUNK
    process = muse_on_relay.start("tokenize", "in.txt", output)
    muse_on_relay.wait_for(output, 3 * CHUNK)
    process.send_signal(how)
    assert process.wait(10) == (130 if how != signal.SIGKILL else -signal.SIGKILL)
    done = muse_on_relay.checkpointed_rows(output)
    if how != signal.SIGKILL:
        assert process.stderr
        expected = rf"muse: stopped; {done:,} sentences are done and saved: run the same command again to resume\n"
        assert re.search(expected, process.stderr.read())
    relay.release()
    muse_on_relay.run("tokenize", "in.txt", output)
    assert relay.sentences == len(sentences) - done
    path = muse_on_relay.folder / output
    rows = pq.read_table(path).to_pylist() if kind == "parquet" else read_json_lines(path)
    assert [row["sentence"] for row in rows] == sentences
    assert ["".join(row["tokens"]).lstrip("▁") for row in rows] == sentences
    assert muse_on_relay.files() == {"in.txt", output}


def test_interrupted_checkpoint_counts_only_saved_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def stopped_before(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    def stopped_after(path: Path, target: Path) -> None:
        replace(path, target)
        raise KeyboardInterrupt

    for stopped, rows in (stopped_before, 1), (stopped_after, 2):
        with Spool(tmp_path / f"{rows}", "test", b"", restart=False) as spool:
            spool.append(["a"], b"a")
            with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(Path, "replace", stopped)
                spool.append(["b"], b"b")
            assert spool.rows == rows
        assert Spool(tmp_path / f"{rows}", "test", b"", restart=False).rows == rows


def test_unavailable_service_ends_the_command_resumably(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", [f"{number}" for number in range(6 * CHUNK)])
    relay.block_after = 2 * CHUNK
    process = muse_on_relay.start("tokenize", "in.txt", "out.jsonl", "--in-flight", "1", "--retry-for", "1")
    muse_on_relay.wait_for("out.jsonl", 2 * CHUNK)
    relay.stop()
    assert process.wait(30) == 1
    assert process.stderr
    (stderr,) = [line for line in process.stderr.read().splitlines() if line.startswith("muse: ")]
    assert "cannot reach" in stderr and "is the service running there?" in stderr
    assert f"{2 * CHUNK:,} sentences are done and saved: run the same command again to resume" in stderr
    relay.release()
    relay.start()
    # Short outages: the command retries.
    relay.responses = [CannedResponse(None), CannedResponse(503), CannedResponse(429, {"Retry-After": "1"})]
    muse_on_relay.run("tokenize", "in.txt", "out.jsonl")
    assert relay.sentences == 4 * CHUNK
    assert len(read_json_lines(muse_on_relay.folder / "out.jsonl")) == 6 * CHUNK


def test_exhausted_quota_ends_the_command_resumably(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", [f"{number}" for number in range(3 * CHUNK)])
    exhausted = CannedResponse(
        429, {"Retry-After": "1", "X-Should-Retry": "false"}, '{"message": "The quota of the user is exhausted"}'
    )
    relay.responses = [None, exhausted]
    stderr = muse_on_relay.fails("tokenize", "in.txt", "out.jsonl", "--in-flight", "1")
    assert "429: The quota of the user is exhausted; " in stderr
    assert f"{CHUNK:,} sentences are done and saved: run the same command again to resume" in stderr
    relay.sentences = 0
    muse_on_relay.run("tokenize", "in.txt", "out.jsonl")
    assert relay.sentences == 2 * CHUNK


def test_command_resumes_after_an_invalid_line_is_fixed(muse_on_relay: Muse, relay: Relay) -> None:
    good = [f"{number}" for number in range(2 * CHUNK)]
    data = muse_on_relay.folder / "in.txt"
    write_text(data, [*good, "x" * 262_145, "end"])
    stderr = muse_on_relay.fails("tokenize", "in.txt", "out.jsonl")
    assert (
        f"in.txt, line {2 * CHUNK + 1}: longer than 262,144 bytes" in stderr
        and f"{2 * CHUNK:,} sentences are done" in stderr
    )
    data.write_bytes(data.read_bytes().replace(b"x" * 262_145, b"caf\xe9"))
    stderr = muse_on_relay.fails("tokenize", "in.txt", "out.jsonl")
    assert f"in.txt, line {2 * CHUNK + 1}: byte 4 of it (0xe9) is not UTF-8: convert the file to UTF-8" in stderr
    write_text(data, [*good, "fixed", "end"])
    relay.sentences = 0
    muse_on_relay.run("tokenize", "in.txt", "out.jsonl")
    assert relay.sentences == 2
    assert [row["sentence"] for row in read_json_lines(muse_on_relay.folder / "out.jsonl")] == [*good, "fixed", "end"]


def test_resuming_with_another_input_is_an_error(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", ["a", "b"])
    (muse_on_stack.folder / "in.txt").write_bytes(b"a\nb\n\xff\n")
    muse_on_stack.fails("tokenize", "in.txt", "out.jsonl")
    write_text(muse_on_stack.folder / "in.txt", ["a", "c", "d"])
    for name in "in.txt", "nothing.txt":
        (muse_on_stack.folder / "nothing.txt").touch()
        stderr = muse_on_stack.fails("tokenize", name, "out.jsonl")
        assert f"the 2 sentences that are done are not those at the beginning of {name}" in stderr
        assert "--restart" in stderr
    assert "was started by 'muse tokenize" in muse_on_stack.fails("embed", "in.txt", "out.jsonl")
    muse_on_stack.run("tokenize", "in.txt", "out.jsonl", "--restart")
    assert [row["sentence"] for row in read_json_lines(muse_on_stack.folder / "out.jsonl")] == ["a", "c", "d"]
    assert "exists already" in muse_on_stack.fails("tokenize", "in.txt", "out.jsonl")
    muse_on_stack.run("tokenize", "in.txt", "out.jsonl", "--overwrite")


def test_concurrent_command_with_the_same_output_fails(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", ["a"] * 2 * CHUNK)
    relay.block_after = CHUNK
    process = muse_on_relay.start("tokenize", "in.txt", "out.jsonl", "--in-flight", "1")
    muse_on_relay.wait_for("out.jsonl", CHUNK)
    assert "is in use by another 'muse'" in muse_on_relay.fails("tokenize", "in.txt", "out.jsonl")
    relay.release()
    assert process.wait(30) == 0
    assert len(read_json_lines(muse_on_relay.folder / "out.jsonl")) == 2 * CHUNK


BAD = {
    "columns.csv": (b"a,b\n1,2\n", "columns.csv has no column 'sentence': choose one of a, b with --column"),
    "short.csv": (b"id,sentence\n1,a\n\n2\n", "short.csv, line 4: 1 column, where the header has 2"),
    "quote.csv": (b'sentence\n"a\nb"c\n', "quote.csv, line 2: "),
    "multi.csv": (b'sentence\n"a\nb"\n\xff\n', "multi.csv, line 4: byte 1 of it (0xff) is not UTF-8"),
    "utf16.txt": (
        "a\n".encode("utf-16-le"),
        "utf16.txt, line 1: zero bytes, as in UTF-16-LE: use --encoding utf-16-le",
    ),
    "bad.jsonl": (b'"a"\n{"sentence"\n', "bad.jsonl, line 2: not JSON: "),
    "field.jsonl": (b'{"a": 1}\n', "field.jsonl, line 1: no field 'sentence': choose one of a with --column"),
    "null.jsonl": (b'{"sentence": null}\n', "null.jsonl, line 1: 'sentence' is null, where a string is expected"),
    "pair.jsonl": (b'"\\ud800"\n', "pair.jsonl, line 1: an unpaired surrogate"),
    "empty.txt": (b"", "empty.txt is empty: it contains no sentences"),
    "empty.csv": (b"", "empty.csv is empty"),
    "header.csv": (b"sentence\n", "header.csv is empty"),
    "blank.jsonl": (b"\n\n", "blank.jsonl is empty"),
    "text.parquet": (b"no parquet", "text.parquet is not a complete Parquet file"),
    "long.txt": (b"a\n" + b"x y " * 5_000, "long.txt, line 2: the sentence is too long ("),
    "what.doc": (b"", "cannot determine the format of what.doc from its extension"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_input_is_reported_in_one_line(muse_on_stack: Muse, name: str) -> None:
    content, text = BAD[name]
    (muse_on_stack.folder / name).write_bytes(content)
    assert text in muse_on_stack.fails("embed", name, "out.npy")
    assert "out.npy" not in muse_on_stack.files()


def test_invalid_parquet_columns_are_reported(muse_on_stack: Muse) -> None:
    def fails(column: Any) -> str:
        pq.write_table(pa.table({"sentence": column}), muse_on_stack.folder / "in.parquet")
        return muse_on_stack.fails("tokenize", "in.parquet", "out.jsonl", "--restart")

    assert "the column 'sentence' has type int64, where strings are expected" in fails(pa.array([1]))
    assert "in.parquet, row 2: 'sentence' is null, where a string is expected" in fails(pa.array(["a", None]))
    assert "has no column 'x': choose one of sentence" in muse_on_stack.fails(
        "embed", "in.parquet", "o.npy", "--column", "x"
    )
    assert "cannot be read from standard input" in muse_on_stack.fails("embed", "-", "o.npy", "--format", "parquet")


def test_invalid_files_are_reported(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", ["a"])
    assert "cannot read none.txt: No such file" in muse_on_stack.fails("embed", "none.txt", "out.npy")
    assert "the folder state contains no files" in muse_on_stack.fails("embed", "state", "out.npy")
    assert "none/out.npy.part: No such file" in muse_on_stack.fails("embed", "in.txt", "none/out.npy")
    assert "state is not a regular file" in muse_on_stack.fails("embed", "in.txt", "state", "--output-format", "npy")
    assert "tokens cannot be written as .npy" in muse_on_stack.fails("tokenize", "in.txt", "out.npy")
    assert "only jsonl can be written to standard output" in muse_on_stack.fails(
        "embed", "in.txt", "-", "--output-format", "npy"
    )
    assert "cannot determine the format of out" in muse_on_stack.fails("embed", "in.txt", "out")
    os.mkfifo(muse_on_stack.folder / "fifo.jsonl")
    assert "fifo.jsonl is not a regular file" in muse_on_stack.fails("tokenize", "in.txt", "fifo.jsonl", "--overwrite")
    with Path("/dev/full").open("w") as full:
        process = muse_on_stack.start("tokenize", "in.txt", "-", stdout=full)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1 and stderr == "muse: error: cannot write standard output: No space left on device\n"
    assert muse_on_stack("embed", "in.txt", "out.npy", "--in-flight", "0").returncode == 2


def test_full_disk_is_reported_and_resumable(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", ["a"] * CHUNK)
    limited = ["bash", "-c", 'ulimit -f 300; trap "" XFSZ; exec "$@"', "-", str(MUSE), "embed", "in.txt", "out.npy"]
    ran = subprocess.run(
        limited, cwd=muse_on_stack.folder, env=muse_on_stack.environment, capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert "cannot write" in ran.stderr and "File too large" in ran.stderr and "Traceback" not in ran.stderr
    muse_on_stack.run("embed", "in.txt", "out.npy")
    assert np.load(muse_on_stack.folder / "out.npy").shape == (CHUNK, 512)


def test_parquet_without_pyarrow_is_reported(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", ["a"])
    (muse_on_stack.folder / "pyarrow.py").write_text("raise ImportError('No module named pyarrow')")
    muse_on_stack.environment["PYTHONPATH"] = str(muse_on_stack.folder)
    assert "pip install 'muse-as-service[parquet]'" in muse_on_stack.fails("embed", "in.txt", "out.parquet")
    muse_on_stack.run("embed", "in.txt", "out.npy")


def test_memory_does_not_grow_with_the_input(muse_on_stack: Muse) -> None:
    def peak(lines: int) -> int:
        """Peak memory of the command in bytes. That of wait4() would include the test process."""
        write_text(muse_on_stack.folder / "in.txt", [f"{number} and some more words" for number in range(lines)])
        process = muse_on_stack.start("tokenize", "in.txt", f"{lines}.jsonl", stderr=subprocess.DEVNULL)
        kilobytes = 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            # Absent while the process exits.
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                kilobytes = int(found[1])
            time.sleep(0.005)
        assert process.returncode == 0
        return kilobytes << 10

    small, large = peak(5_000), peak(100_000)
    assert small and large - small < 8 << 20


def test_progress_is_a_bar_on_a_terminal_else_lines(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", [f"{number}" for number in range(3 * CHUNK)])
    ours, theirs = pty.openpty()
    process = muse_on_relay.start("tokenize", "in.txt", "out.jsonl", stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            chunk = os.read(ours, 65_536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait(30) == 0
    shown = seen.decode()
    assert re.search(r"\r\x1b\[K *\d+% \[[#.]+\] [\d,]+ sentences, [\d,]+/s, \d+:\d\d:\d\d left", shown)
    assert re.search(r"1,536 sentences in \d+:\d\d:\d\d \([\d,]+/s\): out\.jsonl\r\n$", shown)

    relay.release()
    relay.block_after = CHUNK
    process = muse_on_relay.start("tokenize", "in.txt", "slow.jsonl", "--in-flight", "1")
    muse_on_relay.wait_for("slow.jsonl", CHUNK)
    time.sleep(5.5)
    relay.release()
    _, stderr = process.communicate(timeout=30)
    assert re.search(r"^ *\d+% [\d,]+ sentences, [\d,]+/s, \d+:\d\d:\d\d left$", stderr, re.MULTILINE)
    assert "\x1b" not in stderr and "\r" not in stderr


def test_login_saves_and_logout_deletes_the_tokens(muse: Muse, url: str) -> None:
    write_text(muse.folder / "in.txt", ["a"])
    for command in ("embed", "in.txt", "out.npy"), ("logout",):
        assert "not logged in: run 'muse login' first" in muse.fails(*command)
    assert "the user's name or the password is wrong" in muse.fails("login", url, "--user", "admin", stdin="wrong\n")
    assert "--user" in muse.fails("login", url, stdin="admin\n")
    assert "no password" in muse.fails("login", url, "--user", "admin")
    assert "is no address of a service" in muse.fails("login", "localhost", "--user", "admin", stdin="admin\n")
    assert not (muse.state / "muse/login.json").exists()
    assert muse.run("login", url, "--user", "admin", stdin="admin\n") == f"logged in to {url} as admin\n"
    saved = muse.state / "muse/login.json"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert stat.S_IMODE(saved.parent.stat().st_mode) == 0o700
    assert [path.name for path in saved.parent.iterdir()] == ["login.json"]
    tokens = json.loads(saved.read_text())
    assert "admin" not in saved.read_text().replace(tokens["access_token"], "").replace(tokens["refresh_token"], "")
    muse.run("logout")
    assert not saved.exists()
    for path, kind in ("/tokenize?sentence=a", "access_token"), ("/token/refresh", "refresh_token"):
        bearer = {"Authorization": f"Bearer {tokens[kind]}"}
        method = "GET" if kind == "access_token" else "POST"
        assert httpx.request(method, url + path, headers=bearer).json() == {"msg": "Token has been revoked"}
    saved.write_text("{")
    assert "is damaged: remove it and run 'muse login'" in muse.fails("logout")


def test_login_prompts_on_a_terminal(muse: Muse, url: str) -> None:
    ours, theirs = pty.openpty()
    process = muse.start("login", url, stdin=theirs, stderr=theirs, stdout=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    for question, answer in (b"user: ", b"admin\n"), (b"password: ", b"admin\n"):
        while not shown.endswith(question):
            shown += os.read(ours, 1_024)
        os.write(ours, answer)
    while b"logged in" not in shown:
        shown += os.read(ours, 1_024)
    assert process.wait(30) == 0
    # The terminal echoes the name, not the password.
    assert shown.split(b"password: ")[1].count(b"admin") == 1


def test_saved_login_is_refreshed_between_commands(muse: Muse, strict_url: str) -> None:
    write_text(muse.folder / "in.txt", ["a"])
    muse.login(strict_url)
    saved = muse.state / "muse/login.json"
    for number in range(2):
        before = json.loads(saved.read_text())
        time.sleep(3.1)
        muse.run("tokenize", "in.txt", f"{number}.jsonl")
        after = json.loads(saved.read_text())
        assert after["access_token"] != before["access_token"] and after["refresh_token"] != before["refresh_token"]
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    muse.run("logout")


def test_api_key_in_the_environment_replaces_the_login(muse: Muse, url: str, api_key: str) -> None:
    write_text(muse.folder / "in.txt", ["a"])
    assert "require an API key in MUSE_API_KEY" in muse.fails("tokenize", "in.txt", "-", "--url", url)
    muse.environment["MUSE_API_KEY"] = api_key
    assert json.loads(muse.run("tokenize", "in.txt", "-", "--url", url)) == {"sentence": "a", "tokens": ["▁a"]}
    muse.environment["MUSE_API_KEY"] = api_key[:-1] + ("b" if api_key[-1] == "a" else "a")
    message = muse.fails("tokenize", "in.txt", "-", "--url", url)
    assert "checksum" in message and "muse_" not in message


@pytest.mark.parametrize("protocol", [[], ["--grpc"]])
def test_key_commands_manage_a_key(muse_on_stack: Muse, url: str, protocol: list[str]) -> None:
    muse = muse_on_stack
    created = muse("key", "create", "nightly job", "--expires-in", "90d", "--bulk", "--quota", "500/month", *protocol)
    assert created.returncode == 0, created.stderr
    found = re.fullmatch(r"(muse_([a-z2-7]{12})_[a-z2-7]{39})\n", created.stdout)
    assert found, "only the key is in standard output"
    key, id = found.groups()
    assert key not in created.stderr
    shown = rf"muse: created the API key {id} \(nightly job\), which expires on 20\S+Z; it cannot be printed again\n"
    assert re.fullmatch(shown, created.stderr)

    def described(text: str) -> dict[str, str]:
        return {line[:10].rstrip(): line[11:] for line in text.splitlines()}

    properties = described(muse.run("key", "show", id, *protocol))
    assert list(properties) == ["id", "name", "owner", "created", "expires", "disabled", "bulk", "quota", "last used"]
    created_at, expires = (
        datetime.strptime(properties[name][:20], "%Y-%m-%dT%H:%M:%SZ") for name in ("created", "expires")
    )
    assert expires - created_at == timedelta(days=90)
    assert (properties["name"], properties["owner"], properties["bulk"]) == ("nightly job", "admin", "yes")
    assert properties["quota"] == "500/month"
    changes = ("--name", "ci", "--disable", "--no-bulk", "--expires-in", "never", "--quota", "1000000/day")
    changed = described(muse.run("key", "update", id, *changes, *protocol))
    for name, value in (("name", "ci"), ("disabled", "yes"), ("bulk", "no"), ("expires", "never")):
        assert changed[name] == value
    assert changed["quota"] == "1000000/day"
    listed = {line.split("\t")[0]: line.split("\t")[1:] for line in muse.run("key", "list", *protocol).splitlines()}
    assert listed[id] == ["admin", properties["created"][:20], "-", "-", "-", "1000000/day", "ci", "disabled"]
    assert described(muse.run("key", "update", id, "--no-quota", *protocol))["quota"] == "none"
    listed = {line.split("\t")[0]: line.split("\t")[1:] for line in muse.run("key", "list", *protocol).splitlines()}
    assert listed[id][-3:] == ["-", "ci", "disabled"]

    muse.environment["MUSE_API_KEY"] = key
    assert "401: The API key is disabled" in muse.fails("key", "describe", "--url", url, *protocol)
    # The login manages keys, with or without a key in the environment.
    assert described(muse.run("key", "update", id, "--enable", "--bulk", *protocol))["disabled"] == "no"
    time.sleep(0.3)
    properties = described(muse.run("key", "describe", *protocol))
    assert (properties["id"], properties["bulk"]) == (id, "yes")
    assert muse.run("key", "delete", id, *protocol) == f"deleted the API key {id}\n"
    assert "404: " in muse.fails("key", "show", id, *protocol)


def test_invalid_key_commands_are_reported(muse: Muse, url: str) -> None:
    assert "not logged in: run 'muse login' first" in muse.fails("key", "list")
    assert "no API key: set the environment variable MUSE_API_KEY" in muse.fails("key", "describe")
    muse.login(url)
    for duration in "0", "0d", "-1d", "90", "1.5h", "90 d", "5w", "never", "d", "٣d", "1e3":
        ran = muse("key", "create", "a", f"--expires-in={duration}")
        if duration == "90":
            muse.run("key", "delete", ran.stdout.split("_")[1])
            continue
        assert ran.returncode == 2, duration
        assert f"argument --expires-in: {duration!r} is no time such as 90d, 12h, 30m or 3600 (seconds)" in ran.stderr
    for quota in "0/day", "1000000", "5/week", "-5/day", "1e6/day", "1_000/day", "5 / day", "5/days", "/day", "٣/day":
        for command in ("create", "a"), ("update", "aaaaaaaaaaaa"):
            ran = muse("key", *command, f"--quota={quota}")
            assert ran.returncode == 2, quota
            assert f"argument --quota: {quota!r} is no quota such as 1000000/day or 20000000/month" in ran.stderr
    assert muse("key", "update", "aaaaaaaaaaaa", "--quota", "5/day", "--no-quota").returncode == 2
    assert "400: quota: it is at most" in muse.fails("key", "create", "a", "--quota", f"{10**15 + 1}/day")
    assert "to ten years" in muse.fails("key", "create", "a", "--expires-in", "999999999999d")
    assert "400: name: " in muse.fails("key", "create", "a" * 101)
    ran = subprocess.run([MUSE, "key", "create", b"\xff"], env=muse.environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (1, "muse: error: the name of the API key is not valid text\n")
    assert "nothing to change: use --name" in muse.fails("key", "update", "aaaaaaaaaaaa")
    message = muse.fails("key", "delete", "muse_aaaaaaaaaaaa_secretsecret")
    assert "12 characters between muse_ and the secret" in message and "secretsecret" not in message
    assert muse("key", "update", "aaaaaaaaaaaa", "--disable", "--enable").returncode == 2
    assert 'there is no user "nobody"' in muse.fails("key", "list", "--user", "nobody")


@pytest.mark.parametrize("protocol", [[], ["--grpc"]])
def test_usage_command_prints_the_groups(muse_on_stack: Muse, url: str, protocol: list[str]) -> None:
    muse = muse_on_stack
    write_text(muse.folder / "in.txt", ["a", "b"])
    key = muse.run("key", "create", "usage").strip()
    id = key.split("_")[1]
    muse.environment["MUSE_API_KEY"] = key
    muse.run("embed", "in.txt", "-", "--output-format", "jsonl")
    deadline = time.monotonic() + 30
    while (used := muse.run("usage", "--by", "key", "--url", url, *protocol)).count("\n") < 2:
        assert time.monotonic() < deadline, used
        time.sleep(0.2)
    numbers, header = "1\t2\t2\t0\n", "requests\tsentences\ttokens\trefused\n"
    assert used == f"user\tkey\t{header}admin\t{id}\t{numbers}", "only its own usage"
    assert "403: " in muse.fails("usage", "--user", "somebody", *protocol)

    # The login sees all usage.
    del muse.environment["MUSE_API_KEY"]
    for by, columns, group in (
        (None, r"day\tuser\tkey", rf"20\d\d-\d\d-\d\d\tadmin\t{id}"),
        ("day", r"day", r"20\d\d-\d\d-\d\d"),
        ("hour", r"hour", r"20\d\d-\d\d-\d\dT\d\d:00:00Z"),
        ("user", r"user", r"admin"),
        ("key", r"user\tkey", rf"admin\t{id}"),
    ):
        shown = muse.run("usage", "--key", id, *(["--by", by] if by else []), *protocol)
        assert re.fullmatch(rf"{columns}\t{header}{group}\t{numbers}", shown), shown
    muse.run("embed", "in.txt", "-", "--output-format", "jsonl")
    while "\nadmin\t-\t" not in (used := muse.run("usage", "--by", "key", "--user", "admin", *protocol)):
        assert time.monotonic() < deadline + 30, used
        time.sleep(0.2)
    assert f"\nadmin\t{id}\t{numbers}" in used
    assert muse.run("usage", "--from", "2026-01-01", "--to", "2026-01-01", "--by", "day", *protocol) == f"day\t{header}"
    muse.run("key", "delete", id)


def test_invalid_usage_commands_are_reported(muse: Muse, url: str) -> None:
    assert "not logged in: run 'muse login' first" in muse.fails("usage")
    assert "require an API key in MUSE_API_KEY" in muse.fails("usage", "--url", url)
    muse.login(url)
    for day in "yesterday", "29.11.2026", "2026-02-30", "20261129", "2026-W48-7", "2026-11-29T00:00:00", "":
        for option in "--from", "--to":
            ran = muse("usage", f"{option}={day}")
            assert ran.returncode == 2, day
            assert f"argument {option}: {day!r} is no day such as 2026-11-29" in ran.stderr
    assert muse("usage", "--by", "week").returncode == 2
    assert "400: from: " in muse.fails("usage", "--from", "2026-02-01", "--to", "2026-01-01")
    assert 'there is no user "nobody"' in muse.fails("usage", "--user", "nobody")
    message = muse.fails("usage", "--key", "muse_aaaaaaaaaaaa_secretsecret")
    assert "12 characters between muse_ and the secret" in message and "secretsecret" not in message
    ran = subprocess.run([MUSE, "usage", "--user", b"\xff"], env=muse.environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (1, "muse: error: the name of the user is not valid text\n")


def test_key_that_cannot_be_written_is_reported(muse_on_stack: Muse) -> None:
    with Path("/dev/full").open("w") as full:
        process = muse_on_stack.start("key", "create", "a", stdout=full)
        _, stderr = process.communicate(timeout=30)
    found = re.fullmatch(
        r"muse: error: cannot write the key to standard output: No space left on device; "
        r"nobody has it now: remove it with 'muse key delete (\S+)'\n",
        stderr,
    )
    assert process.returncode == 1 and found, stderr
    muse_on_stack.run("key", "delete", found[1])


def test_help_and_version_are_printed(muse: Muse) -> None:
    assert muse.run("--version") == "muse 2.0.0\n"
    assert "muse login" in muse.run("--help") or "login" in muse.run("--help")
    shown = muse.run("embed", "--help")
    assert "--column" in shown and "OUTPUT.part" in shown
    assert muse().returncode == 2
