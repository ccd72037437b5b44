"""Stage `shards` on a DataFrame engine: `spark-submit jobs/shards.py CONFIG`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from embedmill.jobs.launch import Job, main_of
from embedmill.pipeline.log import Progress
from embedmill.pipeline.prepare import shards
from embedmill.pipeline.prepare.engine.connection import open_session, shuffle_gauge
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["JOB", "build", "main"]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Build the stage on the engine that the config or spark-submit names."""
    with open_session(run.config.run.engine, run.config.run.root) as session:
        out.gauges.append(shuffle_gauge(session))
        shards.build(session, run, out, progress)


JOB = Job("shards", build)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from a command line; returns the exit code."""
    return main_of(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
