"""Bytes of shuffles, where the engine tells."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from embedmill.pipeline.prepare.engine.connection import shuffle_gauge
from embedmill.pipeline.prepare.engine.frames import collect

ROWS = 100_000
TABLE = pa.table({"n": np.random.default_rng(1).integers(2**62, size=ROWS)})


@pytest.mark.spark
def test_spark_tells_what_went_through_a_shuffle(spark: SparkSession) -> None:
    gauge = shuffle_gauge(spark)
    frame = spark.createDataFrame(TABLE)
    collect(frame.groupBy().count())
    little = gauge()["shuffle_bytes"]  # counts of tasks alone
    assert 0 < little < ROWS
    collect(frame.repartition(3, "n").groupBy().count())
    # Numbers at random are not made any smaller.
    assert gauge()["shuffle_bytes"] - little > 7.5 * ROWS
    assert shuffle_gauge(spark)() == {"shuffle_bytes": 0}


def test_the_embedded_engine_does_not_tell(sail: SparkSession) -> None:
    gauge = shuffle_gauge(sail)
    collect(sail.createDataFrame(TABLE).repartition(3, "n").groupBy().count())
    assert gauge() == {}
