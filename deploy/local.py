#!/usr/bin/env python3
"""Runs the whole stack on this machine, in the foreground: auth, embedder and gateway as three processes.

usage: deploy/local.py BIN_DIR MODEL_DIR DATA_DIR

BIN_DIR holds the programs, MODEL_DIR a converted model; the database is kept in DATA_DIR. HOST (127.0.0.1) and PORT
(5000) say where the gateway serves; the other two take free ports of the loopback interface, as do the private ports
of all three unless AUTH_PRIVATE_LISTEN and so on name others. All other settings are the environment variables of the
services themselves; with MUSE_TLS_CERT the certificate has to be for 127.0.0.1. Ctrl-C or SIGTERM stops all three, and a
second one kills them; the end of one stops the others, too.
"""

import ctypes
import ipaddress
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

# More than the services' own grace, and than the delay before it.
STOP_MARGIN_S = 5
READY_WITHIN_S = 120
# A line for a pipe that is full or a terminal that is stopped is left out after this time.
SAY_WITHIN_S = 1


class Failed(Exception):
    """Said in one line."""


class Stopped(Exception):
    """SIGINT or SIGTERM came."""


def say(text, stream=None):
    """Prints a line at once; nobody may be reading any more, and the services have to be stopped all the same."""
    stream = stream or sys.stdout
    if not select.select([], [stream], [], SAY_WITHIN_S)[1]:
        return
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # What is left in the buffer must not fail again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def stop_with_parent():
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Service:
    """A process that reports its state by the protocol of sd_notify(3)."""

    def __init__(self, folder, binary, environment):
        self.name = os.path.basename(binary)
        path = os.path.join(folder, self.name + ".notify")
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(path)
        self.notices.setblocking(False)
        self.told = {}
        # In a session of its own, so that a Ctrl-C on the terminal reaches this program alone, which then stops the
        # services in order. Should this program be killed, the services are told to stop by the kernel.
        self.process = subprocess.Popen(
            [binary], env={**os.environ, **environment, "NOTIFY_SOCKET": path}, start_new_session=True, preexec_fn=stop_with_parent
        )

    def read_notices(self):
        """Reads all notices that have come: their queue is short, and services must not find it full."""
        while True:
            try:
                notice = self.notices.recv(4096)
            except BlockingIOError:
                return
            # Later ones, of an embedder that comes back, say, are in the services' logs.
            for line in notice.decode(errors="replace").splitlines():
                name, _, value = line.partition("=")
                self.told.setdefault(name, value)

    def stop(self, deadline):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                say(f"{self.name} does not stop, killing it")
                self.process.kill()
                self.process.wait()
        self.notices.close()
        return self.process.returncode


def seconds(name, default):
    """A setting of the services. What cannot be read as one is refused by them."""
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else default


def address():
    """HOST and PORT, and whether only this machine can reach them."""
    host, port = os.environ.get("HOST", "127.0.0.1"), os.environ.get("PORT", "5000")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        interface = ipaddress.ip_address(host)
    except ValueError:
        raise Failed(f"HOST must be an IP address, not '{host}'") from None
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise Failed(f"PORT must be a number from 0 to 65535, not '{port}'")
    if not interface.is_loopback and not {"GATEWAY_TLS_CERT", "MUSE_PLAINTEXT"} & os.environ.keys():
        raise Failed(
            f"passwords and tokens would come to HOST={host} in plain text: set GATEWAY_TLS_CERT and GATEWAY_TLS_KEY, or "
            "allow it with MUSE_PLAINTEXT=true"
        )
    shown = f"[{host}]" if interface.version == 6 else host
    return shown, port, interface.is_loopback


