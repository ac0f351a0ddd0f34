"""The original model from TF Hub: a tarball of a SavedModel with float32 weights.

No sha256 of it is published. The first download records its own, and one that differs later is reported and not used.
"""

import contextlib
import os
import tarfile
import urllib.parse
import urllib.request
import zlib

from package_index import Failure, opener, say
from transfer import CHUNK, RemoteFile, remove_part, sha256_of, size_of

NAME = "universal-sentence-encoder-multilingual-3.tar.gz"
ADDRESSES = (
    "https://storage.googleapis.com/tfhub-modules/google/universal-sentence-encoder-multilingual/3.tar.gz",
    "https://tfhub.dev/google/universal-sentence-encoder-multilingual/3?tf-hub-format=compressed",
    "https://www.kaggle.com/api/v1/models/google/universal-sentence-encoder/tensorFlow2/multilingual/2/download",
)
# The most bytes of a download; the original has about 250 MB.
LARGEST = 2 << 30
ATTEMPTS = 2
TIMEOUT_S = 20


class FileChanged(Failure):
    """A download differs from the first one."""


def fetch(folder, addresses=ADDRESSES):
    """Returns the path of the tarball in `folder`. Downloads it if it is missing or damaged."""
    path = os.path.join(folder, NAME)
    recorded = recorded_sha256(path)
    if size_of(path) is not None:
        found = sha256_of(path)
        if recorded is None:
            # A file that was copied here, or whose download was killed at the end.
            check(path)
            record(path, found)
        if recorded in (None, found):
            return path
        say(f"{NAME} is damaged: deleted, downloading it again")
        os.remove(path)
    failures = []
    for number, address in enumerate(addresses, 1):
        part = f"{path}.part{number}"
        try:
            download(address, part)
            found = sha256_of(part)
            if recorded not in (None, found):
                raise FileChanged(
                    f"{address} has the sha256 {found} instead of {recorded} as at the first download: if you trust it, "
                    f"delete {path}.sha256 and repeat"
                )
        except Failure as failure:
            say(str(failure))
            failures.append(failure)
            continue
        record(path, found)
        os.replace(part, path)
        for number in range(1, len(addresses) + 1):
            remove_part(f"{path}.part{number}")
        return path
    for failure in failures:
        if isinstance(failure, FileChanged):
            raise failure
    raise Failure(
        f"the original model cannot be downloaded from any of {len(addresses)} addresses: download {addresses[0]} "
        "on another machine, copy it here, and run `make run SOURCE=path`"
    )


def download(address, part):
    """Downloads the rest of `part`, and checks it."""

    def request_file(headers):
        return opener().open(urllib.request.Request(address, headers={"User-Agent": "muse-fetch", **headers}), timeout=TIMEOUT_S)

    host = urllib.parse.urlsplit(address).netloc
    RemoteFile(NAME, host, request_file, largest=LARGEST).download(part, ATTEMPTS)
    try:
        check(part)
    except Failure:
        remove_part(part)
        raise


def check(path):
    """Reads a whole tarball, so that its checksum is verified."""
    try:
        with tarfile.open(path, "r:*") as archive:
            names = {os.path.basename(member.name) for member in archive}
            while archive.fileobj.read(CHUNK):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise Failure(f"{os.path.basename(path)} is not a tarball, or is damaged: {error}") from None
    for name in ("saved_model.pb", "variables.index"):
        if name not in names:
            raise Failure(f"{os.path.basename(path)} contains no {name}: it is not the original model")


def recorded_sha256(path):
    with contextlib.suppress(FileNotFoundError), open(path + ".sha256", encoding="utf-8") as file:
        return (file.read().split() or [None])[0]
    return None


def record(path, sha256):
    """Records the digest, in the format of sha256sum."""
    with open(path + ".sha256", "w", encoding="utf-8") as file:
        file.write(f"{sha256}  {NAME}\n")
