"""Ray Data: `map_batches` on a local cluster."""

import os
import sys
from pathlib import Path

import ray
from muse_as_service import Embedder, MUSEClient

sys.path.insert(0, str(Path(__file__).parent))
from common import TEXTS, check

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
ray.data.DataContext.get_current().enable_progress_bars = False
ray.data.DataContext.get_current().execution_options.preserve_order = True
dataset = ray.data.from_items([{"id": id, "sentence": text} for id, text in enumerate(TEXTS)]).repartition(8)

with MUSEClient(url=os.environ["GATEWAY"]) as client:
    fingerprint = client.model().fingerprint
embedder = Embedder(os.environ["GATEWAY"], fingerprint=fingerprint)


def add_vectors(batch):
    batch["vector"] = embedder(batch["sentence"])
    return batch


embedded = dataset.map_batches(add_vectors, batch_size=2_048, concurrency=2)

rows = embedded.take_all()
check([row["id"] for row in rows], [row["vector"] for row in rows])
ray.shutdown()
