"""The login of a job while other commands log in and out."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest
from muse_command import CHUNK, Muse, read_json_lines, write_text
from relay import Relay

from muse_as_service import Tokens
from muse_as_service.cli.job_login import JobLogin
from muse_as_service.cli.login import SavedLogin


def token(user: str, number: int) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"sub": user, "jti": number}).encode()).decode().rstrip("=")
    return f"h.{claims}.s"


def tokens(user: str, number: int) -> Tokens:
    return Tokens(token(user, number), f"refresh {user} {number}")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_job_shares_renewed_tokens_of_its_login() -> None:
    saved, job = SavedLogin("http://a"), JobLogin("http://a")
    saved.save(tokens("ann", 1))
    assert job.load() == tokens("ann", 1) and job.is_current()
    saved.save(tokens("ann", 2))
    assert job.load() == tokens("ann", 2)
    job.save(tokens("ann", 3))
    assert saved.load() == tokens("ann", 3)


@pytest.mark.parametrize("other", [("http://b", "ann"), ("http://a", "bob")])
def test_job_continues_with_its_tokens_after_another_login(other: tuple[str, str]) -> None:
    url, user = other
    job = JobLogin("http://a")
    SavedLogin("http://a").save(tokens("ann", 1))
    assert job.load() == tokens("ann", 1)
    SavedLogin(url).save(tokens(user, 7))
    assert job.load() == tokens("ann", 1) and not job.is_current()
    job.save(tokens("ann", 2))
    assert job.load() == tokens("ann", 2)
    # The other login is not replaced.
    assert SavedLogin(url).load() == tokens(user, 7)
    SavedLogin(url).save(None)
    job.save(tokens("ann", 3))
    assert job.load() == tokens("ann", 3) and SavedLogin("http://a").load() is None


def test_login_to_another_service_during_a_job_does_not_matter(muse: Muse, strict_url: str, url: str) -> None:
    """The access token expires after 2 s, so that the job must renew it after the other login."""
    muse.login(strict_url)
    reading = muse.folder / "fifo"
    os.mkfifo(reading)
    process = muse.start("tokenize", "fifo", "out.jsonl", "--format", "text")
    with reading.open("w") as file:
        file.write("".join(f"{number}\n" for number in range(CHUNK + 1)))
        file.flush()
        # Until the first request is answered and its token has expired.
        time.sleep(5)
        muse.login(url)
        file.write("end\n")
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert len(read_json_lines(muse.folder / "out.jsonl")) == CHUNK + 2
    assert json.loads((muse.state / "muse/login.json").read_text())["url"] == url


def test_logout_during_a_job_is_reported(muse: Muse, relay: Relay, url: str) -> None:
    muse.login(relay.url)
    write_text(muse.folder / "in.txt", [f"{number}" for number in range(3 * CHUNK)])
    relay.block_after = CHUNK
    process = muse.start("tokenize", "in.txt", "out.jsonl", "--in-flight", "1")
    muse.wait_for("out.jsonl", CHUNK)
    other = Muse(muse.folder)
    # The relay is blocked: log out of the same service directly, with the same tokens.
    saved = muse.state / "muse/login.json"
    saved.write_text(saved.read_text().replace(relay.url, url))
    other.run("logout")
    relay.release()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"the login to {relay.url} is over ('muse logout' or another 'muse login' has replaced it)" in stderr
    assert f"run 'muse login {relay.url}'; 512 sentences are done and saved" in stderr
