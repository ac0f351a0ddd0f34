"""`--dedup`: numbers distinct sentences in memory that does not depend on their number."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile

from . import Failure

DIGEST_BYTES = 16
CACHE_KIB = 32 << 10


class Distinct:
    """An index from the digest of a sentence to its number, in the order of first occurrence.

    It is a temporary database of SQLite: some 40 bytes on the disk for each distinct sentence, and a cache of 32 MiB
    in memory. Two sentences of a job have the same digest (128 bits) with a probability of less than 10^-18 for a
    billion sentences.
    """

    def __init__(self) -> None:
        self.count = 0
        # The empty name is a file that SQLite deletes when it opens it, so none remains after a kill.
        self._database = sqlite3.connect("", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            f"PRAGMA cache_size=-{CACHE_KIB}",
            "CREATE TABLE sentence (digest BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)

    def number(self, sentence: str) -> int:
        """Returns the number of a sentence; a new one is `count` before this call."""
        digest = hashlib.blake2b(sentence.encode(), digest_size=DIGEST_BYTES).digest()
        try:
            found = self._database.execute("SELECT number FROM sentence WHERE digest = ?", (digest,)).fetchone()
            if found is not None:
                number: int = found[0]
                return number
            self._database.execute("INSERT INTO sentence VALUES (?, ?)", (digest, self.count))
        except sqlite3.Error as failure:
            folder = tempfile.gettempdir()
            raise Failure(f"cannot write the index of --dedup in {folder} ({failure}): set TMPDIR") from None
        self.count += 1
        return self.count - 1

    def close(self) -> None:
        self._database.close()
