"""PySpark: `mapInPandas` with two local executors' worth of Python workers."""

import os
import sys
from pathlib import Path

from muse_as_service import Embedder, MUSEClient
from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).parent))
from common import TEXTS, check

os.environ["PYSPARK_PYTHON"] = sys.executable
builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.log.level", "ERROR")
spark = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1").getOrCreate()
spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 2_048)
frame = spark.createDataFrame(list(enumerate(TEXTS)), "id long, sentence string").repartition(4)

with MUSEClient(url=os.environ["GATEWAY"]) as client:
    fingerprint = client.model().fingerprint
embedder = Embedder(os.environ["GATEWAY"], fingerprint=fingerprint)


def add_vectors(batches):
    for batch in batches:
        yield batch.assign(vector=list(embedder(batch["sentence"])))


embedded = frame.mapInPandas(add_vectors, "id long, sentence string, vector array<float>")

rows = embedded.orderBy("id").collect()
check([row.id for row in rows], [row.vector for row in rows])
spark.stop()
