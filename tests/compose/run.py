#!/usr/bin/env python3
"""Builds the images, runs deploy/compose.yaml with them on the local Docker engine, and tests the stack.

usage: run.py [--keep]    # --keep does not remove the containers

`make test-compose` runs it with the Python environment of the client. `stand_ins` provides the base images.
"""

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time

import images
import scale
import single
from engine import ROOT, Stack, docker, say

VERSIONS = ("test-1", "test-2")


def main():
    keep = "--keep" in sys.argv
    start = time.monotonic()
    work = tempfile.mkdtemp(prefix="muse-compose-")
    password, secret = secrets.token_hex(12), secrets.token_hex(24)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, work)
        for version in VERSIONS:
            say(f"building the images, version {version}")
            images.build(version)
        images.check(VERSIONS[0], forbidden=(password, secret))
        images.model_on_a_volume(VERSIONS[0])
        for profile, test in (("single", single.run), ("scale", scale.run)):
            say(f"profile {profile}")
            running = Stack(profile, work, ADMIN_PASSWORD=password, JWT_SECRET_KEY=secret, MUSE_VERSION=VERSIONS[0])
            if not keep:
                stack.callback(running.remove)
            test(running, password, VERSIONS)
            if not keep:
                running.remove()
    say(f"all checks passed after {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    os.chdir(ROOT)
    docker("info", "--format", "{{.ServerVersion}}")
    main()
