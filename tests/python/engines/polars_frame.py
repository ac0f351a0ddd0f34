"""Polars: `map_batches` of a lazy frame. Missing texts have no vector."""

import os
import sys
from pathlib import Path

import polars as pl
from muse_as_service import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from common import TEXTS, check

texts = [*TEXTS, None, "x y " * 5_000]
frame = pl.LazyFrame({"id": range(len(texts)), "sentence": texts})

embedder = Embedder(os.environ["GATEWAY"], on_error="null")
vector = pl.Array(pl.Float32, 512)


def embed(sentences):
    return pl.Series(embedder.embed(sentences).to_arrow(), dtype=vector)


embedded = frame.with_columns(pl.col("sentence").map_batches(embed, return_dtype=vector).alias("vector"))

rows = embedded.collect()
check(rows["id"], rows["vector"].to_list(), [*TEXTS, "", ""], missing=[len(TEXTS), len(TEXTS) + 1])
