"""`make install` and the systemd units: the installed programs run, and systemd runs the units in a container."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import urllib.request

import pytest
from cluster import CHECKOUT, PROGRAMS, options
from conftest import make

# Maximum rating of `systemd-analyze security`, of 10; see docs/operations/systemd.md.
EXPOSURE = 1.2
MODEL = "usr/share/muse/model"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_uninstall_removes_all_files_except_settings(tmp_path):
    make("install", tmp_path)
    settings = tmp_path / "etc/muse/auth.env"
    settings.write_text("AUTH_EXPOSED=false\n")
    make("install", tmp_path)
    assert settings.read_text() == "AUTH_EXPOSED=false\n"
    make("uninstall", tmp_path)
    assert files(tmp_path) == {f"etc/muse/{name}.env" for name in ("auth", "embedder", "gateway")}


def test_relative_prefix_is_rejected(tmp_path):
    ran = subprocess.run(["make", "-s", "install", "PREFIX=usr", f"DESTDIR={tmp_path}/"], cwd=CHECKOUT, capture_output=True, text=True)
    assert ran.returncode != 0 and "PREFIX" in ran.stderr
    assert not files(tmp_path)


@pytest.mark.parametrize("program", PROGRAMS)
def test_settings_are_options_of_the_program(installed, program):
    unit = (installed / f"usr/lib/systemd/system/{program}.service").read_text()
    settings = (installed / f"etc/muse/{program.removeprefix('muse-')}.env").read_text()
    variables = set(re.findall(r"^#?([A-Z_]+)=", settings, re.MULTILINE)) | set(re.findall(r"^Environment=(\w+)=", unit, re.MULTILINE))
    assert variables <= options(program).keys()


def test_stop_timeout_exceeds_shutdown_delay_and_grace(installed):
    common = (installed / "usr/lib/systemd/system/muse-.service.d/common.conf").read_text()
    allowed = int(re.search(r"^TimeoutStopSec=(\d+)$", common, re.MULTILINE)[1])
    for program in PROGRAMS:
        assert allowed >= options(program)["SHUTDOWN_DELAY"] + options(program)["SHUTDOWN_GRACE"] + 5


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd: systemd-analyze is not installed")
@pytest.mark.parametrize("program", PROGRAMS)
def test_exposure_of_the_units_is_low(installed, program):
    analyzed = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--root={installed}", f"{program}.service"],
        capture_output=True,
        text=True,
        check=True,
    )
    exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", analyzed.stdout)[1])
    assert exposure <= EXPOSURE, analyzed.stdout


def post_json(address, path, body, token=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"http://{address}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


class Program:
    """An installed program, which reports its state over sd_notify."""

    def __init__(self, installed, name, folder, **environment):
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.settimeout(60)
        self.notices.bind(str(folder / name))
        self.process = subprocess.Popen(
            [installed / "usr/bin" / name],
            env={
                "PATH": os.environ["PATH"],
                "NOTIFY_SOCKET": str(folder / name),
                f"{name.removeprefix('muse-').upper()}_PRIVATE_LISTEN": "127.0.0.1:0",
                **environment,
            },
        )

    def notice(self, key):
        while True:
            for line in self.notices.recv(4096).decode().splitlines():
                name, _, value = line.partition("=")
                if name == key:
                    return value

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0
        assert self.notice("STOPPING") == "1"


def test_installed_programs_run_with_installed_libraries(installed, tmp_path):
    with contextlib.ExitStack() as stops:

        def start(name, **environment):
            program = Program(installed, name, tmp_path, **environment)
            stops.callback(program.stop)
            return program

        auth = start("muse-auth", AUTH_LISTEN="127.0.0.1:0", DATABASE_URL=str(tmp_path / "muse.db"))
        url = "http://" + auth.notice("X_MUSE_LISTENING")
        embedder = start("muse-embedder", EMBEDDER_LISTEN="127.0.0.1:0", MUSE_MODEL_DIR=str(installed / MODEL), AUTH_URL=url)
        gateway = start(
            "muse-gateway",
            GATEWAY_LISTEN="127.0.0.1:0",
            AUTH_URL=url,
            EMBEDDER_URL="http://" + embedder.notice("X_MUSE_LISTENING"),
        )
        address = gateway.notice("X_MUSE_LISTENING")
        gateway.notice("READY")
        token = post_json(address, "/login", {"username": "admin", "password": "admin"})["access_token"]
        (vector,) = post_json(address, "/embed", {"sentence": ["Where is the library?"]}, token)["embedding"]
        assert len(vector) == 512
        maps = pathlib.Path(f"/proc/{embedder.process.pid}/maps").read_text()
        libraries = {pathlib.Path(path) for path in re.findall(r"(/\S*/lib(?:torch|c10|gomp|cudart|cupti)\S*)", maps)}
        assert {path.parent for path in libraries} == {installed / "usr/lib/muse"}


def test_systemd_runs_the_units(installed):
    if os.geteuid() != 0 or not shutil.which("systemd-nspawn"):
        pytest.skip("systemd: needs root and systemd-nspawn (Debian: systemd-container)")
    here = pathlib.Path(__file__).parent
    guide = re.search(r"sudo make install.*?\n(.*?)```", (CHECKOUT / "docs/operations/systemd.md").read_text(), re.DOTALL)[1]
    assert "systemctl enable" in guide
    ended = subprocess.run(
        ["unshare", "--mount", here / "machine.sh", installed, sys.executable, "/tests/in_the_machine.py", guide], timeout=300
    )
    assert ended.returncode == 0
