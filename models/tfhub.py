"""The original model from TF Hub: a tarball of a SavedModel with float32 weights.

No sha256 of it is published. The first download records its own, and one that differs later is reported and not used.
"""

import contextlib
import json
import os
import tarfile
import urllib.parse
import urllib.request
import zlib

from package_index import Failure, opener, say, with_retries
from transfer import CHUNK, Progress, sha256_of, size_of

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
    reasons = []
    for number, address in enumerate(addresses, 1):
        part = f"{path}.part{number}"
        try:
            transfer(address, part)
            found = sha256_of(part)
            if recorded not in (None, found):
                raise Failure(
                    f"{address} has the sha256 {found} instead of {recorded} as at the first download: if you trust it, "
                    f"delete {path}.sha256 and repeat"
                )
        except Failure as failure:
            say(str(failure))
            reasons.append(failure)
            continue
        record(path, found)
        os.replace(part, path)
        for number in range(1, len(addresses) + 1):
            remove_part(f"{path}.part{number}")
        return path
    differing = [reason for reason in reasons if "first download" in str(reason)]
    if differing:
        raise differing[0]
    raise Failure(
        f"the original model cannot be downloaded from any of {len(addresses)} addresses: download {addresses[0]} "
        "on another machine, copy it here, and run `make run SOURCE=path`"
    )


def transfer(address, part):
    """Downloads the rest of `part`, and checks it."""
    host = urllib.parse.urlsplit(address).netloc
    before = [size_of(part) or 0]

    def receive():
        have, state = size_of(part) or 0, read_state(part)
        if have and have == state.get("total"):
            return
        headers = {"User-Agent": "muse-fetch"}
        if have and state.get("validator"):
            # The server sends the whole file if it is another one by now.
            headers.update({"Range": f"bytes={have}-", "If-Range": state["validator"]})
        request = urllib.request.Request(address, headers=headers)
        with opener().open(request, timeout=TIMEOUT_S) as response:
            resumed = response.status == 206 and (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
            if have and not resumed:
                say(f"{host} cannot resume, starting over")
            have = have if resumed else 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            say(f"{NAME} from {host}" + (f": {total / 1e6:.1f} MB" if total else ""))
            write_state(part, {"validator": validator(response.headers), "total": total})
            copy(response, part, have, total)

    def progressed():
        have, had = size_of(part) or 0, before[0]
        before[0] = have
        return have > had

    with_retries(receive, f"downloading the original model from {host}", progressed, ATTEMPTS)
    try:
        check(part)
    except Failure:
        remove_part(part)
        raise


def copy(response, part, have, total):
    """Appends the response to the first `have` bytes of `part`."""
    progress = Progress(NAME, have, total)
    try:
        with open(part, "ab" if have else "wb") as file:
            for block in iter(lambda: response.read(CHUNK), b""):
                file.write(block)
                have += len(block)
                if have > LARGEST:
                    break
                progress.at(have)
    finally:
        progress.end()
    if have > LARGEST:
        remove_part(part)
        raise Failure(f"{response.geturl()} has more than {LARGEST} bytes: it is not the original model")
    if total is not None and have < total:
        raise ConnectionError(f"the connection closed after {have / 1e6:.1f} MB")
    write_state(part, {"validator": validator(response.headers), "total": have})


def validator(headers):
    """What identifies the version of a file in If-Range: an ETag that is not weak, or a time."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def read_state(part):
    """The size of the whole file and its validator, if `part` is the start of it."""
    with contextlib.suppress(OSError, ValueError), open(part + ".json", encoding="utf-8") as file:
        state = json.load(file)
        return state if isinstance(state, dict) else {}
    return {}


def write_state(part, state):
    with open(part + ".json", "w", encoding="utf-8") as file:
        json.dump(state, file)


def remove_part(part):
    for path in (part, part + ".json"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


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
