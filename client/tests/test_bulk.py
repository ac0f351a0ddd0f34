"""The options of `muse embed` and `muse tokenize` that change which rows are processed, and how."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from muse_command import CHUNK, Muse, read_json_lines, write_text
from relay import Relay


def test_several_inputs_are_one_output(muse_on_stack: Muse) -> None:
    folder = muse_on_stack.folder
    for name, sentences in ("a.txt", ["a", "b"]), ("b.txt", ["c"]), ("c.txt", ["d"]):
        write_text(folder / name, sentences)
    # Options may be between the names.
    for output, arguments in (
        ("1.jsonl", ["a.txt", "b.txt", "c.txt", "1.jsonl"]),
        ("2.jsonl", ["a.txt", "b.txt", "--in-flight", "2", "c.txt", "2.jsonl"]),
        ("3.jsonl", ["a.txt", "--in-flight", "2", "b.txt", "c.txt", "--grpc", "3.jsonl"]),
    ):
        muse_on_stack.run("tokenize", *arguments)
        assert [line["sentence"] for line in read_json_lines(folder / output)] == ["a", "b", "c", "d"]
        assert json.loads(muse_on_stack.run("info", output, "--json"))["sources"] == ["a.txt", "b.txt", "c.txt"]
    for arguments in ["a.txt"], ["a.txt", "b.txt", "--unknown", "4.jsonl"], []:
        assert muse_on_stack("tokenize", *arguments).returncode == 2


def test_shards_are_every_nth_row(muse_on_stack: Muse) -> None:
    sentences = [f"{number}" for number in range(2 * CHUNK + 3)]
    write_text(muse_on_stack.folder / "in.txt", sentences)
    found = []
    for shard in range(1, 4):
        muse_on_stack.run("tokenize", "in.txt", f"{shard}.jsonl", "--shard", f"{shard}/3")
        found.append([line["sentence"] for line in read_json_lines(muse_on_stack.folder / f"{shard}.jsonl")])
    assert found == [sentences[0::3], sentences[1::3], sentences[2::3]]
    for text in "0/3", "4/3", "1", "a/b", "1/0", "-1/2", "1/2/3":
        ran = muse_on_stack("tokenize", "in.txt", "out.jsonl", f"--shard={text}")
        assert ran.returncode == 2 and f"'{text}' is not a shard I/N" in ran.stderr


def test_shards_of_parquet_are_merged_as_documented(muse_on_stack: Muse, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [f"{number}" for number in range(1_000)]
    write_text(muse_on_stack.folder / "in.txt", sentences)
    for shard in range(1, 5):
        muse_on_stack.run("tokenize", "in.txt", f"big-{shard}.parquet", "--shard", f"{shard}/4")
    page = (Path(__file__).parents[2] / "docs/api/cli.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(muse_on_stack.folder)
    exec(compile(code, "cli.md", "exec"), {})
    assert pq.read_table("big.parquet")["sentence"].to_pylist() == sentences


@pytest.mark.parametrize("output", ["-o", "--output"])
def test_output_as_an_option_is_explained(muse: Muse, output: str) -> None:
    ran = muse("embed", "in.txt", output, "out.npy")
    assert ran.returncode == 2 and ran.stderr.startswith("usage: muse embed ")
    assert f"unrecognized arguments: {output} (OUTPUT is the last of the names, without an option)" in ran.stderr


@pytest.mark.parametrize("output", ["out.npy", "out.jsonl", "out.parquet", "-"])
def test_dedup_embeds_each_sentence_once(muse_on_relay: Muse, relay: Relay, output: str) -> None:
    # Repeated within a request, and of earlier ones.
    sentences = [f"{number % 700}" for number in range(3_000)]
    write_text(muse_on_relay.folder / "in.txt", sentences)
    relay.constant_vectors = True
    relay.sentences = 0
    out = muse_on_relay.run("embed", "in.txt", output, "--dedup")
    assert relay.sentences == 700
    relay.sentences = 0
    muse_on_relay.run("embed", "in.txt", "all.npy")
    assert relay.sentences == 3_000
    expected = np.load(muse_on_relay.folder / "all.npy")
    found = _vectors(muse_on_relay, output, out)
    assert np.array_equal(found, expected)


def test_dedup_of_a_resumed_job_embeds_no_sentence_again(muse_on_relay: Muse, relay: Relay) -> None:
    sentences = [f"{number % 1_500}" for number in range(4_000)]
    write_text(muse_on_relay.folder / "in.txt", sentences)
    relay.constant_vectors = True
    relay.block_after = 2 * CHUNK
    process = muse_on_relay.start("embed", "in.txt", "out.npy", "--dedup", "--in-flight", "1")
    muse_on_relay.wait_for("out.npy", 2 * CHUNK)
    process.kill()
    process.wait()
    relay.release()
    result = json.loads(muse_on_relay.run("embed", "in.txt", "out.npy", "--dedup", "--json"))
    assert relay.sentences == 1_500 - 2 * CHUNK
    assert (result["rows"], result["distinct"], result["resumed"]) == (4_000, 1_500, 2 * CHUNK)
    muse_on_relay.run("embed", "in.txt", "all.npy")
    folder = muse_on_relay.folder
    assert (folder / "out.npy").read_bytes() == (folder / "all.npy").read_bytes()
    assert not [name for name in muse_on_relay.files() if ".part" in name]


LONG = "x y " * 5_000
"""More tokens than the service accepts in a sentence."""


@pytest.mark.parametrize("output", ["out.npy", "out.jsonl", "out.parquet"])
@pytest.mark.parametrize("dedup", [[], ["--dedup"]])
def test_skipped_rows_are_reported(muse_on_stack: Muse, output: str, dedup: list[str]) -> None:
    rows = ["a", LONG, "b", "a", LONG, "c"]
    lines = [json.dumps(row) for row in rows]
    lines[2:2] = ["{"]
    (muse_on_stack.folder / "in.jsonl").write_text("\n".join(lines) + "\n")
    ran = muse_on_stack("embed", "in.jsonl", output, "--on-error", "skip", "--json", *dedup)
    assert ran.returncode == 3 and ran.stderr == f"muse: skipped 3 rows: see {output}.skipped.jsonl\n"
    result = json.loads(ran.stdout)
    assert (result["rows"], result["skipped"], result["report"]) == (4, 3, f"{output}.skipped.jsonl")
    report = read_json_lines(muse_on_stack.folder / f"{output}.skipped.jsonl")
    assert [(row["file"], row["line"]) for row in report] == [("in.jsonl", 2), ("in.jsonl", 3), ("in.jsonl", 6)]
    assert "too long" in report[0]["problem"] and "not JSON" in report[1]["problem"]
    assert "too long" in report[2]["problem"] or report[2]["problem"].startswith("the service has rejected")
    assert len(_vectors(muse_on_stack, output, "")) == 4
    assert json.loads(muse_on_stack.run("info", output, "--json"))["skipped"] == 3
    # Without the option the rows before the first invalid one are saved.
    assert "in.jsonl, line 2: the sentence is too long" in muse_on_stack.fails("embed", "in.jsonl", "fail.npy", *dedup)
    assert muse_on_stack.checkpointed_rows("fail.npy") == 1
    # A later command without invalid rows replaces the report, too.
    write_text(muse_on_stack.folder / "good.txt", ["a"])
    muse_on_stack.run("embed", "good.txt", output, "--overwrite")
    assert not (muse_on_stack.folder / f"{output}.skipped.jsonl").exists()


def test_job_with_skipped_rows_is_not_resumed_without_the_option(muse_on_stack: Muse) -> None:
    (muse_on_stack.folder / "in.jsonl").write_bytes(b'"a"\n{\n"b"\n' + b'"c"\n' * CHUNK + b"\xff\n")
    muse_on_stack.fails("tokenize", "in.jsonl", "out.jsonl", "--on-error", "skip")
    error = muse_on_stack.fails("tokenize", "in.jsonl", "out.jsonl")
    assert "was started with --on-error skip and lacks 1 row: use the same option, or --restart" in error


def test_slow_service_gets_smaller_requests(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", [f"{number}" for number in range(CHUNK + 40)])
    # The service can compute some 30 sentences within the timeout.
    relay.seconds_per_sentence = 0.03
    muse_on_relay.run("tokenize", "in.txt", "out.jsonl", "--timeout", "1", "--in-flight", "1")
    lines = read_json_lines(muse_on_relay.folder / "out.jsonl")
    assert [line["sentence"] for line in lines] == [f"{number}" for number in range(CHUNK + 40)]
    assert relay.sizes[:6] == [512, 256, 128, 64, 32, 16] or relay.sizes[:5] == [512, 256, 128, 64, 32]
    # Later requests have the size that succeeds.
    assert max(relay.sizes[6:]) <= 64


def test_service_that_is_too_slow_for_one_sentence_is_reported(muse_on_relay: Muse, relay: Relay) -> None:
    write_text(muse_on_relay.folder / "in.txt", ["a", "b"])
    relay.seconds_per_sentence = 1.0
    ran = muse_on_relay("tokenize", "in.txt", "out.jsonl", "--timeout", "0.3", "--retry-for", "2")
    # The lines before say that the command waits.
    error = ran.stderr.splitlines()[-1]
    assert ran.returncode == 1
    assert "does not respond within 0.3 s, not even to one sentence: set a longer --timeout" in error
    assert relay.sizes[:2] == [2, 1]
    for timeout in "0", "-1", "nan", "inf", "x":
        ran = muse_on_relay("tokenize", "in.txt", "out.jsonl", f"--timeout={timeout}")
        assert ran.returncode == 2 and f"{timeout} is not a number of seconds" in ran.stderr


def test_json_prints_one_object(muse_on_stack: Muse) -> None:
    write_text(muse_on_stack.folder / "in.txt", ["a", "b"])
    ran = muse_on_stack("embed", "in.txt", "out.npy", "--json")
    result = json.loads(ran.stdout)
    assert ran.returncode == 0 and ran.stderr == "" and ran.stdout.count("\n") == 1
    assert (result["output"], result["rows"], result["resumed"], result["skipped"]) == ("out.npy", 2, 0, 0)
    assert result["metadata"]["model"]["precision"] == "f32" and result["seconds"] > 0
    ran = muse_on_stack("embed", "in.txt", "out.npy", "--json")
    assert ran.returncode == 1 and ran.stderr.startswith("muse: error: out.npy, the output, exists already")
    error = json.loads(ran.stdout)
    assert error["exit_status"] == 1 and error["error"].startswith("out.npy, the output, exists already")
    ran = muse_on_stack("tokenize", "in.txt", "-", "--json")
    assert ran.returncode == 2 and "standard output contains the results if OUTPUT is -" in ran.stderr


@pytest.mark.parametrize(
    "option", [("--column", "a"), ("--format", "text"), ("--keep", "a"), ("--timeout", "9"), ("--dtype", "float32")]
)
def test_repeated_option_is_an_error(muse: Muse, option: tuple[str, str]) -> None:
    ran = muse("embed", "in.txt", "out.npy", *option, *option)
    assert ran.returncode == 2 and f"argument {option[0]}: it is given twice" in ran.stderr


def _vectors(muse: Muse, output: str, printed: str) -> Any:
    path: Path = muse.folder / output
    if output == "-":
        return np.array([json.loads(line)["embedding"] for line in printed.splitlines()], np.float32)
    if output.endswith(".npy"):
        return np.load(path)
    if output.endswith(".jsonl"):
        return np.array([line["embedding"] for line in read_json_lines(path)], np.float32)
    import pyarrow.parquet as pq

    return np.array(pq.read_table(path)["embedding"].to_pylist(), np.float32)
