"""Qdrant in its local mode."""

import os
import sys
from pathlib import Path

from muse_as_service import Embedder
from qdrant_client import QdrantClient
from qdrant_client.models import Batch, Distance, VectorParams

sys.path.insert(0, str(Path(__file__).parent))
from common import FOUND, QUERY, batches

embedder = Embedder(os.environ["GATEWAY"])
qdrant = QdrantClient(":memory:")  # or the URL of a server
qdrant.create_collection("texts", vectors_config=VectorParams(size=512, distance=Distance.DOT))
for ids, texts in batches():
    points = Batch(ids=ids, vectors=embedder(texts).tolist(), payloads=[{"text": text} for text in texts])
    qdrant.upsert("texts", points)

nearest = qdrant.query_points("texts", query=embedder([QUERY])[0].tolist(), limit=1).points
assert [point.payload["text"] for point in nearest] == [FOUND]
assert qdrant.count("texts").count == 4
