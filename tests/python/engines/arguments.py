"""The types of pandas and polars as arguments of the client: columns are accepted, tables are not."""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from muse_as_service import Embedder, MUSEClient

sys.path.insert(0, str(Path(__file__).parent))
from common import TEXTS, expected

texts = TEXTS[:9]
vectors = expected(texts)
frame = pd.DataFrame({"sentence": texts}, index=range(9, 0, -1))
columns = [
    frame["sentence"],
    frame["sentence"].astype("string"),
    frame["sentence"].astype("category"),
    frame["sentence"].to_numpy(),
    pd.Index(texts),
    pl.Series(texts),
    pl.Series(texts, dtype=pl.Categorical),
]
with MUSEClient(url=os.environ["GATEWAY"], dtype=np.float32) as client:
    for column in columns:
        assert np.abs(client.embed(column) - vectors).max() < 1e-5, type(column)
    for table in (
        frame,
        frame[["sentence"]],
        pl.from_pandas(frame),
        pl.from_pandas(frame).lazy(),
        frame.to_dict(),
        frame.groupby("sentence"),
    ):
        try:
            client.embed(table)
        except TypeError as error:
            assert "pass" in str(error) or "must be a string" in str(error), error
        else:
            raise AssertionError(f"{type(table)} is accepted")
    for missing in pd.Series(["a", None]), pd.Series(["a", pd.NA], dtype="string"), pl.Series(["a", None]), pd.Series(["a", float("nan")]):
        try:
            client.embed(missing)
        except TypeError as error:
            assert "sentences[1] must be a string, not a missing value" in str(error), error
        else:
            raise AssertionError(f"{missing!r} is accepted")
        embedded = Embedder(os.environ["GATEWAY"], on_error="null").embed(missing)
        assert embedded.reasons == [None, "null"]
