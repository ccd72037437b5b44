"""Every artifact → one HTML page. Runs where it is called, without an engine."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from embedmill.jobs.launch import Job, main_of
from embedmill.pipeline import report
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["JOB", "build", "main"]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write the report artifact of a run."""
    report.build(run, out, progress)


JOB = Job("report", build)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from a command line; returns the exit code."""
    return main_of(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
