"""A look at a log before any run: the data stages in scratch, their figures, a page.

    python jobs/profile.py plays.toml
    spark-submit --py-files dist/embedmill-0.1.0-py3-none-any.whl jobs/profile.py plays.toml

What it tells is what a run would make, because the stages make it. Those that have finished
in the run with this very config are not built again; all else goes to a scratch folder below
the run's, and is removed at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from embedmill.jobs.launch import exit_code
from embedmill.pipeline.config import load
from embedmill.pipeline.errors import ArtifactError, InputError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.prepare import events, shards, vocab
from embedmill.pipeline.prepare.engine.connection import open_session
from embedmill.pipeline.prepare.vocabulary import base_vocabulary
from embedmill.pipeline.report import profile as pages
from embedmill.pipeline.report import profile_text
from embedmill.pipeline.store.artifact import Artifact, Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.manifest import Manifest

__all__ = ["Profile", "main", "profile"]

PAGE = "profile/index.html"
_SCRATCH = "profile/scratch"


@dataclass(frozen=True)
class Profile:
    """Figures of a log as JSON, and the URL of the page about them."""

    data: dict[str, Any]
    page: str


@dataclass(frozen=True)
class _Scratch(Run):
    """A run that reads finished stages where they are and writes others to a folder of its own."""

    finished: Mapping[str, Artifact] = field(default_factory=dict)

    @property
    def storage(self) -> Storage:
        """The scratch folder."""
        return super().storage.at(_SCRATCH)

    def manifest(self, stage: str) -> Manifest | None:
        """That of the finished stage, or of the one in scratch."""
        done = self.finished.get(stage)
        return super().manifest(stage) if done is None else done.manifest

    def find(self, stage: str) -> Artifact | None:
        """The finished stage, or the one in scratch."""
        return self.finished.get(stage) or super().find(stage)


@dataclass(frozen=True)
class _Stage:
    """How a stage is built for a look, and what its raw sources are stamped with."""

    build: Callable[[SparkSession, Run, Writer, Progress], None]
    sources: Callable[[Run], Mapping[str, Any]]


_STAGES = {
    "events": _Stage(partial(events.build, strict=False), events.source_stamps),
    "vocab": _Stage(vocab.build, base_vocabulary.source_stamps),
    "shards": _Stage(shards.build, lambda _: {}),
}


def profile(run: Run, terminal: Terminal | None = None) -> Profile:
    """Look at the log of a run, whether or not anything of it was built.

    Bad lines never stop it: where a run would, or a stage cannot be built of this log, the
    profile says so.

    Args:
        run: the run.
        terminal: where progress is shown.

    Raises:
        InputError: the log is not there, is empty, or lacks a column.
        ConfigError, MissingArtifactError: the previous run cannot be continued.
    """
    base_vocabulary.check_base_vocabulary(run.config)
    with _scratch(run) as scratch:
        lacking = _built(scratch, terminal or Terminal(sys.stderr))
        art = {stage: found for stage in _STAGES if (found := scratch.find(stage)) is not None}
        data = pages.gather(art, run.config, lacking)
        run.storage.write(PAGE, pages.render(data, art, run.config).encode())
    return Profile(data, run.storage.url(PAGE))


@contextmanager
def _scratch(run: Run) -> Iterator[_Scratch]:
    """The run's finished stages and an empty scratch folder, which is gone afterwards."""
    scratch = _Scratch(run.config, finished=_finished(run))
    scratch.storage.clear()
    try:
        yield scratch
    finally:
        scratch.storage.clear()


def _finished(run: Run) -> dict[str, Artifact]:
    """Stages of the run that are up to date."""
    found: dict[str, Artifact] = {}
    for stage, how in _STAGES.items():
        try:
            if not run.up_to_date(stage, how.sources(run)):
                break
            found[stage] = run.artifact(stage)
        except ArtifactError:
            break  # stale or damaged: it is built anew, in scratch
    return found


def _built(scratch: _Scratch, terminal: Terminal) -> dict[str, str]:
    """Build what has not finished; returns why a stage could not be built."""
    missing = [stage for stage in _STAGES if stage not in scratch.finished]
    config = scratch.config.run
    with ExitStack() as stack:
        session = stack.enter_context(open_session(config.engine, config.root)) if missing else None
        for stage in missing:
            if stage != "events" and not scratch.artifact("events").counters["events"]:
                return {"vocab and shards": "the log has no events"}
            try:
                _build(scratch, stage, session, terminal)
            except InputError as error:
                if stage == "events":
                    raise
                return {" and ".join(missing[missing.index(stage) :]): str(error).rstrip(".")}
    return {}


def _build(scratch: _Scratch, stage: str, session: Any, terminal: Terminal) -> None:
    how = _STAGES[stage]
    out = scratch.writer(stage, how.sources(scratch))
    with terminal.stage(stage) as progress:
        how.build(session, scratch, out, progress)
    terminal.finished(stage, scratch.artifact(stage))


def main(argv: Sequence[str] | None = None) -> int:
    """Look at a log from a command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="jobs/profile.py", description="Look at a run's log.")
    parser.add_argument("config", help="the run's TOML")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    args = parser.parse_args(argv)

    def work() -> None:
        found = profile(Run(load(args.config, args.set)))
        print(*profile_text.lines(found.data), f"page: {found.page}", sep="\n")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
