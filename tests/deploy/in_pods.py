"""Runs the programs like pods: with the variables, mounts, user and read-only root file system of a description, in a network
namespace. Calls their probes, logs in, embeds, and stops them like a node.

usage: unshare --net --mount in_pods.py FOLDER DESCRIPTION    FOLDER: installation of the stack
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TIMEOUT_S = 60
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def bring_loopback_up():
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP | IFF_RUNNING))


class Pod:
    def __init__(self, name, description, files, scratch):
        self.name, self.probes, self.grace = name, description["probes"], description["grace"]
        root = scratch / name
        for folder in ("new", "work", "root"):
            (root / folder).mkdir(parents=True)
        root = root / "root"
        mount("-t", "overlay", "overlay", "-o", f"lowerdir={files}:/,upperdir={root.parent}/new,workdir={root.parent}/work", root)
        (root / "etc/hosts").write_text("127.0.0.1 localhost " + " ".join(description["names"]) + "\n")
        for path, content in description["mounts"].items():
            place = root / path.lstrip("/")
            place.mkdir(parents=True)
            for file, text in content.items():
                (place / file).write_text(text)
        user = description["user"]
        for path in description["data"]:
            place = root / path.lstrip("/")
            place.mkdir(parents=True)
            mount("-t", "tmpfs", "-o", f"uid={user},gid={user},mode=700", "data", place)
        mount("--bind", "/proc", root / "proc")
        mount("--bind", "/dev", root / "dev")
        mount("-o", "remount,ro", root)
        self.process = subprocess.Popen(
            [
                "chroot",
                root,
                "setpriv",
                f"--reuid={user}",
                f"--regid={user}",
                "--clear-groups",
                "--no-new-privs",
                "--bounding-set=-all",
                "--inh-caps=-all",
                f"/usr/bin/{name}",
            ],
            env={"PATH": os.environ["PATH"], "MUSE_MODEL_DIR": "/usr/share/muse/model"} | description["environment"],
        )

    def probe(self, probe):
        path, port = self.probes[probe]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def wait_for(self, probe):
        deadline = time.monotonic() + TIMEOUT_S
        while self.probe(probe) != 200:
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}"
            assert time.monotonic() < deadline, f"{self.name}: no {probe}"
            time.sleep(0.1)


def post_json(path, body, authority, token=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"https://localhost:5000{path}", json.dumps(body).encode(), headers)
    context = ssl.create_default_context(cadata=authority)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as response:
        return json.load(response)


def main():
    installed, description = sys.argv[1], json.loads(pathlib.Path(sys.argv[2]).read_text())
    scratch = pathlib.Path(tempfile.mkdtemp())
    mount("-t", "tmpfs", "scratch", scratch)
    files = scratch / "files"
    subprocess.run(["cp", "-a", installed, files], check=True)
    files.chmod(0o755)
    bring_loopback_up()
    with contextlib.ExitStack() as stops:
        pods = {}
        # In reverse order: each service starts without the others.
        for name in ("muse-gateway", "muse-embedder", "muse-auth"):
            pods[name] = Pod(name, description["pods"][name], files, scratch)
            stops.callback(pods[name].process.kill)
            pods[name].wait_for("startupProbe")
            pods[name].wait_for("livenessProbe")
            if name != "muse-auth":
                assert pods[name].probe("readinessProbe") == 503, f"{name} is ready before its dependencies"
        for pod in pods.values():
            pod.wait_for("readinessProbe")
        login = {"username": "admin", "password": description["password"]}
        token = post_json("/login", login, description["authority"])["access_token"]
        (vector,) = post_json("/embed", {"sentence": ["Where is the library?"]}, description["authority"], token)["embedding"]
        assert len(vector) == 512
        port = pods["muse-embedder"].probes["readinessProbe"][1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
            exported = response.read().decode()
        for metric in description["metrics"]:
            assert f"\n{metric} " in exported, metric
        start = time.monotonic()
        for pod in pods.values():
            pod.process.terminate()
        for pod in pods.values():
            assert pod.process.wait(pod.grace - (time.monotonic() - start)) == 0, pod.name
    print("all checks passed")


main()
