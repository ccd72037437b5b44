"""Table files → vectors with their ids, in this process, in several, or by Ray tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedmill.jobs.launch import Job, leave, main_of
from embedmill.jobs.launchers import LAUNCHERS
from embedmill.pipeline import export
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["JOB", "build", "main", "sources"]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write the export artifact of a run."""
    export.build(run, out, progress, LAUNCHERS)


def sources(run: Run) -> Mapping[str, Any]:
    """What the stage is built from beside its inputs: the vectors that it aligns to."""
    return export.sources(run)


JOB = Job("export", build, sources)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from a command line; returns the exit code."""
    return main_of(JOB, argv)


if __name__ == "__main__":
    leave(main())
