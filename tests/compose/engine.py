"""Helpers: the Docker engine, and the compose stack with its users."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import httpx
from muse_as_service import MUSEClient

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
READY_WITHIN_S = 300


def say(text):
    print(f"== {text}", flush=True)


def docker(*arguments, check=True):
    """Runs `docker` and returns its output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise SystemExit(f"docker {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def inspect(name):
    return json.loads(docker("inspect", name))[0]


def log(container, lines="all"):
    """The log of a container, both streams."""
    command = ["docker", "logs", "--tail", lines, container]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def eventually(condition, what, within=READY_WITHIN_S):
    """Waits until `condition()` is true and returns its result."""
    deadline = time.monotonic() + within
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"timeout after {within} s: {what() if callable(what) else what}")
        time.sleep(0.2)
    return result


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stack:
    """deploy/compose.yaml with a profile, and its own project name, port and settings file."""

    def __init__(self, profile, work, **settings):
        self.project, self.port = f"muse-test-{os.getpid()}-{profile}", free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {"COMPOSE_PROFILES": profile, "HOST": "127.0.0.1", "PORT": self.port, **settings}
        self.file = os.path.join(work, f"{profile}.env")
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
        self.compose_program = ["docker", "compose"] if plugin else [shutil.which("docker-compose")]
        self.options = ["--project-name", self.project, "--env-file", self.file]
        self.write()

    def write(self, **changes):
        """Writes the settings file: .env.example with changed lines."""
        self.settings.update(changes)
        with open(os.path.join(ROOT, "deploy/.env.example"), encoding="utf-8") as example:
            lines = [line for line in example.read().splitlines() if line.split("=")[0] not in self.settings]
        lines += [f"{name}={value}" for name, value in self.settings.items()]
        with open(self.file, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def compose(self, *arguments, given=None):
        command = [*self.compose_program, "-f", os.path.join(ROOT, "deploy/compose.yaml"), *self.options, *arguments]
        return self.run(command, given)

    def run(self, command, given=None):
        # Only the file determines the settings.
        environment = {name: value for name, value in os.environ.items() if name not in self.settings}
        done = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{self.logs()}")
        return done.stdout

    def error_without(self, name):
        """The error of compose for an empty setting, as in .env.example."""
        command = [*self.compose_program, "-f", "deploy/compose.yaml", "--env-file", "deploy/.env.example", "config"]
        environment = {other: value for other, value in os.environ.items() if other not in self.settings}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode != 0 and name in done.stdout, done.stdout
        return done.stdout

    def up(self):
        self.compose("up", "-d", "--no-build")
        self.wait()

    def wait(self):
        eventually(self.serves, lambda: f"the stack serves\n{self.logs()}")

    def serves(self):
        try:
            return httpx.get(f"{self.url}/.well-known/jwks.json", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def container(self, service):
        return docker(
            "ps",
            "-q",
            "--filter",
            f"label=com.docker.compose.project={self.project}",
            "--filter",
            f"label=com.docker.compose.service={service}",
        )

    def containers(self):
        listed = docker("ps", "-q", "--filter", f"label=com.docker.compose.project={self.project}").split()
        found = [inspect(identity) for identity in listed]
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def logs(self):
        listed = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}").split()
        texts = []
        for identity in listed:
            state = docker("inspect", "--format", "{{.Name}} {{.State.Status}}", identity, check=False)
            texts.append(f"---- {state}\n{log(identity, '30')}")
        return "\n".join(texts)

    def remove(self):
        done = subprocess.run(
            [*self.compose_program, "-f", os.path.join(ROOT, "deploy/compose.yaml"), *self.options, "down", "--volumes", "--timeout", "5"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            print(done.stdout, file=sys.stderr)

    def client(self, password, username="admin", grpc=False):
        """A logged-in client that does not retry."""
        client = MUSEClient(url=self.url, grpc=grpc, retry_for=0, timeout=30)
        client.login(username=username, password=password)
        return client

    def login(self, password, username="admin"):
        return httpx.post(f"{self.url}/login", data={"username": username, "password": password}, timeout=30)
