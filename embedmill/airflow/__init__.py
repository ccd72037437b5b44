"""Airflow 3: a DAG with a task for each stage, by a command, spark-submit or Ray Jobs.

    from embedmill.airflow import RayJobs, SparkSubmit, embedmill_dag

    dag = embedmill_dag(
        "/etc/embedmill/plays.toml",
        runners={"data": SparkSubmit("spark://head:7077"), "train": RayJobs("http://ray-head:8265")},
        schedule="@daily",
        start_date=...,
    )

Imports Airflow, the standard library and no engine: install it there with
`pip install --no-deps embedmill`, and give the `embedmill` of another environment as command.
"""

from embedmill.airflow.dag import Local, RayJobs, Runner, SparkSubmit, embedmill_dag
from embedmill.airflow.ray_operator import RayJobOperator, RayJobTrigger
from embedmill.airflow.stage_operator import EmbedmillOperator

__all__ = [
    "EmbedmillOperator",
    "Local",
    "RayJobOperator",
    "RayJobTrigger",
    "RayJobs",
    "Runner",
    "SparkSubmit",
    "embedmill_dag",
]
