"""The command `muse`, as it was installed, against a real stack."""

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
from email.utils import formatdate
from pathlib import Path
from typing import Any, Optional

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import GOLDEN
from relay import Answer, Relay

from muse_as_service.cli.doctor import Golden
from muse_as_service.cli.spool import Spool

MUSE = Path(sys.executable).with_name("muse")
SENTENCES = [f'Book {number}: über, книга, 本, "quoted"' for number in range(520)]
PART = 512


class Muse:
    """The command with a home of its own, in a folder of its own."""

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

    def good(self, *arguments: str, stdin: Optional[str] = None) -> str:
        ran = self(*arguments, stdin=stdin)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def fails(self, *arguments: str, stdin: Optional[str] = None) -> str:
        """The one line in which it says why."""
        ran = self(*arguments, stdin=stdin)
        assert ran.returncode == 1, ran.stderr
        assert ran.stderr.startswith("muse: error: ") and ran.stderr.count("\n") == 1, ran.stderr
        return ran.stderr

    def login(self, url: str) -> Muse:
        self.good("login", url, "--user", "admin", stdin="admin\n")
        return self

    def note(self, output: str) -> int:
        """How many sentences are done, as the note beside the work says."""
        try:
            rows: int = json.loads((self.folder / f"{output}.part.json").read_text())["rows"]
            return rows
        except FileNotFoundError:
            return 0

    def wait_for(self, output: str, rows: int) -> None:
        begun = time.monotonic()
        while self.note(output) < rows:
            assert time.monotonic() - begun < 60
            time.sleep(0.02)

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if path != self.state}


@pytest.fixture
def muse(tmp_path: Path) -> Muse:
    return Muse(tmp_path)


@pytest.fixture
def here(muse: Muse, url: str) -> Muse:
    """Logged in to the stack."""
    return muse.login(url)


@pytest.fixture
def behind(muse: Muse, relay: Relay) -> Iterator[Muse]:
    """Logged in to the relay."""
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


def test_a_service_that_is_well_passes_each_check(tmp_path: Path, url: str) -> None:
    muse = Muse(tmp_path)
    lines = muse.good("doctor", url, "--user", "admin", stdin="admin\n").splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", check]
        for check in ("service", "clock", "keys", "log-in", "auth-clock", "model", "tokens", "vectors", "log-out")
    ], lines
    # Nothing is left of the login, nor was one needed for the first checks.
    assert not muse.state.exists()
    told = [line.split()[0] for line in muse.good("doctor", url).splitlines()]
    assert told == ["ok"] * 3 + ["skipped"] * 6


def test_doctor_names_the_clock_that_is_wrong(tmp_path: Path, relay: Relay) -> None:
    muse = Muse(tmp_path)
    for ahead, direction in ((-90, "behind"), (3600, "ahead")):
        claims = base64.urlsafe_b64encode(json.dumps({"iat": int(time.time()) + ahead}).encode()).decode().rstrip("=")
        tokens = {"access_token": f"h.{claims}.s", "refresh_token": f"h.{claims}.s"}
        date = formatdate(time.time() + ahead, usegmt=True)
        relay.answers = [Answer(200, {"Date": date}, '{"keys": [{"kid": "k"}]}'), Answer(200, {}, json.dumps(tokens))]
        ran = muse("doctor", relay.url, "--user", "admin", stdin="admin\n")
        found = {line.split()[1]: line for line in ran.stdout.splitlines()}
        for check in ("clock", "auth-clock"):
            assert found[check].startswith("FAILED") and "synchronise them (NTP)" in found[check], ran.stdout
            assert f"is {direction}" in found[check], ran.stdout


def test_a_bad_way_to_a_service_is_named(tmp_path: Path, url: str) -> None:
    muse = Muse(tmp_path)
    away = muse("doctor", "http://127.0.0.1:1")
    assert away.returncode == 1 and away.stdout.startswith("FAILED  service  cannot reach http://127.0.0.1:1")
    assert away.stderr == "muse: error: 1 of the checks failed\n"


