"""The driver of a test's cluster: `spark-submit submitted.py ORDERS [SOURCE]`.

ORDERS is a JSON list of runs: the TOML, the stages to run by their jobs, the faults of their
tasks, and a folder for what is known of them. All are run in one session, one after the other.
SOURCE is where the driver, and it alone, finds our packages, unless they were submitted.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from pyspark.sql import SparkSession

PIECE = 2048  # bytes that are a task of their own, so that a small log makes many


def main(orders: str, source: str = "") -> None:
    if source:
        sys.path.insert(0, source)
    from faults import planted  # shipped beside this file

    from embedmill import __version__
    from embedmill.pipeline.prepare.engine import frames
    from embedmill.pipeline.prepare.readers import read_plan

    frames.TASK_BYTES = read_plan.TASK_BYTES = PIECE
    for order in json.loads(Path(orders).read_text(encoding="utf-8")):
        folder = Path(order["folder"])
        with planted(order["faults"], folder / "tasks"):
            codes = [
                import_module(f"embedmill.jobs.{stage}").main([order["config"]])
                for stage in order["stages"]
            ]
        said = {"codes": codes, "version": __version__}
        (folder / "done.json").write_text(json.dumps(said), encoding="utf-8")
        session = SparkSession.getActiveSession()
        if session is not None:
            Path("application").write_text(session.sparkContext.applicationId, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
