#!/usr/bin/env python3
"""Local launcher: runs auth, embedder and gateway as three processes in the foreground.

usage: deploy/local.py BIN_DIR MODEL_DIR DATA_DIR

BIN_DIR contains the programs, MODEL_DIR a converted model, DATA_DIR the database. The gateway listens on HOST (127.0.0.1) and
PORT (5000). The other two services and the admin ports use free ports of the loopback interface, unless AUTH_PRIVATE_LISTEN
and so on are set. The services read all other settings from their environment variables. A certificate in MUSE_TLS_CERT must
be valid for 127.0.0.1. Ctrl-C or SIGTERM stops all services, a second one kills them. If one service exits, the launcher stops
the others.
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

# Added to the services' SHUTDOWN_DELAY and SHUTDOWN_GRACE.
STOP_MARGIN_S = 5
READY_WITHIN_S = 120
# A line is dropped if a full pipe or a stopped terminal does not accept it within this time.
SAY_WITHIN_S = 1


class Failed(Exception):
    """An expected error, reported in one line."""


class Stopped(Exception):
    """SIGINT or SIGTERM was received."""


def say(text, stream=None):
    """Prints a line without blocking: the launcher must stop the services even if nothing reads its output."""
    stream = stream or sys.stdout
    if not select.select([], [stream], [], SAY_WITHIN_S)[1]:
        return
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # Otherwise the flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def stop_with_parent():
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Service:
    """A service's process, which reports its state over sd_notify(3)."""

    def __init__(self, folder, binary, environment):
        self.name = os.path.basename(binary)
        path = os.path.join(folder, self.name + ".notify")
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(path)
        self.notices.setblocking(False)
        self.state = {}
        # A new session, so that Ctrl-C on the terminal reaches only the launcher, which then stops the services in
        # order. If the launcher is killed, the kernel sends SIGTERM to the services.
        self.process = subprocess.Popen(
            [binary], env={**os.environ, **environment, "NOTIFY_SOCKET": path}, start_new_session=True, preexec_fn=stop_with_parent
        )

    def read_notices(self):
        """Reads all pending notices, so that the socket's short queue does not fill up."""
        while True:
            try:
                notice = self.notices.recv(4096)
            except BlockingIOError:
                return
            # Only the first value counts; the services' logs show later changes.
            for line in notice.decode(errors="replace").splitlines():
                name, _, value = line.partition("=")
                self.state.setdefault(name, value)

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
    """A setting of the services in seconds. The services themselves reject invalid values."""
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else default


def address():
    """Returns HOST and PORT, and whether HOST is a loopback address."""
    host, port = os.environ.get("HOST") or "127.0.0.1", os.environ.get("PORT") or "5000"
    host = "127.0.0.1" if host == "localhost" else host
    try:
        interface = ipaddress.ip_address(host)
    except ValueError:
        raise Failed(f"HOST must be an IP address, not '{host}'") from None
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise Failed(f"PORT must be a number from 0 to 65535, not '{port}'")
    if not interface.is_loopback and not any(map(os.environ.get, ("GATEWAY_TLS_CERT", "MUSE_PLAINTEXT"))):
        raise Failed(
            f"HOST={host} would receive passwords and tokens in plain text: set GATEWAY_TLS_CERT and GATEWAY_TLS_KEY, or "
            "allow it with MUSE_PLAINTEXT=true"
        )
    shown = f"[{host}]" if interface.version == 6 else host
    return shown, port, interface.is_loopback


def run(folder, services, bin_dir, model_dir, data_dir):
    host, port, loopback = address()
    started = time.monotonic()

    def start(name, **environment):
        private = name.split("-")[1].upper() + "_PRIVATE_LISTEN"
        environment[private] = os.environ.get(private) or "127.0.0.1:0"
        service = Service(folder, os.path.join(bin_dir, name), environment)
        services.append(service)
        return service

    def check(when):
        for service in services:
            if service.process.poll() is not None:
                raise Failed(f"{service.name} ended {when} (status {service.process.returncode}); see above")

    def read_notices():
        """Waits up to 0.2 s for notices and reads those of all services."""
        select.select([service.notices for service in services], [], [], 0.2)
        for service in services:
            service.read_notices()

    def wait_for(service, key):
        while key not in service.state:
            check("while starting")
            if time.monotonic() > started + READY_WITHIN_S:
                raise Failed(f"{service.name} is not ready after {READY_WITHIN_S} s")
            read_notices()
        return service.state[key]

    exposed = {} if loopback else {"AUTH_EXPOSED": "true"}
    # Stopped after the gateway, these two have no clients that must detect the shutdown.
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
    if loopback and not any(map(os.environ.get, ("ADMIN_PASSWORD", "ADMIN_PASSWORD_FILE", "AUTH_EXPOSED"))):
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
        # A second signal kills all services.
        def kill(*_):
            for service in services:
                service.process.kill()

        signal.signal(signal.SIGINT, kill)
        signal.signal(signal.SIGTERM, kill)
        timeout = seconds("SHUTDOWN_DELAY", 0) + seconds("SHUTDOWN_GRACE", 10) + STOP_MARGIN_S
        deadline = time.monotonic() + timeout
        # The gateway first, then the services behind it.
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
