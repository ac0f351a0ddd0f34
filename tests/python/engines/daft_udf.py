"""Daft: a function on batches."""

import os
import sys
from pathlib import Path

import daft
from muse_as_service import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from common import TEXTS, check

texts = [*TEXTS, None]
frame = daft.from_pydict({"id": list(range(len(texts))), "sentence": texts})

embedder = Embedder(os.environ["GATEWAY"], on_error="null")


@daft.udf(return_dtype=daft.DataType.embedding(daft.DataType.float32(), 512), batch_size=2_048)
def embed(sentences):
    return embedder.embed(sentences.to_arrow()).to_arrow()


embedded = frame.with_column("vector", embed(frame["sentence"]))

rows = embedded.sort("id").to_pydict()
check(rows["id"], rows["vector"], [*TEXTS, ""], missing=[len(TEXTS)])
