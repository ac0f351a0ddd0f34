"""Fixture: the stack, installed by `make install` into a temporary folder."""

import os
import subprocess

import pytest
from cluster import CHECKOUT


def make(target, folder):
    # Without the variables of the make that runs these tests.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    subprocess.run(["make", "-s", target, "PREFIX=/usr", f"DESTDIR={folder}"], cwd=CHECKOUT, env=environment, check=True)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    make("install", folder)
    return folder
