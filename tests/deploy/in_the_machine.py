"""Tests the systemd units. Runs as root in a container that systemd has booted, with the stack installed: executes the commands of
docs/operations/systemd.md, then tests failures and restarts. Prints each command; exits with an error at the first failed check."""

import json
import os
import pathlib
import pwd
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request

SERVICES = ("muse-auth", "muse-embedder", "muse-gateway")
PASSWORD = "a long password"
SETTINGS = pathlib.Path("/etc/muse")
TIMEOUT_S = 60


def run(*command, **options):
    print("#", *command, flush=True)
    return subprocess.run(command, check=True, timeout=TIMEOUT_S, text=True, stdout=subprocess.PIPE, **options).stdout


def show(service, name):
    return run("systemctl", "show", "--value", f"--property={name}", service).strip()


def wait_until(what, condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"timeout after {TIMEOUT_S} s: {what}"
        time.sleep(0.2)


def post_form(path, fields, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request("http://127.0.0.1:5000" + path, urllib.parse.urlencode(fields).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return json.load(response)


def embed(token):
    (vector,) = post_form("/embed", {"sentence": "Where is the library?"}, token)["embedding"]
    assert len(vector) == 512


def check_start(guide):
    """`guide`: the commands of docs/operations/systemd.md after `make install`."""
    run("systemd-analyze", "verify", "muse.target", *(f"{service}.service" for service in SERVICES))
    run("bash", "-euc", 'sudo() { "$@"; }\n' + guide)
    for service in SERVICES:
        assert show(service, "ActiveState") == "active", run("systemctl", "status", service)
    token = post_form("/login", {"username": "admin", "password": PASSWORD})["access_token"]
    embed(token)
    return token


def check_sandbox():
    for service in SERVICES:
        process = pathlib.Path("/proc") / show(service, "MainPID")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert status["Uid"].split()[0] == str(pwd.getpwnam(service).pw_uid), service
        assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapBnd"], 16)) == ("1", "2", 0), service
        (core,) = [line for line in (process / "limits").read_text().splitlines() if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"], core
    data = pathlib.Path("/var/lib/muse")
    assert (data.owner(), data.stat().st_mode & 0o777) == ("muse-auth", 0o700)


def check_adding_a_user():
    database = ("--database", "/var/lib/muse/muse.db")
    run("runuser", "-u", "muse-auth", "--", "muse-auth", "user", "add", "maria", *database, input=PASSWORD + "\n")
    post_form("/login", {"username": "maria", "password": PASSWORD})


def check_restart_after_a_crash(token):
    before = show("muse-embedder", "MainPID")
    os.kill(int(before), signal.SIGKILL)
    wait_until(
        "the embedder restarts",
        lambda: show("muse-embedder", "ActiveState") == "active" and show("muse-embedder", "MainPID") != before,
    )

    def served():
        try:
            return embed(token) is None
        except urllib.error.HTTPError as error:
            assert error.code == 503
            return False

    wait_until("it serves again", served)


def check_invalid_option_is_not_restarted():
    path = SETTINGS / "gateway.env"
    good = path.read_text()
    path.write_text(good + "CALL_TIMEOUT=never\n")
    assert subprocess.run(["systemctl", "restart", "muse-gateway"]).returncode != 0
    assert (show("muse-gateway", "ActiveState"), show("muse-gateway", "ExecMainStatus")) == ("failed", "64")
    assert "CALL_TIMEOUT" in run("journalctl", "--unit=muse-gateway") or "--call-timeout" in run("journalctl", "--unit=muse-gateway")
    path.write_text(good)
    run("systemctl", "restart", "muse-gateway")


def check_stop():
    run("systemctl", "stop", "muse.target", *SERVICES)
    for service in SERVICES:
        assert (show(service, "ActiveState"), show(service, "Result")) == ("inactive", "success"), service


def check_start_without_dependencies():
    run("systemctl", "start", "--no-block", "muse-embedder", "muse-gateway")
    wait_until("the embedder starts", lambda: show("muse-embedder", "ActiveState") == "activating")
    assert show("muse-auth", "ActiveState") == "inactive"
    run("systemctl", "start", "muse-auth")
    wait_until("all serve", lambda: show("muse-gateway", "ActiveState") == "active")
    for service in SERVICES:
        assert show(service, "NRestarts") == "0", service
    embed(post_form("/login", {"username": "admin", "password": PASSWORD})["access_token"])


def main():
    try:
        token = check_start(sys.argv[1])
        check_sandbox()
        check_adding_a_user()
        check_restart_after_a_crash(token)
        check_invalid_option_is_not_restarted()
        check_stop()
        check_start_without_dependencies()
        check_stop()
    except BaseException:
        sys.stdout.flush()
        subprocess.run(["journalctl", "--no-pager", "--unit=muse*"], check=False)
        raise
    print("all checks passed")


main()
