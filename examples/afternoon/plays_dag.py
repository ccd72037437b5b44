from datetime import datetime, timedelta

from airflow.sdk import CronDataIntervalTimetable

from embedmill.airflow import Local, RayJobs, embedmill_dag

MILL = "/AFTERNOON/mill/bin"
dag = embedmill_dag(
    "/AFTERNOON/plays.toml",
    dag_id="plays",
    runners={
        "data": Local([f"{MILL}/embedmill"]),
        "train": RayJobs("http://127.0.0.1:8265", python=f"{MILL}/python", poll_seconds=2),
        "finish": Local([f"{MILL}/embedmill"]),
    },
    overrides=["train.launcher=ray", "train.workers=2"],
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=datetime(2026, 11, 20),
    end_date=datetime(2026, 11, 23),  # the logs of this afternoon end there
    catchup=False,
    task_options={"retry_delay": timedelta(seconds=10)},
)
