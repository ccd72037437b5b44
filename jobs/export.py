"""Table files → vectors with their ids. Runs where it is called, without an engine."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from embedmill.jobs.launch import Job, main_of
from embedmill.pipeline import export
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["build", "main"]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write the export artifact of a run."""
    export.build(run, out, progress)


def main(argv: Sequence[str] | None = None) -> int:
    """`jobs/export.py CONFIG`."""
    return main_of("export", Job(build), argv)


if __name__ == "__main__":
    sys.exit(main())
