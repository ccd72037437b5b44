"""Vectors → a measured nearest-neighbour index. Runs where it is called, without an engine."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.launch import Job, main_of
from pipeline import index
from pipeline.artifact import Writer
from pipeline.config import Config
from pipeline.log import Progress
from pipeline.run import Run

__all__ = ["build", "check", "main", "sources"]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write the index artifact of a run."""
    index.build(run, out, progress)


def sources(run: Run) -> Mapping[str, Any]:
    """What the stage is built from beside its inputs: the index of the run before."""
    return index.sources(run)


def check(config: Config) -> None:
    """Raise ConfigError where `index.kind` is no index."""
    index.check_kind(config.index.kind)


def main(argv: Sequence[str] | None = None) -> int:
    """`jobs/index.py CONFIG`."""
    return main_of("index", Job(build, sources, check), argv)


if __name__ == "__main__":
    sys.exit(main())
