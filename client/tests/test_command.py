"""The installed command `muse` against a real stack."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import stat
import subprocess
import time
from datetime import datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import GOLDEN
from muse_command import MUSE, Muse, write_text
from relay import CannedResponse, Relay

from muse_as_service.cli.doctor import Golden


def test_doctor_passes_every_check_of_a_healthy_service(tmp_path: Path, url: str) -> None:
    muse = Muse(tmp_path)
    lines = muse.run("doctor", url, "--user", "admin", stdin="admin\n").splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", check]
        for check in (
            "service",
            "clock",
            "keys",
            "log-in",
            "auth-clock",
            "model",
            "embedders",
            "tokens",
            "vectors",
            "log-out",
        )
    ], lines
    # doctor saves no login. The first checks need none.
    assert not muse.state.exists()
    verdicts = [line.split()[0] for line in muse.run("doctor", url).splitlines()]
    assert verdicts == ["ok"] * 3 + ["skipped"] * 7


def test_doctor_without_a_url_checks_the_service_of_the_login(muse_on_relay: Muse, relay: Relay) -> None:
    relay.requests.clear()
    lines = muse_on_relay.run("doctor").splitlines()
    assert lines[0].startswith(f"ok      service  {relay.url} responds")
    assert relay.requests == ["GET /.well-known/jwks.json"]


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
        CannedResponse(200, {}, "[]"),
        CannedResponse(200, {}, json.dumps({"tokens": [["a"]] * 16})),
        CannedResponse(200, {}, json.dumps({"embedding": [[1.0] + [0.0] * 511] * 16})),
        CannedResponse(500),
    ]
    ran = muse("doctor", relay.url, "--user", "admin", stdin="admin\n")
    found = {line.split()[1]: line for line in ran.stdout.splitlines()}
    assert ran.returncode == 1 and "7 of the checks failed" in ran.stderr
    for check, text in (
        ("clock", "s apart"),
        ("keys", "publishes no key"),
        ("model", "not one of MUSE as Service"),
        ("embedders", "not one of MUSE as Service"),
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


BAD = {
    "columns.csv": (b"a,b\n1,2\n", "columns.csv has no column 'sentence': choose one of a, b with --column"),
    "short.csv": (b"id,sentence\n1,a\n\n2\n", "short.csv, line 4: 1 column, where the header has 2"),
    "quote.csv": (b'sentence\n"a\nb"c\n', "quote.csv, line 2: "),
    "bytes.csv": (b'sentence\n"a, b"\n\xff\n', "bytes.csv, line 3: byte 1 of it (0xff) is not UTF-8"),
    "multi.csv": (b'sentence\n"a\nb"\n', "multi.csv, line 2: a quoted cell does not end in this line"),
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
    assert "cannot write none/out.npy: there is no folder none" in muse_on_stack.fails(
        "embed", "in.txt", "none/out.npy"
    )
    assert "state is not a regular file" in muse_on_stack.fails("embed", "in.txt", "state", "--output-format", "npy")
    assert "tokens cannot be written as .npy" in muse_on_stack.fails("tokenize", "in.txt", "out.npy")
    assert "only jsonl can be written to standard output" in muse_on_stack.fails(
        "embed", "in.txt", "-", "--output-format", "npy"
    )
    assert "cannot determine the format of out, the output," in muse_on_stack.fails("embed", "in.txt", "out")
    os.mkfifo(muse_on_stack.folder / "fifo.jsonl")
    assert "fifo.jsonl is not a regular file" in muse_on_stack.fails("tokenize", "in.txt", "fifo.jsonl", "--overwrite")
    with Path("/dev/full").open("w") as full:
        process = muse_on_stack.start("tokenize", "in.txt", "-", stdout=full)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1 and stderr == "muse: error: cannot write standard output: No space left on device\n"
    assert muse_on_stack("embed", "in.txt", "out.npy", "--in-flight", "0").returncode == 2


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


def test_login_saves_and_logout_deletes_the_tokens(muse: Muse, url: str) -> None:
    write_text(muse.folder / "in.txt", ["a"])
    for command in ("embed", "in.txt", "out.npy"), ("logout",):
        assert "not logged in: run 'muse login' first" in muse.fails(*command)
    assert "the user's name or the password is wrong" in muse.fails("login", url, "--user", "admin", stdin="wrong\n")
    assert "--user" in muse.fails("login", url, stdin="admin\n")
    assert "no password" in muse.fails("login", url, "--user", "admin")
    assert "is not an address of a service" in muse.fails("login", "localhost", "--user", "admin", stdin="admin\n")
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
        assert (
            f"argument --expires-in: {duration!r} is not a time such as 90d, 12h, 30m or 3600 (seconds)" in ran.stderr
        )
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
            assert f"argument {option}: {day!r} is not a day such as 2026-11-29" in ran.stderr
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
