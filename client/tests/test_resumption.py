"""Interrupted jobs of `muse embed` and `muse tokenize` continue where they stopped."""

from __future__ import annotations

import re
import signal
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest
from muse_command import CHUNK, MUSE, Muse, read_json_lines, write_text
from relay import CannedResponse, Relay


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
    assert muse_on_relay.files() == {"in.txt", "out.npy", "out.npy.meta.json"}
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
    assert muse_on_relay.files() == {"in.txt", output, *([f"{output}.meta.json"] if kind == "jsonl" else [])}


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
        429,
        {"Retry-After": "1", "X-Should-Retry": "false"},
        '{"message": "The quota of the user is exhausted"}',
        path="/tokenize",
    )
    # The first request is for the description of the model.
    relay.responses = [None, None, exhausted]
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


def test_resuming_with_another_model_is_an_error(muse_on_relay: Muse, relay: Relay) -> None:
    """Of a service without fingerprints; test_fingerprint_jobs.py has the tests of others."""
    relay.has_fingerprint = False
    write_text(muse_on_relay.folder / "in.txt", [f"{number}" for number in range(3 * CHUNK)])
    relay.block_after = CHUNK
    process = muse_on_relay.start("embed", "in.txt", "out.npy", "--in-flight", "1")
    muse_on_relay.wait_for("out.npy", CHUNK)
    process.terminate()
    process.wait()
    relay.release()
    relay.precision = "other"
    before = (muse_on_relay.folder / "out.npy.part").read_bytes()
    error = muse_on_relay.fails("embed", "in.txt", "out.npy", status=4)
    assert re.search(
        r"out\.npy\.part contains results of the model \S+ \S+ f32, but \S+ has the model .* other now", error
    )
    assert "use --restart" in error
    assert (muse_on_relay.folder / "out.npy.part").read_bytes() == before
    relay.precision = None
    muse_on_relay.run("embed", "in.txt", "out.npy")
    assert np.load(muse_on_relay.folder / "out.npy").shape == (3 * CHUNK, 512)


def test_model_that_changes_during_a_job_is_an_error(muse_on_relay: Muse, relay: Relay) -> None:
    """Of a service without fingerprints."""
    relay.has_fingerprint = False
    write_text(muse_on_relay.folder / "in.txt", [f"{number}" for number in range(3 * CHUNK)])
    relay.block_after = CHUNK
    process = muse_on_relay.start("embed", "in.txt", "out.npy", "--in-flight", "1")
    muse_on_relay.wait_for("out.npy", CHUNK)
    relay.precision = "other"
    relay.release()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 4 and " other while the command ran: use --restart to start over\n" in stderr
    # The results after the checkpoint may be of either model.
    assert muse_on_relay.checkpointed_rows("out.npy") == CHUNK
    assert (muse_on_relay.folder / "out.npy.part").stat().st_size == 128 + CHUNK * 2048


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_results_of_a_model_between_checkpoints_are_discarded(
    muse_on_relay: Muse, relay: Relay, how: signal.Signals
) -> None:
    """A service without fingerprints has another model for a while, which ends before the command is resumed."""
    relay.has_fingerprint = False
    sentences = [f"{number}" for number in range(3 * CHUNK)]
    write_text(muse_on_relay.folder / "in.txt", sentences)
    relay.constant_vectors = True
    muse_on_relay.run("embed", "in.txt", "expected.npy")
    relay.block_after = relay.sentences + CHUNK
    process = muse_on_relay.start("embed", "in.txt", "out.npy", "--in-flight", "1")
    muse_on_relay.wait_for("out.npy", CHUNK)
    relay.precision = "other"
    relay.model_unblocked.clear()
    relay.model_requested.clear()
    relay.release()
    # The command has results of the other model, and wants to save them.
    assert relay.model_requested.wait(60)
    process.send_signal(how)
    process.wait()
    relay.precision = None
    relay.model_unblocked.set()
    muse_on_relay.run("embed", "in.txt", "out.npy")
    found, expected = (np.load(muse_on_relay.folder / name) for name in ("out.npy", "expected.npy"))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (["--dtype", "float16"], "with --dtype float32, not float16"),
        (["--dedup"], "with --dedup off, not on"),
        (["--shard", "1/2"], "with --shard 1/1, not 1/2"),
        (["--output-format", "jsonl"], "with --output-format npy, not jsonl"),
    ],
)
def test_resuming_with_other_options_is_an_error(muse_on_stack: Muse, option: list[str], text: str) -> None:
    (muse_on_stack.folder / "in.txt").write_bytes(b"a\nb\n\xff\n")
    muse_on_stack.fails("embed", "in.txt", "out.npy")
    error = muse_on_stack.fails("embed", "in.txt", "out.npy", *option)
    assert text in error and "--restart" in error


