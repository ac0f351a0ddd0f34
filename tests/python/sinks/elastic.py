"""Elasticsearch: the bulk helper. ELASTICSEARCH is the URL of a server."""

import os
import sys
from pathlib import Path

from elasticsearch import Elasticsearch
from elasticsearch.helpers import bulk
from muse_as_service import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from common import FOUND, QUERY, batches

embedder = Embedder(os.environ["GATEWAY"])
elastic = Elasticsearch(os.environ["ELASTICSEARCH"])
vector = {"type": "dense_vector", "dims": 512, "similarity": "dot_product"}
elastic.indices.create(index="texts", mappings={"properties": {"text": {"type": "text"}, "vector": vector}})
for ids, texts in batches():
    rows = zip(ids, texts, embedder(texts).tolist())
    bulk(elastic, ({"_index": "texts", "_id": id, "text": text, "vector": vector} for id, text, vector in rows))

elastic.indices.refresh(index="texts")
knn = {"field": "vector", "query_vector": embedder([QUERY])[0].tolist(), "k": 1, "num_candidates": 10}
nearest = elastic.search(index="texts", knn=knn)["hits"]["hits"]
assert [hit["_source"]["text"] for hit in nearest] == [FOUND]
