"""Vectors and index → metrics on test, and gates; in this process, in several, or by Ray tasks."""

from __future__ import annotations

from collections.abc import Sequence

from embedmill.jobs.launch import Job, leave, main_of
from embedmill.jobs.launchers import LAUNCHERS
from embedmill.pipeline import evaluate
from embedmill.pipeline.config import Config
from embedmill.pipeline.index import open_index
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["JOB", "build", "check", "main"]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write the evaluate artifact of a run."""
    evaluate.build(run, out, progress, open_index, LAUNCHERS)


def check(config: Config) -> None:
    """Raise ConfigError where a gate names a metric that the run will not have."""
    evaluate.check_gates(config)


JOB = Job("evaluate", build, check=check)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from a command line; returns the exit code."""
    return main_of(JOB, argv)


if __name__ == "__main__":
    leave(main())
