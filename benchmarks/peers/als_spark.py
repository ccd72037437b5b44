"""Spark MLlib's ALS with implicit preferences on pairs of rows; prints its seconds as JSON.

    als_spark.py FOLDER dim iterations threads regularization alpha

FOLDER has users.npy and items.npy, the rows of each pair; user_factors.npy and
item_factors.npy are written there. The seconds are those of `fit` on a cached frame.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
from pyspark.ml.recommendation import ALS
from pyspark.sql import SparkSession

folder, dim, iterations, threads = Path(sys.argv[1]), *map(int, sys.argv[2:5])
spark = (
    SparkSession.builder.master(f"local[{threads}]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.memory", "4g")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.sql.shuffle.partitions", str(threads))
    .config("spark.log.level", "ERROR")
    .getOrCreate()
)
users, items = np.load(folder / "users.npy"), np.load(folder / "items.npy")
columns = {"user": users.astype(np.int32), "item": items.astype(np.int32)}
columns["rating"] = np.ones(len(users), dtype=np.float32)
pq.write_table(pa.table(columns), folder / "pairs.parquet")
pairs = spark.read.parquet(str(folder / "pairs.parquet")).repartition(threads).cache()
pairs.count()
als = ALS(
    rank=dim,
    maxIter=iterations,
    implicitPrefs=True,
    regParam=float(sys.argv[5]),
    alpha=float(sys.argv[6]),
    numUserBlocks=threads,
    numItemBlocks=threads,
    seed=1,
)
began = time.perf_counter()
model = als.fit(pairs)
seconds = time.perf_counter() - began
for side, factors, rows in (("user", model.userFactors, users), ("item", model.itemFactors, items)):
    path = folder / f"{side}_factors.parquet"
    factors.write.mode("overwrite").parquet(str(path))
    found = pq.read_table(path)
    whole = np.zeros((int(rows.max()) + 1, dim), dtype=np.float32)
    whole[found["id"].to_numpy()] = np.stack(found["features"].to_numpy())
    np.save(folder / f"{side}_factors.npy", whole)
print(json.dumps({"seconds": seconds, "version": pyspark.__version__}))
