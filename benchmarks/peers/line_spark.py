"""From a Parquet log to recommendations by Spark SQL and MLlib's ALS, in one JVM.

    line_spark.py LOG OUT SAMPLE dim iterations threads regularization alpha

Arguments and files are those of line_hand_made.py; MLlib has no index. Ids are numbered by joins
with tables of numbered ids, which are written anyway: the model of a StringIndexer is one array of
all ids on the driver, which every task gets a copy of and looks up row by row.

`recommendForUserSubset` cannot leave out seen items: users are asked for in groups by the number of
items they have seen, to the next power of four, each for so many more.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from harness.step_log import StepLog
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession, Window, functions

K = 20
SIDES = ("user", "item")


def main() -> None:
    log, out, sample = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    dim, iterations, threads = map(int, sys.argv[4:7])
    steps, spark = StepLog(out / "steps.jsonl"), session(threads, out)
    with steps.step("prepare"):
        ids, events = numbered(spark, log, out)
        events = stored(split(events), out / "events")
    with steps.step("train"):
        pairs = events.where("from_end > 2").select("user_row", "item_row").distinct()
        als = ALS(
            userCol="user_row", itemCol="item_row", ratingCol="one", rank=dim, seed=1,
            maxIter=iterations, implicitPrefs=True, regParam=float(sys.argv[7]),
            alpha=float(sys.argv[8]), numUserBlocks=threads, numItemBlocks=threads,
        )  # fmt: skip
        model = als.fit(pairs.withColumn("one", functions.lit(1.0)))
    with steps.step("index"):
        for side, factors in zip(SIDES, (model.userFactors, model.itemFactors), strict=True):
            named = factors.join(ids[side], factors["id"] == ids[side][f"{side}_row"])
            columns = {side: "id", "features": "vector"}
            vectors = named.select(*columns).withColumnsRenamed(columns)
            stored(vectors, out / f"{side}s.parquet")
    with steps.step("recommend"):
        users = stored(spark.read.parquet(sample).join(ids["user"], "user"), out / "sample")
        seconds = recommend(model, ids, events, users, out)
    every, some = model.userFactors.count(), users.count()
    steps.figures({"users_per_second": some / seconds, "all_users_seconds": every / some * seconds})
    spark.stop()


def session(threads: int, out: Path) -> SparkSession:
    return (
        SparkSession.builder.master(f"local[{threads}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "12g")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.local.dir", str(out / "scratch"))
        .config("spark.sql.shuffle.partitions", str(8 * threads))
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )


def stored(frame: DataFrame, path: Path) -> DataFrame:
    """The frame, written and to be read again, so that it is computed once."""
    frame.write.mode("overwrite").parquet(str(path))
    return frame.sparkSession.read.parquet(str(path))


def numbered(spark: SparkSession, log: str, out: Path) -> tuple[dict[str, DataFrame], DataFrame]:
    """Ids of both sides with their rows, and distinct events as rows and time."""
    events = spark.read.parquet(log).select("user", "item", "time").distinct()
    ids = {}
    for side in SIDES:
        # Of one partition the increasing numbers are 0, 1, 2 ...
        one = spark.read.parquet(log).select(side).distinct().repartition(1)
        row = functions.monotonically_increasing_id().cast("int")
        ids[side] = stored(one.withColumn(f"{side}_row", row), out / f"{side}_ids")
        events = events.join(ids[side], side)
    return ids, events.select("user_row", "item_row", "time")


def split(events: DataFrame) -> DataFrame:
    """With a column `from_end`: 1 test, 2 validation; above it, or of a short history, train."""
    own = Window.partitionBy("user_row")
    last_first = own.orderBy(functions.desc("time"), functions.desc("item_row"))
    short = functions.count("*").over(own) <= 2
    return events.withColumn(
        "from_end", functions.when(short, 3).otherwise(functions.row_number().over(last_first))
    )


def recommend(
    model: ALSModel, ids: dict[str, DataFrame], events: DataFrame, users: DataFrame, out: Path
) -> float:
    """The best unseen items of some users, and what is held out of them; seconds of the scoring."""
    own = events.join(functions.broadcast(users), "user_row").join(ids["item"], "item_row")
    own = stored(own, out / "own")
    held_out = own.where("from_end = 1").select("user", "item")
    held_out.write.mode("overwrite").parquet(str(out / "held_out.parquet"))
    seen = own.where("from_end > 1").select("user_row", "item_row").distinct()
    power = functions.ceil(functions.log2(functions.count("*")) / 2)
    groups = stored(seen.groupBy("user_row").agg(power.alias("power")), out / "groups")
    began, parts = time.perf_counter(), []
    for power in sorted(row["power"] for row in groups.select("power").distinct().collect()):
        group = groups.where(functions.col("power") == power).select("user_row")
        answers = model.recommendForUserSubset(group, K + 4**power)
        flat = answers.select(
            "user_row", functions.posexplode("recommendations").alias("at", "found")
        )
        parts.append(stored(flat.select("user_row", "at", "found.item_row"), out / f"best-{power}"))
    seconds = time.perf_counter() - began
    found = parts[0]
    for part in parts[1:]:
        found = found.unionByName(part)
    unseen = found.join(seen, ["user_row", "item_row"], "left_anti")
    rank = functions.row_number().over(Window.partitionBy("user_row").orderBy("at"))
    best = unseen.withColumn("rank", rank).where(functions.col("rank") <= K)
    named = best.join(users, "user_row").join(ids["item"], "item_row")
    stored(named.select("user", "rank", "item"), out / "recommendations.parquet")
    return seconds


if __name__ == "__main__":
    main()
