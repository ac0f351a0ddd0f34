"""DuckDB: a vectorised function in Python."""

import os
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
from muse_as_service import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from common import TEXTS, check

texts = [*TEXTS, None]
database = duckdb.connect()
database.register("given", pa.table({"id": range(len(texts)), "sentence": texts}))
database.execute("CREATE TABLE texts AS SELECT * FROM given")

embedder = Embedder(os.environ["GATEWAY"], on_error="null")


def embed(sentences):
    return embedder.embed(sentences).to_arrow()


database.create_function("embed", embed, ["VARCHAR"], "FLOAT[512]", type="arrow", null_handling="special")
embedded = database.sql("SELECT id, sentence, embed(sentence) AS vector FROM texts ORDER BY id")

rows = embedded.fetchall()
check([id for id, _, _ in rows], [vector for _, _, vector in rows], [*TEXTS, ""], missing=[len(TEXTS)])
nearest = database.execute(
    "SELECT sentence FROM texts WHERE sentence IS NOT NULL ORDER BY array_cosine_similarity(embed(sentence), embed('7 kitap')) DESC LIMIT 1"
)
assert nearest.fetchall() == [("7 kitap",)]
