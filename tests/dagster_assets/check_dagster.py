"""A real Dagster materialises the assets: `make test-dagster`, with Python of its environment.

The assets call the command of the other environment, EMBEDMILL.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dagster
from dagster import AssetKey, DagsterInstance, materialize

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "airflow"))

from world import DAYS, process_with, say, write_world  # noqa: E402

from embedmill.dagster import embedmill_assets  # noqa: E402
from embedmill.stage_command import STAGES  # noqa: E402

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
EXAMPLE = ROOT / "examples/schedules/dagster_assets.py"


def versions(instance: DagsterInstance, day: str) -> dict[str, str]:
    """Data version of each stage of a day, as Dagster has stored it."""
    found = {}
    for stage in STAGES:
        key = AssetKey(["plays", stage])
        records = instance.fetch_materializations(
            dagster.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1
        ).records
        found[stage] = records[0].asset_materialization.tags["dagster/data_version"]
    return found


def stored(folder: Path, day: str) -> dict[str, str]:
    """Content hash of each stage of a day, as the run's manifests have it."""
    run = folder / "runs" / f"plays-{day}"
    return {s: json.loads((run / s / "manifest.json").read_text())["content"] for s in STAGES}


def check_example(folder: Path, instance: DagsterInstance) -> None:
    """The example by Dagster's command line: one day, twice."""
    words = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize"]
    words += ["--python-file", str(EXAMPLE), "--select", "*", "--partition", DAYS[0]]
    for _ in range(2):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        assert versions(instance, DAYS[0]) == stored(folder, DAYS[0])
    assert states(instance, DAYS[0]) == {"up to date"}
    say(f"dagster {dagster.__version__}: {DAYS[0]} by the command line, twice, one version each")


def states(instance: DagsterInstance, day: str) -> set[Any]:
    """What the last materialisations of a day say of themselves."""
    found = set()
    for stage in STAGES:
        records = instance.fetch_materializations(
            dagster.AssetRecordsFilter(
                asset_key=AssetKey(["plays", stage]), asset_partitions=[day]
            ),
            limit=1,
        ).records
        found.add(records[0].asset_materialization.metadata["state"].value)
    return found


def killer() -> None:
    """Kill the command of stage vocab once."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        pid = process_with("--from", "vocab", f"ds={DAYS[1]}")
        if pid:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)


def check_retries(folder: Path, instance: DagsterInstance) -> None:
    """A day whose stage vocab is killed once; then a gate that fails, which is tried once."""
    given = {"start": DAYS[0], "name": "plays", "command": [os.environ["EMBEDMILL"]]}
    config = os.environ["EMBEDMILL_CONFIG"]
    threading.Thread(target=killer, daemon=True).start()
    done = materialize(
        embedmill_assets(config, **given, retry_seconds=1),
        instance=instance, partition_key=DAYS[1], run_config=QUIET,
    )  # fmt: skip
    assert done.success
    retried = [e.step_key for e in done.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"]
    assert retried == ["plays__vocab"], retried
    assert versions(instance, DAYS[1]) == stored(folder, DAYS[1])
    assert versions(instance, DAYS[1])["events"] != versions(instance, DAYS[0])["events"]
    say(f"{DAYS[1]} with a task killed: tried again, and finished")
    gate = [f"run.root={folder}/gated", "evaluate.gates.least={'recall@10'=1.5}"]
    done = materialize(
        embedmill_assets(config, **given, overrides=gate),
        instance=DagsterInstance.ephemeral(), partition_key=DAYS[0], raise_on_error=False,
        run_config=QUIET,
    )  # fmt: skip
    kinds = [e.event_type_value for e in done.all_events if e.step_key == "plays__report"]
    assert not done.success
    assert "STEP_FAILURE" in kinds
    assert "STEP_UP_FOR_RETRY" not in kinds
    say("a gate that fails: tried once")


def main(folder: Path) -> None:
    """Run everything in `folder`."""
    os.environ["EMBEDMILL_CONFIG"] = str(write_world(folder))
    os.environ["DAGSTER_HOME"] = str(folder / "dagster")
    (folder / "dagster").mkdir()
    (folder / "dagster/dagster.yaml").write_text("telemetry: {enabled: false}\n")
    instance = DagsterInstance.get()
    check_example(folder, instance)
    check_retries(folder, instance)
    assert not {"torch", "pyarrow", "ray", "pyspark", "faiss", "numpy"} & set(sys.modules)
    say("as expected")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