def run(folder, services, bin_dir, model_dir, data_dir):
    host, port, loopback = address()
    started = time.monotonic()

    def start(name, **environment):
        private = name.split("-")[1].upper() + "_PRIVATE_LISTEN"
        environment[private] = os.environ.get(private, "127.0.0.1:0")
        service = Service(folder, os.path.join(bin_dir, name), environment)
        services.append(service)
        return service

    def check(when):
        for service in services:
            if service.process.poll() is not None:
                raise Failed(f"{service.name} ended {when} (status {service.process.returncode}); see above")

    def read_notices():
        """Waits a moment for notices, and reads those of all services."""
        select.select([service.notices for service in services], [], [], 0.2)
        for service in services:
            service.read_notices()

    def wait_for(service, key):
        while key not in service.told:
            check("while starting")
            if time.monotonic() > started + READY_WITHIN_S:
                raise Failed(f"{service.name} is not ready after {READY_WITHIN_S} s")
            read_notices()
        return service.told[key]

    exposed = {} if loopback else {"AUTH_EXPOSED": "true"}
    # Stopped after the gateway, these two have nobody left who would have to notice it first.
    behind = {"SHUTDOWN_DELAY": "0"}
    database = os.environ.get("DATABASE_URL") or os.path.join(os.path.abspath(data_dir), "muse.db")
    auth = start("muse-auth", AUTH_LISTEN="127.0.0.1:0", DATABASE_URL=database, **exposed, **behind)
    peers = "https" if os.environ.get("MUSE_TLS_CERT") else "http"
    private = {"auth": wait_for(auth, "X_MUSE_PRIVATE")}
    auth_url = f"{peers}://" + wait_for(auth, "X_MUSE_LISTENING")
    embedder = start("muse-embedder", EMBEDDER_LISTEN="127.0.0.1:0", MUSE_MODEL_DIR=model_dir, AUTH_URL=auth_url, **behind)
    private["embedder"] = wait_for(embedder, "X_MUSE_PRIVATE")
    gateway = start(
        "muse-gateway",
        GATEWAY_LISTEN=f"{host}:{port}",
        AUTH_URL=auth_url,
        EMBEDDER_URL=f"{peers}://" + wait_for(embedder, "X_MUSE_LISTENING"),
    )
    private["gateway"] = wait_for(gateway, "X_MUSE_PRIVATE")
    serving = wait_for(gateway, "X_MUSE_LISTENING")
    wait_for(gateway, "READY")
    seconds = time.monotonic() - started
    users = "https" if os.environ.get("GATEWAY_TLS_CERT") else "http"
    say(f"ready after {seconds:.1f} s: REST and gRPC on {users}://{serving} (Ctrl-C stops)")
    say("metrics: " + ", ".join(f"{name} http://{at}/metrics" for name, at in private.items()))
    if loopback and not {"ADMIN_PASSWORD", "ADMIN_PASSWORD_FILE", "AUTH_EXPOSED"} & os.environ.keys():
        say("log in as admin / admin, unless the password was changed")
    while True:
        read_notices()
        check("by itself, stopping the others")


def stop_on_signal(*_):
    raise Stopped()


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 64
    signal.signal(signal.SIGINT, stop_on_signal)
    signal.signal(signal.SIGTERM, stop_on_signal)
    services, status = [], 0
    folder = tempfile.mkdtemp(prefix="muse-")
    try:
        run(folder, services, *sys.argv[1:])
    except Stopped:
        say("\nstopping")
    except (Failed, OSError) as failure:
        say(f"error: {failure}", sys.stderr)
        status = 1
    finally:
        # A second Ctrl-C must not leave a process behind.
        def kill(*_):
            for service in services:
                service.process.kill()

        signal.signal(signal.SIGINT, kill)
        signal.signal(signal.SIGTERM, kill)
        patience = seconds("SHUTDOWN_DELAY", 0) + seconds("SHUTDOWN_GRACE", 10) + STOP_MARGIN_S
        deadline = time.monotonic() + patience
        # Users first, then what serves them.
        for service in reversed(services):
            if service.stop(deadline) not in (0, None) and status == 0:
                say(f"error: {service.name} ended with status {service.process.returncode}", sys.stderr)
                status = 1
        shutil.rmtree(folder, ignore_errors=True)
    if status == 0:
        say("stopped")
    return status


if __name__ == "__main__":
    sys.exit(main())
