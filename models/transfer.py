"""Downloads of large files: resumption, progress, and digests."""

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import time
from typing import Callable, Optional

from package_index import Failure, say, with_retries

CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file to download."""

    name: str
    # The server, for messages.
    host: str
    # Requests the file with these headers, and returns the response.
    request: Callable
    # The size in bytes, if it is pinned. The caller then verifies the digest, so that a file that changed on the server is detected.
    size: Optional[int] = None
    # The most bytes of a file whose size is not pinned.
    largest: int = sys.maxsize

    def download(self, part, attempts):
        """Downloads the rest of `part`, which has the start of the file. An interrupted download resumes."""
        most = self.largest if self.size is None else self.size
        if (size_of(part) or 0) > most:
            remove_part(part)
        before = [size_of(part) or 0]

        def progressed():
            have, had = size_of(part) or 0, before[0]
            before[0] = have
            return have > had

        with_retries(lambda: self._receive(part, most), f"downloading {self.name} from {self.host}", progressed, attempts)

    def _receive(self, part, most):
        """Requests the rest of `part` once."""
        have, state = size_of(part) or 0, read_state(part)
        total = state.get("total") if self.size is None else self.size
        if have and have == total:
            return
        headers = {}
        if have and self.size is not None:
            headers = {"Range": f"bytes={have}-"}
        elif have and state.get("validator"):
            # The server sends the whole file if it is another one by now.
            headers = {"Range": f"bytes={have}-", "If-Range": state["validator"]}
        with self.request(headers) as response:
            resumed = response.status == 206 and (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
            if have and not resumed:
                say(f"{self.host} cannot resume, starting over")
            have = have if resumed else 0
            if self.size is None:
                length = response.headers.get("Content-Length")
                total = have + int(length) if length else None
                write_state(part, {"validator": validator(response.headers), "total": total})
            size = f": {total / 1e6:.1f} MB" if total else ""
            say(f"{self.name} from {self.host}{size}" + (f", {have / 1e6:.1f} MB already downloaded" if have else ""))
            have = self._append(response, part, have, total, most)
            if have > most:
                remove_part(part)
                raise Failure(f"{self.name} from {self.host} is not the expected file: it has more than {most} bytes")
            if total is not None and have < total:
                raise ConnectionError(f"the connection closed after {have / 1e6:.1f} MB")
            if self.size is None:
                write_state(part, {"validator": validator(response.headers), "total": have})

    def _append(self, response, part, have, total, most):
        """Appends the response to the first `have` bytes of `part`, and returns how many bytes it then has."""
        progress = Progress(self.name, have, total)
        try:
            with open(part, "ab" if have else "wb") as file:
                for block in iter(lambda: response.read(CHUNK), b""):
                    file.write(block)
                    have += len(block)
                    if have > most:
                        break
                    progress.at(have)
        finally:
            progress.end()
        return have


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
    """Deletes a partial download."""
    for path in (part, part + ".json"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


class Progress:
    """Shows megabytes and rate: one rewritten line on a terminal, else a line for every tenth.

    A total of None is unknown.
    """

    def __init__(self, name, done, total):
        self.name, self.total = name, total
        self.first, self.start = done, time.monotonic()
        self.tenth, self.shown = self.tenth_of(done), 0.0
        self.terminal = sys.stdout.isatty()

    def tenth_of(self, done):
        return done * 10 // self.total if self.total else done // (32 << 20)

    def at(self, done):
        now = time.monotonic()
        if self.terminal:
            if now - self.shown < 0.2 and done != self.total:
                return
        elif self.tenth_of(done) == self.tenth:
            return
        self.shown, self.tenth = now, self.tenth_of(done)
        rate = (done - self.first) / max(now - self.start, 1e-3) / 1e6
        of = f" of {self.total / 1e6:.1f}" if self.total else ""
        line = f"  {self.name[:40]}  {done / 1e6:.1f}{of} MB  {rate:.1f} MB/s"
        print(f"\r{line}   " if self.terminal else line, end="" if self.terminal else "\n", flush=True)

    def end(self):
        if self.terminal and self.shown:
            print(flush=True)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(CHUNK), b""):
            digest.update(block)
    return digest.hexdigest()


def size_of(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return None
