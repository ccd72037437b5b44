"""A night's run on Airflow 3. Copy it to the DAGs folder; docs/guides/schedulers.md says more."""

import os
from datetime import datetime

from embedmill.airflow import embedmill_dag

dag = embedmill_dag(
    os.environ.get("EMBEDMILL_CONFIG", "/etc/embedmill/plays.toml"),
    dag_id="plays",
    command=os.environ.get("EMBEDMILL_COMMAND", "embedmill").split(),
    schedule="0 3 * * *",
    start_date=datetime(2026, 11, 1),
    catchup=False,
)
