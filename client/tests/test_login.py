"""The commands `login`, `logout` and `doctor` under unusual input and environments."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from muse_command import MUSE, Muse
from relay import CannedResponse, Relay

import muse_as_service
from muse_as_service import MUSEClient
from muse_as_service.cli import Failure
from muse_as_service.cli.login import SavedLogin

NO_HOME = "muse: error: this user has no home directory for the login: set XDG_STATE_HOME to a folder\n"


@pytest.fixture
def muse(tmp_path: Path) -> Muse:
    return Muse(tmp_path)


def run_bytes(muse: Muse, *arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [MUSE, *arguments], cwd=muse.folder, env={**muse.environment, **environment}, input=stdin, capture_output=True
    )
    return subprocess.CompletedProcess(ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode())


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "latin-1"}])
def test_password_that_is_not_utf8_is_reported(muse: Muse, url: str, locale: dict[str, str]) -> None:
    for command in "login", "doctor":
        ran = run_bytes(muse, command, url, "--user", "admin", stdin=b"caf\xe9\n", **locale)
        expected = "the password is not UTF-8 (byte 4 of the first line of standard input): convert it to UTF-8"
        assert (ran.returncode, ran.stderr) == (1, f"muse: error: {expected}\n")
    ran = run_bytes(muse, "login", url, "--user", "admin", stdin=b"admin\r\n", **locale)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_name_that_is_not_utf8_is_reported(muse: Muse, url: str) -> None:
    ran = subprocess.run(
        [MUSE, "login", url, "--user", b"caf\xe9"], env=muse.environment, input=b"admin\n", capture_output=True
    )
    assert (ran.returncode, ran.stderr) == (1, b"muse: error: the name of the user is not valid text\n")


def test_closed_standard_input_is_reported(muse: Muse, url: str) -> None:
    ran = subprocess.run(
        ["bash", "-c", 'exec "$@" <&-', "-", MUSE, "login", url, "--user", "admin"],
        env=muse.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 1 and ran.stderr.startswith("muse: error: no password: ")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ((b"\x04",), "no user name: type it, or use --user"),
        ((b"\n",), "no user name: type it, or use --user"),
        ((b"admin\n", b"\x04"), "no password: pass it in the first line of standard input, or type it on a terminal"),
        ((b"admin\n", b"\xff\n"), "the password is not valid text"),
    ],
)
def test_ctrl_d_at_a_prompt_is_reported(muse: Muse, url: str, keys: tuple[bytes, ...], message: str) -> None:
    ours, theirs = pty.openpty()
    process = muse.start("login", url, stdin=theirs, stderr=theirs, stdout=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    for question, answer in zip((b"user: ", b"password: "), keys):
        while not shown.endswith(question):
            shown += os.read(ours, 1_024)
        time.sleep(0.1)
        os.write(ours, answer)
    try:
        while part := os.read(ours, 1_024):
            shown += part
    except OSError:
        # The terminal is closed.
        pass
    assert process.wait(30) == 1
    assert f"muse: error: {message}" in shown.decode() and "Traceback" not in shown.decode()


# A user without an entry in the database of users, such as that of a container.
WITHOUT_ENTRY = """
import pwd, sys
def no_entry(uid): raise KeyError(uid)
pwd.getpwuid = no_entry
from muse_as_service.cli.main import run
run()
"""


def test_missing_home_is_reported_where_it_is_needed(muse: Muse, url: str, api_key: str) -> None:
    del muse.environment["XDG_STATE_HOME"]
    muse.environment.pop("HOME", None)
    (muse.folder / "in.txt").write_text("a\n")

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_ENTRY, *arguments]
        return subprocess.run(
            command, cwd=muse.folder, env=muse.environment, input=stdin, capture_output=True, text=True
        )

    for command in (["login", url, "--user", "admin"], ["logout"], ["embed", "in.txt", "out.npy"], ["key", "list"]):
        ran = run(*command, stdin="admin\n")
        assert (ran.returncode, ran.stderr) == (1, NO_HOME), command
    # Without a login there is nothing to store.
    ran = run("doctor", url, "--user", "admin", stdin="admin\n")
    assert ran.returncode == 0, ran.stderr
    muse.environment["MUSE_API_KEY"] = api_key
    ran = run("tokenize", "in.txt", "-", "--url", url)
    assert ran.returncode == 0 and json.loads(ran.stdout)["tokens"] == ["▁a"]
    assert run("key", "describe", "--url", url).returncode == 0


def test_commands_report_at_once_that_they_wait(muse: Muse, relay: Relay) -> None:
    muse.login(relay.url)
    relay.stop()
    for command in (["logout"], ["login", relay.url, "--user", "admin"], ["key", "list"], ["usage"]):
        process = muse.start(*command, stdin=subprocess.PIPE)
        assert process.stdin and process.stderr
        process.stdin.write("admin\n")
        process.stdin.close()
        start = time.monotonic()
        line = process.stderr.readline()
        assert time.monotonic() - start < 5
        process.kill()
        process.wait()
        assert line.startswith(f"cannot reach {relay.url} (")
        assert line.endswith("): is the service running there? Retrying for up to 60 s\n"), line


def test_notice_is_printed_once_for_all_requests(muse: Muse, relay: Relay) -> None:
    muse.login(relay.url)
    (muse.folder / "in.txt").write_text("a\n" * 5_000)
    relay.responses = [CannedResponse(503, {"Retry-After": "1"}, '{"message": "not ready"}')] * 4
    ran = muse("tokenize", "in.txt", "out.jsonl", "--in-flight", "4")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("503: not ready. Retrying for up to 300 s\n") == 1


def test_login_stores_the_absolute_path_of_the_ca_file(muse: Muse, url: str) -> None:
    pem = Path(__file__).parent / "certificates/ca.pem"
    (muse.folder / "ca.pem").write_text(pem.read_text())
    muse.run("login", url, "--user", "admin", "--ca-file", "ca.pem", stdin="admin\n")
    saved = json.loads((muse.state / "muse/login.json").read_text())
    assert saved["ca_file"] == str(muse.folder / "ca.pem")
    (muse.folder / "other").mkdir()
    ran = subprocess.run([MUSE, "logout"], cwd=muse.folder / "other", env=muse.environment, capture_output=True)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_login_that_cannot_be_deleted_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    # Root may delete all files, but no folder like a file.
    (tmp_path / "muse/login.json").mkdir(parents=True)
    with pytest.raises(Failure, match="cannot delete the login in "):
        SavedLogin(url).save(None)


@pytest.mark.parametrize("grpc", [False, True])
def test_client_adopts_the_tokens_of_a_new_login(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grpc: bool
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    login = SavedLogin(url)
    with login.client() as client:
        client.login("admin", "admin")
    with SavedLogin.read().client(grpc=grpc) as job:
        job.tokenize(["a"])
        # Another process logs out and in again.
        with SavedLogin.read().client() as other:
            other.logout()
            other.login("admin", "admin")
        time.sleep(1)
        assert job.tokenize(["a"]) == [["▁a"]]
        job.logout()


def test_module_is_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "muse_as_service", "--version"], capture_output=True, text=True)
    assert ran.stdout == f"muse {muse_as_service.__version__}\n"


@pytest.mark.parametrize(
    "url",
    ["http://localhost:5000\n", " http://localhost", "http://local host", "http://localhost/\x00", "http://a..b",
     "http://" + "a" * 64, "http://[::1", "http://localhost:99999", "http://localhost\\x", "http://a\tb"],
)  # fmt: skip
def test_url_with_other_characters_raises_value_error(url: str, tmp_path: Path) -> None:
    for grpc in False, True:
        with pytest.raises(ValueError, match="is not an address of a service") as caught:
            MUSEClient(url=url, grpc=grpc)
        assert "\n" not in str(caught.value)
    if "\x00" not in url:
        ran = Muse(tmp_path)("doctor", url)
        assert (ran.returncode, ran.stderr.count("\n")) == (1, 1) and "is not an address of a service" in ran.stderr


@pytest.mark.parametrize(
    ("ip", "example"),
    [
        ("localhost:5000", "http://localhost:5000"),
        ("10.0.0.1:80", "http://10.0.0.1:80"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("muse:port", "http://HOST:5000"),
    ],
)
def test_ip_with_a_port_raises_value_error(ip: str, example: str) -> None:
    with pytest.raises(ValueError, match="where only a host name or IP address is expected: pass port=") as caught:
        MUSEClient(ip=ip)
    assert f"url='{example}'" in str(caught.value)


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        ("::1", "http://[::1]:5000"),
        ("[::1]", "http://[::1]:5000"),
        ("10.0.0.1", "http://10.0.0.1:5000"),
        ("muse", "http://muse:5000"),
    ],
)
def test_ip_is_an_address_or_a_name(ip: str, url: str) -> None:
    assert MUSEClient(ip=ip).url == url
    httpx.URL(url)


def test_password_that_is_not_text_raises_value_error(url: str) -> None:
    for grpc in False, True:
        with MUSEClient(url=url, grpc=grpc) as client:
            with pytest.raises(ValueError, match="the password is not valid text"):
                client.login("admin", "pass\udce9")
            with pytest.raises(ValueError, match="the name of the user is not valid text"):
                client.login("\udce9", "admin")
