#!/usr/bin/env python3
"""Lays out the contents of an image without a base image: a program and its runtime dependencies.

usage: assemble.py PROGRAM OUT [--device cpu|cuda] [--model DIR]

Runs in the build stage of the Dockerfiles. OUT/root receives the program, the system libraries that it links, the licences
and the software bill of materials (sbom.py); OUT/libtorch the libraries of libtorch, if the program links them, at the path
where the program searches for them; OUT/data is an empty folder for data.
"""

import argparse
import glob
import os
import re
import shutil
import subprocess

import sbom

# Output folder of the Dockerfiles' build.
BUILT = "/built"
# Folder where embedder.Dockerfile installs cuda.txt.
CUDA = "/opt/cuda"
USER = 10001
PASSWD = f"root:x:0:0:root:/:/nonexistent\nmuse:x:{USER}:{USER}:MUSE as Service:/:/nonexistent\n"
GROUP = f"root:x:0:\nmuse:x:{USER}:\n"


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def copy(source, root, path=None):
    """Copies the file `source` to the same path, or to `path`, below `root`. Follows symbolic links."""
    target = root + (path or source)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy2(source, target)


def needed(binary):
    """The paths of all shared libraries that the loader loads for `binary`."""
    listed = output("ldd", binary)
    missing = re.findall(r"(\S+) => not found", listed)
    # The host provides the library of the driver.
    if set(missing) - {"libcuda.so.1"}:
        raise SystemExit(f"{binary} needs {', '.join(missing)}, which are not here")
    return set(re.findall(r"(/\S+) \(0x", listed))


def libtorch(home, device, wanted):
    """Returns libtorch's libraries as {target: source}, and the system libraries that they need."""
    if device == "cpu":
        return {path: path for path in wanted if path.startswith(home)}, set()
    found = [path for folder in ("torch/lib", "nvidia") for path in glob.glob(f"{CUDA}/{folder}/**/*.so*", recursive=True)]
    found = [path for path in found if "python" not in os.path.basename(path)]
    system = set().union(*(needed(path) for path in found if os.path.basename(path).startswith("libtorch_cuda")))
    return {home + path[len(CUDA) :]: path for path in found}, {path for path in system if not path.startswith(CUDA)}


def licences(root, program, packages, parts):
    documents = f"{root}/usr/share/doc"
    for name in ("LICENSE", "NOTICE"):
        copy(os.path.abspath(name), documents, f"/{program}/{name}")
    for package in packages:
        copy(f"/usr/share/doc/{package['name']}/copyright", root)
        # Scanners read this folder in images without a package manager.
        write(f"{root}/var/lib/dpkg/status.d/{package['name']}", output("dpkg-query", "--status", package["name"]))
    for part in parts:
        if os.path.isdir(f"{part}/licenses"):
            shutil.copytree(f"{part}/licenses", f"{documents}/{os.path.basename(part)[: -len('.dist-info')]}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("out")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--model")
    arguments = arguments.parse_args()
    program, out = arguments.program, os.path.abspath(arguments.out)
    root, binary = f"{out}/root", f"{BUILT}/{arguments.program}"

    wanted = needed(binary) - {binary}
    parts = []
    home = next((path.split("/site/")[0] + "/site" for path in wanted if "/site/" in path), None)
    if home:
        files, more = libtorch(home, arguments.device, wanted)
        wanted = {path for path in wanted | more if not path.startswith(home)}
        for path, source in files.items():
            copy(source, f"{out}/libtorch", path)
        parts = sorted(glob.glob((home if arguments.device == "cpu" else CUDA) + "/*.dist-info"))

    for path in wanted | {"/etc/ssl/certs/ca-certificates.crt", "/etc/debian_version", "/etc/os-release"}:
        copy(path, root)
    write(f"{root}/etc/passwd", PASSWD)
    write(f"{root}/etc/group", GROUP)
    write(f"{root}/etc/nsswitch.conf", "hosts: files dns\n")
    os.makedirs(f"{root}/usr/local/bin")
    subprocess.run(["strip", "-o", f"{root}/usr/local/bin/{program}", binary], check=True)
    os.makedirs(f"{root}/tmp")
    os.chmod(f"{root}/tmp", 0o1777)
    os.makedirs(f"{out}/data", exist_ok=True)

    packages = sbom.packages_of(wanted | {"/etc/ssl/certs/ca-certificates.crt"})
    licences(root, program, packages, parts)
    write(
        f"{root}/usr/share/doc/{program}/sbom.cdx.json", sbom.document(program, f"{BUILT}/metadata.json", packages, parts, arguments.model)
    )


if __name__ == "__main__":
    main()
