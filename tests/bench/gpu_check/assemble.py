#!/usr/bin/env python3
"""Creates a folder to copy to a machine with torch and a GPU: the program, the model, and `run`.

usage: assemble.py PROGRAM ONNX FOLDER
"""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile

# Maximum size of the folder.
LIMIT = 60 << 20
HERE = os.path.dirname(os.path.abspath(__file__))


def pack(source, target):
    # Without time and name, so that the same program results in the same file.
    with open(source, "rb") as plain, open(target, "wb") as file:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)


def assemble(program, onnx, folder):
    fresh = folder + ".new"
    shutil.rmtree(fresh, ignore_errors=True)
    os.makedirs(fresh)
    with tempfile.TemporaryDirectory() as scratch:
        stripped = os.path.join(scratch, "stripped")
        subprocess.run(["strip", "-o", stripped, program], check=True)
        pack(stripped, os.path.join(fresh, os.path.basename(program) + ".gz"))
    pack(onnx, os.path.join(fresh, os.path.basename(onnx) + ".gz"))
    shutil.copy(os.path.join(HERE, "run"), fresh)
    size = sum(os.path.getsize(os.path.join(fresh, name)) for name in os.listdir(fresh))
    if size > LIMIT:
        shutil.rmtree(fresh)
        sys.exit(f"assemble: {size / 2**20:.1f} MiB exceed the limit of {LIMIT >> 20} MiB")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(fresh, folder)
    print(f"{folder}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print(__doc__.strip(), file=sys.stderr)
        sys.exit(64)
    assemble(*sys.argv[1:3], os.path.normpath(sys.argv[3]))
