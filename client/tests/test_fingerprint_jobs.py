"""The fingerprint of the model in `muse embed`, `muse tokenize`, `muse info` and `muse doctor`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from muse_command import CHUNK, Muse, write_text
from relay import CannedResponse, Relay

from muse_as_service import MUSEClient

FIRST, SECOND = "f32-111111111111", "f32-222222222222"
ADVICE = "use --restart to start over"


@pytest.fixture
def fingerprint(url: str, api_key: str) -> str:
    """That of the stack."""
    with MUSEClient(url=url, api_key=api_key) as client:
        return str(client.model().fingerprint)


def info(muse: Muse, output: str) -> Any:
    return json.loads(muse.run("info", output, "--json"))


def write_numbers(muse: Muse, count: int = 3 * CHUNK) -> None:
    write_text(muse.folder / "in.txt", [f"{number}" for number in range(count)])


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("embed", "out.npy"),
        ("embed", "out.jsonl"),
        ("embed", "out.jsonl.gz"),
        ("embed", "out.parquet"),
        ("tokenize", "out.jsonl"),
        ("tokenize", "out.parquet"),
    ],
)
def test_each_output_has_the_fingerprint(muse_on_stack: Muse, fingerprint: str, command: str, output: str) -> None:
    muse, folder = muse_on_stack, muse_on_stack.folder
    write_text(folder / "in.txt", ["a", "b"])
    result = json.loads(muse.run(command, "in.txt", output, "--json", "--shard", "2/2"))
    assert result["metadata"]["model"]["fingerprint"] == fingerprint
    if output.endswith("parquet"):
        text = pq.read_schema(folder / output).metadata[b"muse"].decode()
    else:
        text = (folder / f"{output}.meta.json").read_text()
    assert json.loads(text)["model"]["fingerprint"] == fingerprint
    assert info(muse, output)["model"]["fingerprint"] == fingerprint
    assert f"fingerprint {fingerprint}" in muse.run("info", output).splitlines()


def test_checkpoint_has_the_fingerprint(muse_on_stack: Muse, fingerprint: str) -> None:
    (muse_on_stack.folder / "in.txt").write_bytes(b"a\n\xff\n")
    muse_on_stack.fails("embed", "in.txt", "out.npy")
    checkpoint = json.loads((muse_on_stack.folder / "out.npy.part.json").read_text())
    assert (checkpoint["muse_checkpoint"], checkpoint["model"]["fingerprint"]) == (3, fingerprint)


def test_required_fingerprint_is_that_of_the_service(muse_on_stack: Muse, fingerprint: str, url: str) -> None:
    write_text(muse_on_stack.folder / "in.txt", ["a"])
    muse_on_stack.run("embed", "in.txt", "out.npy", "--fingerprint", fingerprint)
    for protocol in [], ["--grpc"]:
        error = muse_on_stack.fails("embed", "in.txt", "x.npy", "--fingerprint", FIRST, *protocol, status=4)
        assert f"{url} has the model with the fingerprint {fingerprint}, where --fingerprint is {FIRST}" in error
    ran = muse_on_stack("embed", "in.txt", "x.npy", "--fingerprint", FIRST, "--json")
    assert ran.returncode == 4 and json.loads(ran.stdout)["exit_status"] == 4
    assert muse_on_stack.files() == {"in.txt", "out.npy", "out.npy.meta.json"}
    for text in "", "f32", "f32-3FA9C07B12DE":
        ran = muse_on_stack("embed", "in.txt", "x.npy", f"--fingerprint={text}")
        assert ran.returncode == 2 and "argument --fingerprint: " in ran.stderr


@pytest.mark.parametrize("command", [("embed", "out.npy"), ("embed", "out.parquet"), ("tokenize", "out.jsonl")])
def test_other_model_is_not_resumed(muse_on_relay: Muse, relay: Relay, command: tuple[str, str]) -> None:
    verb, output = command
    write_numbers(muse_on_relay)
    relay.fingerprint = FIRST
    relay.block_after = CHUNK
    process = muse_on_relay.start(verb, "in.txt", output, "--in-flight", "1")
    muse_on_relay.wait_for(output, CHUNK)
    process.kill()
    process.wait()
    relay.release()
    relay.fingerprint = SECOND
    before = (muse_on_relay.folder / f"{output}.part").read_bytes()
    error = muse_on_relay.fails(verb, "in.txt", output, status=4)
    assert f"{output}.part contains results of the model" in error
    assert FIRST in error and f"{SECOND} now: run the command again when the service has that model" in error
    assert ADVICE in error and relay.sentences == 0
    assert (muse_on_relay.folder / f"{output}.part").read_bytes() == before
    # Also if the option names it.
    assert FIRST in muse_on_relay.fails(verb, "in.txt", output, "--fingerprint", SECOND, status=4)
    error = muse_on_relay.fails(verb, "in.txt", output, "--fingerprint", FIRST, status=4)
    assert f"has the model with the fingerprint {SECOND}, where --fingerprint is {FIRST}" in error
    relay.fingerprint = FIRST
    muse_on_relay.run(verb, "in.txt", output)
    assert relay.sentences == 2 * CHUNK
    assert info(muse_on_relay, output)["model"]["fingerprint"] == FIRST


@pytest.mark.parametrize("output", ["out.npy", "out.jsonl", "out.parquet"])
def test_job_stops_when_the_model_changes(muse_on_relay: Muse, relay: Relay, output: str) -> None:
    """It saves the results of the first model, and resumes when the service has it again."""
    write_numbers(muse_on_relay)
    relay.constant_vectors = True
    relay.fingerprint = FIRST
    muse_on_relay.run("embed", "in.txt", f"expected-{output}")
    relay.release()
    relay.fingerprints = [FIRST, FIRST, SECOND]
    command = ("embed", "in.txt", output, "--in-flight", "1")
    error = muse_on_relay.fails(*command, status=4)
    assert (
        f"{relay.url} has the model with the fingerprint {SECOND} now, where the results of this command are" in error
    )
    assert f"are of {FIRST}; {2 * CHUNK:,} sentences are done and saved: run the same command again when" in error
    assert ADVICE in error
    assert relay.sentences == 2 * CHUNK == muse_on_relay.checkpointed_rows(output)
    relay.fingerprint = FIRST
    muse_on_relay.run(*command)
    assert relay.sentences == 3 * CHUNK
    content = [(muse_on_relay.folder / name).read_bytes() for name in (output, f"expected-{output}")]
    assert content[0] == content[1]


def test_restart_after_a_change_has_the_new_model_only(muse_on_relay: Muse, relay: Relay) -> None:
    write_numbers(muse_on_relay)
    relay.constant_vectors = True
    relay.fingerprints = [FIRST, SECOND]
    relay.fingerprint = FIRST
    muse_on_relay.fails("embed", "in.txt", "out.npy", "--in-flight", "1", status=4)
    muse_on_relay.run("embed", "in.txt", "out.npy", "--restart")
    muse_on_relay.run("embed", "in.txt", "expected.npy")
    assert info(muse_on_relay, "out.npy")["model"]["fingerprint"] == SECOND
    folder = muse_on_relay.folder
    assert np.array_equal(np.load(folder / "out.npy"), np.load(folder / "expected.npy"))


def test_change_before_the_first_result_leaves_nothing(muse_on_relay: Muse, relay: Relay) -> None:
    write_numbers(muse_on_relay)
    relay.fingerprint = FIRST
    relay.fingerprints = [SECOND]
    error = muse_on_relay.fails("embed", "in.txt", "out.npy", "--in-flight", "1", status=4)
    assert error.endswith(f" are of {FIRST}: run the command again\n")
    assert muse_on_relay.files() == {"in.txt"}
    muse_on_relay.run("embed", "in.txt", "out.npy")
    assert info(muse_on_relay, "out.npy")["model"]["fingerprint"] == SECOND


def test_json_error_has_the_exit_status(muse: Muse, api_key: str, url: str) -> None:
    write_text(muse.folder / "in.txt", ["a"])
    muse.environment["MUSE_API_KEY"] = api_key
    for option, status in (("--ca-file=none.pem", 1), (f"--fingerprint={FIRST}", 4)):
        ran = muse("embed", "in.txt", "x.npy", "--json", "--url", url, option)
        assert ran.returncode == status and json.loads(ran.stdout)["exit_status"] == status, ran.stderr


def test_standard_output_ends_when_the_model_changes(muse_on_relay: Muse, relay: Relay) -> None:
    write_numbers(muse_on_relay)
    relay.fingerprint = FIRST
    relay.fingerprints = [FIRST, SECOND]
    ran = muse_on_relay("tokenize", "in.txt", "-", "--in-flight", "1")
    assert ran.returncode == 4 and ran.stdout.count("\n") == CHUNK
    assert FIRST in ran.stderr and SECOND in ran.stderr and "--restart" not in ran.stderr


def test_service_without_fingerprints_has_none_in_outputs(muse_on_relay: Muse, relay: Relay) -> None:
    relay.has_fingerprint = False
    write_text(muse_on_relay.folder / "in.txt", ["a"])
    muse_on_relay.run("embed", "in.txt", "out.npy")
    assert list(info(muse_on_relay, "out.npy")["model"]) == ["id", "version", "precision"]
    assert "fingerprint unknown" in muse_on_relay.run("info", "out.npy").splitlines()
    error = muse_on_relay.fails("embed", "in.txt", "x.npy", "--fingerprint", FIRST, status=4)
    assert f"does not report the fingerprint of its model, where --fingerprint is {FIRST}" in error


def test_results_without_a_fingerprint_are_not_resumed(muse_on_relay: Muse, relay: Relay) -> None:
    """Nobody knows whether they are of the model that the upgraded service has."""
    relay.has_fingerprint = False
    (muse_on_relay.folder / "in.txt").write_bytes(b"a\n\xff\n")
    muse_on_relay.fails("embed", "in.txt", "out.npy")
    relay.has_fingerprint = True
    error = muse_on_relay.fails("embed", "in.txt", "out.npy", status=4)
    assert "out.npy.part contains results of the model" in error and ADVICE in error
    # Those of an earlier client have another checkpoint.
    checkpoint = muse_on_relay.folder / "out.npy.part.json"
    checkpoint.write_text(checkpoint.read_text().replace('"muse_checkpoint": 3', '"muse_checkpoint": 2'))
    error = muse_on_relay.fails("embed", "in.txt", "out.npy")
    assert "is of another version of muse: finish the job with that version, or use --restart" in error


def test_info_of_several_files_compares_their_models(muse_on_relay: Muse, relay: Relay) -> None:
    muse = muse_on_relay
    write_text(muse.folder / "in.txt", ["a", "b", "c"])
    for shard, fingerprint in (1, FIRST), (2, FIRST), (3, SECOND):
        relay.fingerprint = fingerprint
        muse.run("embed", "in.txt", f"{shard}.parquet", "--shard", f"{shard}/3")
    relay.has_fingerprint = False
    muse.run("embed", "in.txt", "old.npy")
    blocks = muse.run("info", "1.parquet", "2.parquet").split("\n\n")
    assert [block.splitlines()[0].split() for block in blocks] == [["file", "1.parquet"], ["file", "2.parquet"]]
    lines = muse.run("info", "1.parquet", "2.parquet", "--json").splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["1.parquet", "2.parquet"]
    ran = muse("info", "1.parquet", "2.parquet", "3.parquet")
    assert ran.returncode == 4 and ran.stdout.count(FIRST) == 2 and ran.stdout.count(SECOND) == 1
    text = f"the files are of different models, do not compare their vectors: 1.parquet is of {FIRST}, 3.parquet is of"
    assert f"muse: error: {text} {SECOND}\n" == ran.stderr
    ran = muse("info", "1.parquet", "old.npy")
    assert (
        ran.returncode == 4
        and "old.npy is of universal-sentence-encoder-multilingual 3 f32 without a fingerprint" in (ran.stderr)
    )
    muse.run("info", "old.npy", "old.npy")


def doctor(muse: Muse, url: str, *options: str) -> tuple[int, dict[str, str]]:
    ran = muse("doctor", url, "--user", "admin", *options, stdin="admin\n")
    return ran.returncode, {line.split()[1]: line for line in ran.stdout.splitlines()}


def test_doctor_compares_the_fingerprint(muse: Muse, url: str, fingerprint: str) -> None:
    status, found = doctor(muse, url, "--fingerprint", fingerprint)
    assert status == 0 and found["model"].endswith(f", fingerprint {fingerprint}")
    assert found["embedders"] == "ok      embedders 1 of 1 embedders serve, with one model"
    status, found = doctor(muse, url, "--fingerprint", FIRST)
    assert status == 1 and found["model"].startswith("FAILED")
    assert f"fingerprint {fingerprint}, where {FIRST} is required" in found["model"]
    assert muse("doctor", url, "--fingerprint", "x").returncode == 2


def test_doctor_names_embedders_with_another_model(muse: Muse, relay: Relay, fingerprint: str) -> None:
    embedders = [
        {"version": "2", "precision": precision, "device": "cpu", "fingerprint": name, "used": used, "started_at": 60}
        for precision, name, used in (("f32", fingerprint, True), ("bf16", SECOND, False), ("f16", None, False))
    ]
    body = {"model": {"fingerprint": fingerprint}, "embedders": embedders, "embedders_known": 3, "embedders_serving": 1}
    relay.responses = [CannedResponse(200, {}, json.dumps(body), path="/api/status")]
    status, found = doctor(muse, relay.url)
    assert status == 1 and found["embedders"].startswith("FAILED")
    assert "2 of 3 embedders get no calls" in found["embedders"] and fingerprint in found["embedders"]
    assert f"{SECOND} (bf16 on cpu, started at 1970-01-01T00:01:00Z), no fingerprint (f16 on cpu" in found["embedders"]
    body_without_model = {**body, "model": None, "problem": "all of them start", "embedders_serving": 0}
    relay.responses = [CannedResponse(200, {}, json.dumps(body_without_model), path="/api/status")]
    status, found = doctor(muse, relay.url)
    assert status == 1 and found["embedders"].endswith("no embedder describes the model: all of them start")
    # Services of earlier releases report no embedders, or not whether they are used.
    for response in (
        CannedResponse(404, {}, "{}", path="/api/status"),
        CannedResponse(200, {}, json.dumps({**body, "embedders": [{"precision": "f32"}]}), path="/api/status"),
    ):
        relay.responses = [response]
        assert doctor(muse, relay.url)[0] == 0


def test_doctor_reports_responses_of_several_models(muse: Muse, relay: Relay) -> None:
    relay.fingerprint = FIRST
    relay.fingerprints = [SECOND, FIRST]
    status, found = doctor(muse, relay.url)
    assert status == 1 and f"of a model with the fingerprint {SECOND}" in found["tokens"]
    assert found["vectors"].startswith("ok")
