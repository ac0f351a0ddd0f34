"""The stack as `make install` lays it out, in a folder of its own."""

import os
import subprocess

import pytest
from cluster import CHECKOUT


def make(target, folder):
    # Not the settings of the make that these tests may run in.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    subprocess.run(["make", "-s", target, "PREFIX=/usr", f"DESTDIR={folder}"], cwd=CHECKOUT, env=environment, check=True)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    make("install", folder)
    return folder
