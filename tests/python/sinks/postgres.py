"""pgvector: binary COPY, then an index. POSTGRES is the address of a server."""

import os
import sys
from pathlib import Path

import psycopg
from muse_as_service import Embedder
from pgvector.psycopg import register_vector

sys.path.insert(0, str(Path(__file__).parent))
from common import FOUND, QUERY, batches

embedder = Embedder(os.environ["GATEWAY"])
with psycopg.connect(os.environ["POSTGRES"], autocommit=True) as postgres:
    postgres.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(postgres)
    postgres.execute("CREATE TABLE sink (id bigint PRIMARY KEY, text text, vector vector(512))")
    for ids, texts in batches():
        with postgres.cursor().copy("COPY sink FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text", "vector"])
            for row in zip(ids, texts, embedder(texts)):
                copy.write_row(row)
    postgres.execute("CREATE INDEX ON sink USING hnsw (vector vector_ip_ops)")  # faster after the rows than before

    nearest = postgres.execute("SELECT text FROM sink ORDER BY vector <#> %s LIMIT 1", (embedder([QUERY])[0],))
    assert nearest.fetchall() == [(FOUND,)]
    assert postgres.execute("SELECT count(*) FROM sink").fetchone() == (4,)
