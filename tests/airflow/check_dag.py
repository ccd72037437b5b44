"""A real Airflow runs the DAG of examples/schedules/airflow.py: `make test-airflow`.

Python of an environment that has Airflow and none of embedmill's own dependencies runs it; the
tasks call the command of the other environment. Two dates, each twice; then a gate that fails.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DAYS = ("2026-11-20", "2026-11-21")
TOML = """\
[vars]
ds = "2026-11-20"
[run]
name = "plays-{{ds}}"
root = "{folder}/runs"
partitions = 2
[events]
paths = "{folder}/logs/date={{ds}}/*.tsv"
format = "tsv"
user = "user"
item = "item"
time = "time"
[vocab]
previous = "published"
[train]
objective = "spectral"
dim = 8
workers = 1
launcher = "inline"
[index]
kind = "flat"
"""


def write_world(folder: Path) -> Path:
    """Logs of two days with users and items in four clusters, and the config; returns its path."""
    for number, day in enumerate(DAYS):
        lines = ["user\titem\ttime"]
        for user in range(40):
            for step in range(6):
                item = user % 4 + 4 * ((user * 7 + step * (3 + number)) % 10)
                lines.append(f"u{user}\ti{item}\t{1_600_000_000 + 86_400 * step + user}")
        log = folder / "logs" / f"date={day}" / "part.tsv"
        log.parent.mkdir(parents=True)
        log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = folder / "plays.toml"
    config.write_text(TOML.format(folder=folder), encoding="utf-8")
    return config


def load_dag(config: Path) -> Any:
    """The DAG of the example, as Airflow would load it."""
    os.environ["EMBEDMILL_CONFIG"] = str(config)
    path = ROOT / "examples" / "schedules" / "airflow.py"
    spec = importlib.util.spec_from_file_location("plays", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dag


def run(dag: Any, day: str) -> tuple[str, dict[str, Any]]:
    """State of a run for a day, and for each task (state, result, tries)."""
    done = dag.test(logical_date=datetime.fromisoformat(day).replace(tzinfo=UTC))
    tasks = {}
    for task in done.get_task_instances():
        tasks[task.task_id] = (
            str(task.state),
            task.xcom_pull(task_ids=task.task_id),
            task.try_number,
        )
    return str(done.state), tasks


def check(config: Path) -> None:
    """Raise AssertionError where a run is not what it should be."""
    assert not {"torch", "pyarrow", "ray", "pyspark", "faiss"} & set(sys.modules)
    dag = load_dag(config)
    assert next(task.task_id for task in dag.tasks) == "events"
    contents: dict[str, list[str]] = {}
    for expected in ("built", "up to date"):
        for day in DAYS:
            state, tasks = run(dag, day)
            assert state.endswith("success"), (day, tasks)
            results = [result for _, result, _ in tasks.values()]
            assert {one["stages"][0]["state"] for one in results} == {expected}, (day, expected)
            assert {one["run"] for one in results} == {f"plays-{day}"}
            found = sorted(one["stages"][0]["content"] for one in results)
            assert contents.setdefault(day, found) == found
    pointer = json.loads((config.parent / "runs" / "published.json").read_text())
    assert pointer["run"] == f"plays-{DAYS[1]}"
    assert pointer["continues"].endswith(f"plays-{DAYS[0]}")
    config.write_text(config.read_text() + "[evaluate.gates]\nleast = {'recall@10' = 1.5}\n")
    for name in (f"plays-{DAYS[1]}/evaluate", f"plays-{DAYS[1]}/report"):
        (config.parent / "runs" / name / "manifest.json").unlink()
    state, tasks = run(dag, DAYS[1])
    assert state.endswith("failed")
    assert tasks["report"][0].endswith("failed"), tasks["report"]
    assert tasks["report"][2] <= 1, "a gate is tried once"


if __name__ == "__main__":
    check(write_world(Path(sys.argv[1])))
    print("airflow: two dates, each twice, and a gate that failed: as expected")