def test_a_service_that_is_not_well_fails_by_each_check(tmp_path: Path, relay: Relay) -> None:
    muse = Muse(tmp_path)
    relay.answers = [
        Answer(200, {"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}, '{"keys": []}'),
        None,
        Answer(200, {}, "[]"),
        Answer(200, {}, json.dumps({"tokens": [["a"]] * 16})),
        Answer(200, {}, json.dumps({"embedding": [[1.0] + [0.0] * 511] * 16})),
        Answer(500),
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


def test_the_golden_sentences_are_those_of_the_model(golden: list[dict[str, Any]]) -> None:
    kept = Golden.read()
    place = {line["text"]: index for index, line in enumerate(golden)}
    rows = [place[text] for text in kept.texts]
    assert len(rows) == 16 and kept.tokens == [golden[row]["tokens"] for row in rows]
    np.testing.assert_array_equal(kept.vectors, np.load(GOLDEN / "embeddings.npy")[rows])


def test_every_format_in_and_out(here: Muse) -> None:
    write_inputs(here.folder)
    here.good("embed", "in.txt", "out.npy")
    vectors = np.load(here.folder / "out.npy", mmap_mode="r")
    assert vectors.shape == (520, 512) and vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5

    here.good("embed", "in.csv", "out.parquet", "--column", "words", "--grpc")
    table = pq.read_table(here.folder / "out.parquet")
    assert table.column_names == ["sentence", "embedding"]
    assert table["sentence"].to_pylist() == SENTENCES
    assert np.abs(np.array(table["embedding"].to_pylist()) - vectors).max() < 2e-6

    here.good("embed", "in.parquet", "out.jsonl", "--column", "words", "--in-flight", "1")
    lines = read_json_lines(here.folder / "out.jsonl")
    assert [line["sentence"] for line in lines] == SENTENCES
    assert np.abs(np.array([line["embedding"] for line in lines]) - vectors).max() < 2e-6

    for name in "in.txt", "in.csv", "in.tsv", "in.jsonl", "in.parquet":
        for output in f"{name}.parquet", f"{name}.jsonl":
            here.good("tokenize", name, output, "--column", "words")
        tokens = pq.read_table(here.folder / f"{name}.parquet").to_pylist()
        assert tokens == read_json_lines(here.folder / f"{name}.jsonl")
        assert [row["sentence"] for row in tokens] == SENTENCES
        assert tokens[5]["tokens"][:4] == ["▁Book", "▁5:", "▁über", ","]
    assert not [name for name in here.files() if ".part" in name]


def test_pipes(here: Muse) -> None:
    out = here.good("tokenize", "-", "-", stdin="a\n\nb")
    assert [json.loads(line)["tokens"] for line in out.splitlines()] == [["▁a"], [], ["▁b"]]
    out = here.good("tokenize", "-", "-", "--format", "jsonl", stdin='"a"\n\n{"sentence": "b"}\n')
    assert [json.loads(line)["sentence"] for line in out.splitlines()] == ["a", "b"]
    here.good("embed", "-", "out", "--output-format", "npy", stdin="\ufeffa\r\nb\r\n")
    assert np.load(here.folder / "out").shape == (2, 512)
    write_text(here.folder / "in.txt", ["a"] * 100_000)
    process = here.start("tokenize", "in.txt", "-")
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(30), process.stderr.read()) == (1, "")


def test_killed_work_goes_on_where_it_was(behind: Muse, relay: Relay) -> None:
    sentences = [f"{number} books" for number in range(2 * PART + 50)]
    write_text(behind.folder / "in.txt", sentences)
    relay.hold_after = PART
    process = behind.start("embed", "in.txt", "out.npy", "--in-flight", "1")
    behind.wait_for("out.npy", PART)
    process.kill()
    process.wait()
    assert behind.files() == {"in.txt", "out.npy.part", "out.npy.part.json"}
    # As if it had been killed in the midst of a write.
    with (behind.folder / "out.npy.part").open("ab") as file:
        file.write(b"half a row")
    relay.release()
    behind.good("embed", "in.txt", "out.npy")
    assert relay.sentences == PART + 50
    assert behind.files() == {"in.txt", "out.npy"}
    resumed = np.load(behind.folder / "out.npy")
    assert resumed.shape == (len(sentences), 512)
    write_text(behind.folder / "some.txt", sentences[::73])
    behind.good("embed", "some.txt", "some.npy")
    assert np.abs(resumed[::73] - np.load(behind.folder / "some.npy")).max() < 1e-5


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_work_goes_on_where_it_was(behind: Muse, relay: Relay, kind: str, how: signal.Signals) -> None:
    sentences = [f"{number}" for number in range(9 * PART + 1)]
    write_text(behind.folder / "in.txt", sentences)
    output = f"out.{kind}"
    relay.hold_after = 6 * PART
    process = behind.start("tokenize", "in.txt", output)
    behind.wait_for(output, 3 * PART)
    process.send_signal(how)
    assert process.wait(10) == (130 if how != signal.SIGKILL else -signal.SIGKILL)
    done = behind.note(output)
    if how != signal.SIGKILL:
        assert process.stderr
        expected = rf"muse: stopped; {done:,} sentences are done and kept: run the same command again to go on\n"
        assert re.search(expected, process.stderr.read())
    relay.release()
    behind.good("tokenize", "in.txt", output)
    assert relay.sentences == len(sentences) - done
    path = behind.folder / output
    rows = pq.read_table(path).to_pylist() if kind == "parquet" else read_json_lines(path)
    assert [row["sentence"] for row in rows] == sentences
    assert ["".join(row["tokens"]).lstrip("▁") for row in rows] == sentences
    assert behind.files() == {"in.txt", output}


def test_a_stop_that_comes_with_the_note_counts_what_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def stopped_before(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    def stopped_after(path: Path, target: Path) -> None:
        replace(path, target)
        raise KeyboardInterrupt

    for stopped, kept in (stopped_before, 1), (stopped_after, 2):
        with Spool(tmp_path / f"{kept}", "test", b"", restart=False) as spool:
            spool.append(["a"], b"a")
            with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(Path, "replace", stopped)
                spool.append(["b"], b"b")
            assert spool.rows == kept
        assert Spool(tmp_path / f"{kept}", "test", b"", restart=False).rows == kept


def test_a_service_that_is_away(behind: Muse, relay: Relay) -> None:
    write_text(behind.folder / "in.txt", [f"{number}" for number in range(6 * PART)])
    relay.hold_after = 2 * PART
    process = behind.start("tokenize", "in.txt", "out.jsonl", "--in-flight", "1", "--retry-for", "1")
    behind.wait_for("out.jsonl", 2 * PART)
    relay.stop()
    assert process.wait(30) == 1
    assert process.stderr
    (said,) = [line for line in process.stderr.read().splitlines() if line.startswith("muse: ")]
    assert "cannot reach" in said and "is the service running there?" in said
    assert f"{2 * PART:,} sentences are done and kept: run the same command again to go on" in said
    relay.release()
    relay.start()
    # Away for a moment only: waited for.
    relay.answers = [Answer(None), Answer(503), Answer(429, {"Retry-After": "1"})]
    behind.good("tokenize", "in.txt", "out.jsonl")
    assert relay.sentences == 4 * PART
    assert len(read_json_lines(behind.folder / "out.jsonl")) == 6 * PART


def test_a_bad_line_is_mended_and_the_work_goes_on(behind: Muse, relay: Relay) -> None:
    good = [f"{number}" for number in range(2 * PART)]
    data = behind.folder / "in.txt"
    write_text(data, [*good, "x" * 262_145, "end"])
    said = behind.fails("tokenize", "in.txt", "out.jsonl")
    assert (
        f"in.txt, line {2 * PART + 1}: longer than 262,144 bytes" in said and f"{2 * PART:,} sentences are done" in said
    )
    data.write_bytes(data.read_bytes().replace(b"x" * 262_145, b"caf\xe9"))
    said = behind.fails("tokenize", "in.txt", "out.jsonl")
    assert f"in.txt, line {2 * PART + 1}: byte 4 of it (0xe9) is not UTF-8: convert the file to UTF-8" in said
    write_text(data, [*good, "mended", "end"])
    relay.sentences = 0
    behind.good("tokenize", "in.txt", "out.jsonl")
    assert relay.sentences == 2
    assert [row["sentence"] for row in read_json_lines(behind.folder / "out.jsonl")] == [*good, "mended", "end"]


def test_work_is_not_mixed_with_that_of_another_input(here: Muse) -> None:
    write_text(here.folder / "in.txt", ["a", "b"])
    (here.folder / "in.txt").write_bytes(b"a\nb\n\xff\n")
    here.fails("tokenize", "in.txt", "out.jsonl")
    write_text(here.folder / "in.txt", ["a", "c", "d"])
    for name in "in.txt", "nothing.txt":
        (here.folder / "nothing.txt").touch()
        said = here.fails("tokenize", name, "out.jsonl")
        assert f"the 2 sentences that are done are not those at the beginning of {name}" in said
        assert "--restart" in said
    assert "was begun by 'muse tokenize" in here.fails("embed", "in.txt", "out.jsonl")
    here.good("tokenize", "in.txt", "out.jsonl", "--restart")
    assert [row["sentence"] for row in read_json_lines(here.folder / "out.jsonl")] == ["a", "c", "d"]
    assert "is there already" in here.fails("tokenize", "in.txt", "out.jsonl")
    here.good("tokenize", "in.txt", "out.jsonl", "--overwrite")


def test_two_commands_do_not_write_the_same_file(behind: Muse, relay: Relay) -> None:
    write_text(behind.folder / "in.txt", ["a"] * 2 * PART)
    relay.hold_after = PART
    process = behind.start("tokenize", "in.txt", "out.jsonl", "--in-flight", "1")
    behind.wait_for("out.jsonl", PART)
    assert "is in use by another 'muse'" in behind.fails("tokenize", "in.txt", "out.jsonl")
    relay.release()
    assert process.wait(30) == 0
    assert len(read_json_lines(behind.folder / "out.jsonl")) == 2 * PART


BAD = {
    "columns.csv": (b"a,b\n1,2\n", "columns.csv has no column 'sentence': choose one of a, b with --column"),
    "short.csv": (b"id,sentence\n1,a\n\n2\n", "short.csv, line 4: 1 columns, where the header has 2"),
    "quote.csv": (b'sentence\n"a\nb"c\n', "quote.csv, line 2: "),
    "multi.csv": (b'sentence\n"a\nb"\n\xff\n', "multi.csv, line 4: byte 1 of it (0xff) is not UTF-8"),
    "utf16.txt": ("a\n".encode("utf-16"), "utf16.txt, line 1: byte 1 of it (0xff) is not UTF-8"),
    "bad.jsonl": (b'"a"\n{"sentence"\n', "bad.jsonl, line 2: not JSON: "),
    "field.jsonl": (b'{"a": 1}\n', "field.jsonl, line 1: no field 'sentence': choose one of a with --column"),
    "null.jsonl": (b'{"sentence": null}\n', "null.jsonl, line 1: 'sentence' is null, where a string is expected"),
    "pair.jsonl": (b'"\\ud800"\n', "pair.jsonl, line 1: half of a surrogate pair"),
    "empty.txt": (b"", "empty.txt is empty: there is no sentence in it"),
    "empty.csv": (b"", "empty.csv is empty"),
    "header.csv": (b"sentence\n", "header.csv is empty"),
    "blank.jsonl": (b"\n\n", "blank.jsonl is empty"),
    "text.parquet": (b"no parquet", "text.parquet is not a whole Parquet file"),
    "long.txt": (b"a\n" + b"x y " * 5_000, "long.txt, line 2: the sentence is too long ("),
    "what.doc": (b"", "cannot tell the format of what.doc from its name"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_said_in_a_line(here: Muse, name: str) -> None:
    content, text = BAD[name]
    (here.folder / name).write_bytes(content)
    assert text in here.fails("embed", name, "out.npy")
    assert "out.npy" not in here.files()


def test_bad_parquet_columns(here: Muse) -> None:
    def fails(column: Any) -> str:
        pq.write_table(pa.table({"sentence": column}), here.folder / "in.parquet")
        return here.fails("tokenize", "in.parquet", "out.jsonl", "--restart")

    assert "the column 'sentence' holds int64, where strings are expected" in fails(pa.array([1]))
    assert "in.parquet, row 2: 'sentence' is null, where a string is expected" in fails(pa.array(["a", None]))
    assert "has no column 'x': choose one of sentence" in here.fails("embed", "in.parquet", "o.npy", "--column", "x")
    assert "cannot be read from standard input" in here.fails("embed", "-", "o.npy", "--format", "parquet")


def test_bad_files(here: Muse) -> None:
    write_text(here.folder / "in.txt", ["a"])
    assert "cannot read none.txt: No such file" in here.fails("embed", "none.txt", "out.npy")
    assert "cannot read .: " in here.fails("embed", ".", "out.npy", "--format", "text")
    assert "none/out.npy.part: No such file" in here.fails("embed", "in.txt", "none/out.npy")
    assert "state is no file that can be replaced" in here.fails("embed", "in.txt", "state", "--output-format", "npy")
    assert "tokens cannot be written as .npy" in here.fails("tokenize", "in.txt", "out.npy")
    assert "only jsonl can be written to standard output" in here.fails(
        "embed", "in.txt", "-", "--output-format", "npy"
    )
    assert "cannot tell the format of out" in here.fails("embed", "in.txt", "out")
    os.mkfifo(here.folder / "fifo.jsonl")
    assert "fifo.jsonl is no file that can be replaced" in here.fails("tokenize", "in.txt", "fifo.jsonl", "--overwrite")
    with Path("/dev/full").open("w") as full:
        process = here.start("tokenize", "in.txt", "-", stdout=full)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1 and said == "muse: error: cannot write standard output: No space left on device\n"
    assert here("embed", "in.txt", "out.npy", "--in-flight", "0").returncode == 2


def test_a_full_disk(here: Muse) -> None:
    write_text(here.folder / "in.txt", ["a"] * PART)
    limited = ["bash", "-c", 'ulimit -f 300; trap "" XFSZ; exec "$@"', "-", str(MUSE), "embed", "in.txt", "out.npy"]
    ran = subprocess.run(limited, cwd=here.folder, env=here.environment, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "cannot write" in ran.stderr and "File too large" in ran.stderr and "Traceback" not in ran.stderr
    here.good("embed", "in.txt", "out.npy")
    assert np.load(here.folder / "out.npy").shape == (PART, 512)


def test_without_pyarrow_parquet_is_refused_plainly(here: Muse) -> None:
    write_text(here.folder / "in.txt", ["a"])
    (here.folder / "pyarrow.py").write_text("raise ImportError('No module named pyarrow')")
    here.environment["PYTHONPATH"] = str(here.folder)
    assert "pip install 'muse-as-service[parquet]'" in here.fails("embed", "in.txt", "out.parquet")
    here.good("embed", "in.txt", "out.npy")


def test_memory_is_steady(here: Muse) -> None:
    def peak(lines: int) -> int:
        """Bytes that the command has used at most. What wait4() tells counts those of this process, too."""
        write_text(here.folder / "in.txt", [f"{number} and some more words" for number in range(lines)])
        process = here.start("tokenize", "in.txt", f"{lines}.jsonl", stderr=subprocess.DEVNULL)
        kilobytes = 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            # There is none while it ends.
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                kilobytes = int(found[1])
            time.sleep(0.005)
        assert process.returncode == 0
        return kilobytes << 10

    small, large = peak(5_000), peak(100_000)
    assert small and large - small < 8 << 20


def test_progress_on_a_terminal_and_elsewhere(behind: Muse, relay: Relay) -> None:
    write_text(behind.folder / "in.txt", [f"{number}" for number in range(3 * PART)])
    ours, theirs = pty.openpty()
    process = behind.start("tokenize", "in.txt", "out.jsonl", stderr=theirs)
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
    relay.hold_after = PART
    process = behind.start("tokenize", "in.txt", "slow.jsonl", "--in-flight", "1")
    behind.wait_for("slow.jsonl", PART)
    time.sleep(5.5)
    relay.release()
    _, said = process.communicate(timeout=30)
    assert re.search(r"^ *\d+% [\d,]+ sentences, [\d,]+/s, \d+:\d\d:\d\d left$", said, re.MULTILINE)
    assert "\x1b" not in said and "\r" not in said


def test_logging_in_and_out(muse: Muse, url: str) -> None:
    write_text(muse.folder / "in.txt", ["a"])
    for command in ("embed", "in.txt", "out.npy"), ("logout",):
        assert "not logged in: run 'muse login' first" in muse.fails(*command)
    assert "the user's name or the password is wrong" in muse.fails("login", url, "--user", "admin", stdin="wrong\n")
    assert "--user" in muse.fails("login", url, stdin="admin\n")
    assert "no password" in muse.fails("login", url, "--user", "admin")
    assert "is no address of a service" in muse.fails("login", "localhost", "--user", "admin", stdin="admin\n")
    assert not (muse.state / "muse/login.json").exists()
    assert muse.good("login", url, "--user", "admin", stdin="admin\n") == f"logged in to {url} as admin\n"
    kept = muse.state / "muse/login.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert [path.name for path in kept.parent.iterdir()] == ["login.json"]
    tokens = json.loads(kept.read_text())
    assert "admin" not in kept.read_text().replace(tokens["access_token"], "").replace(tokens["refresh_token"], "")
    muse.good("logout")
    assert not kept.exists()
    for path, kind in ("/tokenize?sentence=a", "access_token"), ("/token/refresh", "refresh_token"):
        bearer = {"Authorization": f"Bearer {tokens[kind]}"}
        method = "GET" if kind == "access_token" else "POST"
        assert httpx.request(method, url + path, headers=bearer).json() == {"msg": "Token has been revoked"}
    kept.write_text("{")
    assert "is damaged: remove it and run 'muse login'" in muse.fails("logout")


def test_a_login_asks_on_a_terminal(muse: Muse, url: str) -> None:
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
    # The name is shown as it is typed, the password is not.
    assert shown.split(b"password: ")[1].count(b"admin") == 1


def test_a_login_lives_on_between_commands(muse: Muse, strict_url: str) -> None:
    write_text(muse.folder / "in.txt", ["a"])
    muse.login(strict_url)
    kept = muse.state / "muse/login.json"
    for number in range(2):
        before = json.loads(kept.read_text())
        time.sleep(3.1)
        muse.good("tokenize", "in.txt", f"{number}.jsonl")
        after = json.loads(kept.read_text())
        assert after["access_token"] != before["access_token"] and after["refresh_token"] != before["refresh_token"]
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    muse.good("logout")


def test_help_and_version(muse: Muse) -> None:
    assert muse.good("--version") == "muse 2.0.0\n"
    assert "muse login" in muse.good("--help") or "login" in muse.good("--help")
    shown = muse.good("embed", "--help")
    assert "--column" in shown and "OUTPUT.part" in shown
    assert muse().returncode == 2
