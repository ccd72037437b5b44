"""The line with its first stage by spark-submit and training as a Ray job, and one with a gate."""

import os
from datetime import datetime

from embedmill.airflow import Local, RayJobs, SparkSubmit, embedmill_dag

COMMAND = Local([os.environ["EMBEDMILL"]])
PYTHON = os.environ["EMBEDMILL_PYTHON"]
ROOT = os.environ["EMBEDMILL_ROOT"]
SPARK = SparkSubmit(
    "local[2]",
    command=[os.environ["SPARK_SUBMIT"]],
    conf={"spark.sql.shuffle.partitions": "2", "spark.ui.enabled": "false"},
    environment={"PYSPARK_PYTHON": PYTHON, "PYSPARK_DRIVER_PYTHON": PYTHON},
)
RAY = RayJobs(os.environ["RAY_DASHBOARD"], python=PYTHON, poll_seconds=1)

clusters = embedmill_dag(
    os.environ["EMBEDMILL_CONFIG"],
    dag_id="clusters",
    runners={"events": SPARK, "data": COMMAND, "train": RAY, "finish": COMMAND},
    overrides=[f"run.root={ROOT}/clusters", "train.launcher=ray"],
    schedule=None,
    start_date=datetime(2026, 11, 1),
)
gated = embedmill_dag(
    os.environ["EMBEDMILL_CONFIG"],
    dag_id="gated",
    runners={"data": COMMAND, "train": COMMAND, "finish": COMMAND},
    overrides=[f"run.root={ROOT}/gated", "evaluate.gates.least={'recall@10'=1.5}"],
    schedule=None,
    start_date=datetime(2026, 11, 1),
)
