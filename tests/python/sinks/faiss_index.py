"""FAISS: an index of inner products, with the ids of the texts."""

import os
import sys
from pathlib import Path

import faiss
import numpy as np
from muse_as_service import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from common import FOUND, QUERY, TEXTS, batches

embedder = Embedder(os.environ["GATEWAY"])
index = faiss.IndexIDMap2(faiss.IndexFlatIP(512))
for ids, texts in batches():
    index.add_with_ids(embedder(texts), np.array(ids, np.int64))

_, nearest = index.search(embedder([QUERY]), 1)
assert [TEXTS[id] for id in nearest[0]] == [FOUND]
assert index.ntotal == 4
