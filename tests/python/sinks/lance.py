"""LanceDB: a table from a stream of Arrow batches."""

import os
import sys
import tempfile
from pathlib import Path

import lancedb
import pyarrow as pa
from muse_as_service import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from common import FOUND, QUERY, batches

embedder = Embedder(os.environ["GATEWAY"])
schema = pa.schema({"id": pa.int64(), "text": pa.string(), "vector": pa.list_(pa.float32(), 512)})


def rows():
    for ids, texts in batches():
        vectors = embedder.embed(texts).to_arrow()
        yield pa.record_batch([pa.array(ids, pa.int64()), pa.array(texts), vectors], schema=schema)


with tempfile.TemporaryDirectory() as folder:
    table = lancedb.connect(folder).create_table("texts", rows(), schema=schema)

    nearest = table.search(embedder([QUERY])[0]).metric("dot").limit(1).to_list()
    assert [row["text"] for row in nearest] == [FOUND]
    assert table.count_rows() == 4
