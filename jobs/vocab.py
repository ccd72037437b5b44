"""Stage `vocab` on a DataFrame engine: `spark-submit jobs/vocab.py CONFIG`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from embedmill.jobs.launch import Job, main_of
from embedmill.pipeline.config import Config
from embedmill.pipeline.log import Progress
from embedmill.pipeline.prepare import vocab
from embedmill.pipeline.prepare.engine.connection import open_session, shuffle_gauge
from embedmill.pipeline.prepare.vocabulary import base_vocabulary
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["JOB", "build", "check", "main", "sources"]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Build the stage on the engine that the config or spark-submit names."""
    with open_session(run.config.run.engine, run.config.run.root) as session:
        out.gauges.append(shuffle_gauge(session))
        vocab.build(session, run, out, progress)


def sources(run: Run) -> Mapping[str, Any]:
    """What the stage is built from beside events: the content of the base vocabulary."""
    return base_vocabulary.source_stamps(run)


def check(config: Config) -> None:
    """Raise if the base vocabulary that the config names cannot be used."""
    base_vocabulary.check_base_vocabulary(config)


JOB = Job("vocab", build, sources, check)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from a command line; returns the exit code."""
    return main_of(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