def test_resuming_with_other_columns_is_an_error(muse_on_stack: Muse) -> None:
    data = muse_on_stack.folder / "in.csv"
    data.write_bytes(b"title,body,a\nx,x,1\n\xff")
    muse_on_stack.fails("tokenize", "in.csv", "out.jsonl", "--column", "title", "--keep", "*")
    data.write_bytes(b"title,body,a\nx,x,1\ny,z,2\n")
    other = muse_on_stack.fails("tokenize", "in.csv", "out.jsonl", "--column", "body", "--keep", "*")
    assert "--column" in other and "--restart" in other and "resume" not in other.partition("--restart")[2]
    data.write_bytes(b"title,body,b\nx,x,1\ny,z,2\n")
    renamed = muse_on_stack.fails("tokenize", "in.csv", "out.jsonl", "--column", "title", "--keep", "*")
    assert "columns" in renamed and "--restart" in renamed


def test_restart_discards_old_results_only_for_new_ones(muse_on_relay: Muse, relay: Relay) -> None:
    good = [f"{number}" for number in range(CHUNK)]
    (muse_on_relay.folder / "in.txt").write_bytes("".join(f"{line}\n" for line in good).encode() + b"\xff\n")
    muse_on_relay.fails("tokenize", "in.txt", "out.jsonl")
    saved = {name: (muse_on_relay.folder / name).read_bytes() for name in ("out.jsonl.part", "out.jsonl.part.json")}
    (muse_on_relay.folder / "empty.txt").touch()
    (muse_on_relay.folder / "bad.txt").write_bytes(b"\xff\n")
    for name in "mistyped.txt", "empty.txt", "bad.txt":
        muse_on_relay.fails("tokenize", name, "out.jsonl", "--restart")
        assert {name: (muse_on_relay.folder / name).read_bytes() for name in saved} == saved
    write_text(muse_on_relay.folder / "in.txt", [*good, "end"])
    relay.sentences = 0
    muse_on_relay.run("tokenize", "in.txt", "out.jsonl")
    assert relay.sentences == 1
    muse_on_relay.run("tokenize", "in.txt", "out.jsonl", "--restart", "--overwrite")
    assert relay.sentences == CHUNK + 2


def test_damaged_or_older_checkpoint_is_reported(muse_on_stack: Muse) -> None:
    folder = muse_on_stack.folder
    (folder / "in.txt").write_bytes(b"a\nb\n\xff\n")
    muse_on_stack.fails("tokenize", "in.txt", "out.jsonl")
    checkpoint = (folder / "out.jsonl.part.json").read_text()
    for content, text in (
        (checkpoint[:40], "out.jsonl.part.json is damaged: use --restart to start over"),
        ('{"purpose": "muse tokenize to JsonLines", "rows": 2}', "is of an older version of muse: use --restart"),
        (checkpoint.replace('"muse_checkpoint": 3', '"muse_checkpoint": 99'), "is of another version of muse"),
    ):
        (folder / "out.jsonl.part.json").write_text(content)
        assert text in muse_on_stack.fails("tokenize", "in.txt", "out.jsonl")
        assert (folder / "out.jsonl.part").stat().st_size > 0
    write_text(folder / "in.txt", ["a", "b"])
    muse_on_stack.run("tokenize", "in.txt", "out.jsonl", "--restart")
    assert muse_on_stack.files() == {"in.txt", "out.jsonl", "out.jsonl.meta.json"}


@pytest.mark.parametrize("output", ["out.jsonl.gz", "out.jsonl.bz2", "out.jsonl.zst", "out.npy", "out.parquet"])
def test_resumed_output_has_the_same_bytes(muse_on_relay: Muse, relay: Relay, output: str) -> None:
    """Also with columns to keep and with repeated and skipped rows. The vectors come from a fixed response."""
    lines = [f'{{"id": {number}, "sentence": "{number % 2_000}"}}\n' for number in range(5 * CHUNK)]
    lines[700] = "{\n"
    (muse_on_relay.folder / "in.jsonl").write_text("".join(lines))
    command = ["embed", "in.jsonl", output, "--keep", "id", "--dedup", "--on-error", "skip", "--in-flight", "1"]
    relay.constant_vectors = True

    def finished() -> dict[str, bytes]:
        names = sorted(muse_on_relay.files() - {"in.jsonl"})
        content = {name: (muse_on_relay.folder / name).read_bytes() for name in names}
        for name in names:
            (muse_on_relay.folder / name).unlink()
        return content

    assert muse_on_relay(*command).returncode == 3
    whole = finished()
    for rows in 1, CHUNK + 1, 2 * CHUNK + 1:
        relay.release()
        relay.block_after = 1
        process = muse_on_relay.start(*command)
        muse_on_relay.wait_for(output, rows)
        process.kill()
        process.wait()
    relay.release()
    assert muse_on_relay(*command).returncode == 3
    assert finished() == whole


def test_interruption_before_the_first_response_leaves_nothing(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", ["a"])
    relay.unblocked.clear()
    process = muse_on_relay.start("embed", "in.txt", "out.npy")
    assert relay.blocked.wait(60)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "muse: stopped\n")
    assert muse_on_relay.files() == {"in.txt"}
