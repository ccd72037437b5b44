"""A night's run on Airflow 3. Copy it to the DAGs folder; docs/guides/schedulers.md says more."""

import os
from datetime import datetime

from airflow.sdk import CronDataIntervalTimetable

from embedmill.airflow import Local, embedmill_dag

here = Local([os.environ.get("EMBEDMILL", "embedmill")])
dag = embedmill_dag(
    os.environ.get("EMBEDMILL_CONFIG", "/etc/embedmill/plays.toml"),
    dag_id="plays",
    runners={"data": here, "train": here, "finish": here},
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),  # {{ ds }} is yesterday
    start_date=datetime(2026, 11, 1),
    catchup=False,
)
