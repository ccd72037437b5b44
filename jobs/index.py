"""Vectors → a measured nearest-neighbour index.

A sharded index is built by what `index.launcher` names: in this process, in several processes, or
by Ray tasks on the cluster of RAY_ADDRESS or on a Ray of its own. One of a single file is built in
this process, or with "ray" by one task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedmill.jobs.launch import Job, leave, main_of
from embedmill.jobs.launchers import LAUNCHERS
from embedmill.pipeline import index
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["JOB", "build", "main", "sources"]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write the index artifact of a run."""
    index.build(run, out, progress, LAUNCHERS)


def sources(run: Run) -> Mapping[str, Any]:
    """What the stage is built from beside its inputs: the index of the previous run."""
    return index.sources(run)


JOB = Job("index", build, sources)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from a command line; returns the exit code."""
    return main_of(JOB, argv)


if __name__ == "__main__":
    leave(main())
