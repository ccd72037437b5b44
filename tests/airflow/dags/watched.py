"""Ray jobs whose watchers die: each adds a line to a file when it starts, and takes a while."""

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG

from embedmill.airflow import RayJobOperator

STARTED = os.environ["EMBEDMILL_ROOT"] + "/started"
WORK = "for i in $(seq 30); do echo line $i; sleep 1; done"
RESULT = '{"exit_code": 0, "stages": []}'

with DAG("watched", schedule=None, start_date=datetime(2026, 11, 1)):
    for name, deferrable in (("by_worker", False), ("by_triggerer", True)):
        RayJobOperator(
            task_id=name,
            entrypoint=f"echo {name} >> {STARTED}; {WORK}; echo '{RESULT}'",
            address=os.environ["RAY_DASHBOARD"],
            deferrable=deferrable,
            poll_seconds=1,
            retries=2,
            retry_delay=timedelta(seconds=1),
        )

with DAG("stopped", schedule=None, start_date=datetime(2026, 11, 1)):
    for name, deferrable in (("by_worker", False), ("by_triggerer", True)):
        RayJobOperator(
            task_id=name,
            entrypoint="sleep 600",
            address=os.environ["RAY_DASHBOARD"],
            deferrable=deferrable,
            poll_seconds=1,
        )

with DAG("failing", schedule=None, start_date=datetime(2026, 11, 1)):
    for code in (3, 7):
        RayJobOperator(
            task_id=f"exit_{code}",
            entrypoint=f"exit {code}",
            address=os.environ["RAY_DASHBOARD"],
            poll_seconds=1,
            retries=1,
            retry_delay=timedelta(seconds=1),
        )
