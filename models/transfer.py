"""Downloads of large files: progress, digests, and resumption."""

import hashlib
import os
import sys
import time

CHUNK = 1 << 20


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
