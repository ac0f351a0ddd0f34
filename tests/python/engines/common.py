"""The texts of the recipes, and the check of their results. The recipes read GATEWAY and MUSE_API_KEY from the environment."""

import os

import numpy as np
from muse_as_service import MUSEClient

WORDS = ["books", "libros", "Bücher", "книги", "本", "كتب", "livres", "kitap"]
TEXTS = [f"{number} {WORDS[number % len(WORDS)]}" for number in range(1_500)]
# Of vectors that were computed in batches of other sizes.
TOLERANCE = 1e-5


def expected(texts):
    """The vectors of MUSEClient; zeros for a missing text."""
    with MUSEClient(url=os.environ["GATEWAY"], dtype=np.float32) as client:
        return client.embed([text or "" for text in texts], concurrency=4)


def check(ids, vectors, texts=TEXTS, missing=()):
    """Assert the order of the rows, and that their vectors are those of MUSEClient."""
    assert [int(id) for id in ids] == list(range(len(texts))), "other rows, or another order"
    vectors = list(vectors)
    assert [row for row, vector in enumerate(vectors) if vector is None] == list(missing)
    rows = [row for row in range(len(texts)) if row not in missing]
    found = np.array([np.asarray(vectors[row], np.float32) for row in rows])
    assert found.shape == (len(rows), 512), found.shape
    difference = np.abs(found - expected(texts)[rows]).max()
    assert difference < TOLERANCE, difference
