"""Dask: `map_partitions` in two processes."""

import os
import sys
from pathlib import Path

import dask.dataframe as dd
import pandas as pd
from muse_as_service import Embedder, MUSEClient

sys.path.insert(0, str(Path(__file__).parent))
from common import TEXTS, check

if __name__ == "__main__":
    frame = dd.from_pandas(pd.DataFrame({"id": range(len(TEXTS)), "sentence": TEXTS}), npartitions=6)

    with MUSEClient(url=os.environ["GATEWAY"]) as client:
        fingerprint = client.model().fingerprint
    embedder = Embedder(os.environ["GATEWAY"], fingerprint=fingerprint)

    def add_vectors(partition):
        return partition.assign(vector=list(embedder(partition["sentence"])))

    embedded = frame.map_partitions(add_vectors, meta={**frame.dtypes, "vector": object})

    rows = embedded.compute(scheduler="processes", num_workers=2)
    check(rows["id"], rows["vector"])
