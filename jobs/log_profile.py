"""The profile of a log before any run: figures and a page, from the data stages.

    python jobs/log_profile.py plays.toml
    spark-submit --py-files dist/embedmill-0.1.0-py3-none-any.whl jobs/log_profile.py plays.toml

The figures are those of a run, because the stages of a run compute them. A stage that has
finished in the run with the same config is not built again. The others are built in a scratch
folder below the run's, which is removed at the end.
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

from embedmill.jobs.launch import add_config, exit_code
from embedmill.pipeline.config import load
from embedmill.pipeline.errors import ArtifactError, InputError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.prepare import events, shards, vocab
from embedmill.pipeline.prepare.engine.connection import open_session
from embedmill.pipeline.prepare.vocabulary import base_vocabulary
from embedmill.pipeline.report import profile as pages
from embedmill.pipeline.report import profile_text
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.lease import drive
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.manifest import Manifest
from embedmill.schemas.run import LEASES

__all__ = ["Profile", "main", "profile"]

PAGE = "profile/index.html"
_FOLDER = "profile"
_SCRATCH = f"{_FOLDER}/scratch"


@dataclass(frozen=True)
class Profile:
    """Figures of a log, and the URL of the page about them."""

    data: pages.ProfileData
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
        """The manifest of the finished stage, or of the one in the scratch folder."""
        artifact = self.finished.get(stage)
        return super().manifest(stage) if artifact is None else artifact.manifest

    def find(self, stage: str) -> Artifact | None:
        """The artifact of the finished stage, or of the one in the scratch folder."""
        return self.finished.get(stage) or super().find(stage)


@dataclass(frozen=True)
class _Stage:
    """How a stage is built for a profile, and the stamps of its raw sources."""

    build: Callable[[SparkSession, Run, Writer, Progress], None]
    sources: Callable[[Run], Mapping[str, Any]]


_STAGES = {
    "events": _Stage(partial(events.build, strict=False), events.source_stamps),
    "vocab": _Stage(vocab.build, base_vocabulary.source_stamps),
    "shards": _Stage(shards.build, lambda _: {}),
}


def profile(run: Run, terminal: Terminal | None = None) -> Profile:
    """Profile the log of a run, whether or not any stage of the run has finished.

    Bad lines never stop it. If they would stop a run, or if a stage cannot be built from this
    log, the profile says so.

    Args:
        run: the run.
        terminal: where progress is shown; stderr by default.

    Raises:
        InputError: the log does not exist, is empty, or lacks a column.
        ConfigError, MissingArtifactError: the base vocabulary cannot be used.
    """
    base_vocabulary.check_base_vocabulary(run.config)
    with _alone(run), _scratch(run) as scratch:
        not_built = _build_missing(scratch, terminal or Terminal(sys.stderr))
        artifacts = {stage: scratch.find(stage) for stage in _STAGES}
        art = {stage: one for stage, one in artifacts.items() if one is not None}
        data = pages.gather(art, run.config, not_built)
        run.storage.write(PAGE, pages.render(data, art, run.config).encode())
    return Profile(data, run.storage.url(PAGE))


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Two profiles of a run exclude each other; beside a run, a profile only reads."""
    folder, alone = run.storage.at(_FOLDER), False
    try:
        with drive(folder):
            alone = True
            yield
    finally:
        if alone:
            folder.at(LEASES).clear()


@contextmanager
def _scratch(run: Run) -> Iterator[_Scratch]:
    """The run with an empty scratch folder, which is removed afterwards."""
    scratch = _Scratch(run.config, finished=_finished(run))
    scratch.storage.clear()
    try:
        yield scratch
    finally:
        scratch.storage.clear()


def _finished(run: Run) -> dict[str, Artifact]:
    """Artifacts of the stages that are up to date; none after the first that is not."""
    finished: dict[str, Artifact] = {}
    for stage, how in _STAGES.items():
        try:
            if not run.up_to_date(stage, how.sources(run)):
                break
            finished[stage] = run.artifact(stage)
        except ArtifactError:
            break  # stale or damaged: it is built again, in scratch
    return finished


def _build_missing(scratch: _Scratch, terminal: Terminal) -> dict[str, str]:
    """Build the stages that have not finished; returns, by stage, why one could not be built."""
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
    """Profile a log from a command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="jobs/log_profile.py", description="Profile a run's log.")
    add_config(parser)
    args = parser.parse_args(argv)

    def work() -> None:
        result = profile(Run(load(args.config, args.set, given=args.var)))
        print(*profile_text.lines(result.data), f"page: {result.page}", sep="\n")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
