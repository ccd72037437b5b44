"""What a command does to a run: kept in `state.json` as it goes, and one JSON object at its end.

Schedulers read both. `schemas.run.RunResult` is the object. Observers are told as it goes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from embedmill.jobs.observers import (
    Observers,
    RunEnd,
    StageEnd,
    StageFailure,
    is_observed,
    notify,
)
from embedmill.pipeline.errors import EmbedmillError, InUseError, MachineError
from embedmill.pipeline.log import log_event, logs_json, name_run, print_note
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.run_state import read_state, write_state
from embedmill.pipeline.views.evaluate import Evaluation
from embedmill.schemas.evaluate import GateResult
from embedmill.schemas.files import Number
from embedmill.schemas.run import Failure, RunResult, StageResult
from embedmill.schemas.stages import STAGES

__all__ = ["BUG", "INTERRUPTED", "TERMINATED", "RunRecord", "announce", "failure_of", "state_of"]

INTERRUPTED = 130
TERMINATED = 143
BUG = 70

_NOT_ASKED = "not all stages were run"


@dataclass
class RunRecord:
    """What has happened so far.

    Attributes:
        run: None until its config is read.
        saved: whether the run's folder is there, so that its state can be stored.
        stage: the stage that is being brought up to date.
        stages: those that are.
        published: whether the run is the published one.
        not_published: why it is not.
        now_published: whether this command has published it.
        failure: why the command ended early.
    """

    run: Run | None = None
    saved: bool = False
    stage: str | None = None
    stages: list[StageResult] = field(default_factory=list)
    published: bool = False
    not_published: str = _NOT_ASKED
    now_published: bool = False
    failure: Failure | None = None
    _observers: Observers | None = None
    _reporting: bool = False
    _building: bool = False
    _written: str = ""
    _began: float = field(default_factory=time.perf_counter)

    @contextlib.contextmanager
    def reporting(self, *, as_json: bool) -> Iterator[None]:
        """Record why the block ends early; with `as_json`, print the result as its last line."""
        self._reporting = True
        try:
            yield
            self._finish()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._tell_end()
            if logs_json() and self.failure is None:
                log_event("done", published=self.published, not_published=self.not_published)
            if as_json:
                print(json.dumps(self.result().as_json(), ensure_ascii=False), flush=True)

    def open(self, run: Run) -> None:
        """The config is read. Within `reporting`, which tells them the end, observers begin."""
        self.run = run
        name_run(run.config.run.name)
        if self._reporting and is_observed(run.config):
            with _noted("observers do not begin"):
                self._observers = Observers(run)

    def _tell_end(self) -> None:
        """Tell observers, commands and webhooks the result, whatever happens to them."""
        if self.run is None or not is_observed(self.run.config):
            return
        with _noted("nobody is told the result"):
            end = RunEnd(self.result(), self.now_published, time.time())
            if self._observers is not None:
                self._observers.run_ended(end)
            notify(self.run.config, end)

    def begin(self, stage: str) -> None:
        """A stage is looked at."""
        self.stage = stage

    def build(self, stage: str) -> None:
        """A stage is being built."""
        self.stage, self._building = stage, True
        if self._observers:
            self._observers.stage_started(stage)
        self._write("running")

    def finish(self, artifact: Artifact, *, built: bool) -> None:
        """A stage is up to date."""
        self.stage, self._building = None, False
        if self._observers:
            self._observers.stage_finished(StageEnd(artifact, built, time.time()))
        self.stages.append(
            StageResult(
                stage=artifact.stage,
                state="built" if built else "up to date",
                content=artifact.manifest.content,
                uri=self.run.storage.url(artifact.stage) if self.run else "",
                counters=artifact.counters,
                seconds=artifact.manifest.seconds,
            )
        )

    def result(self) -> RunResult:
        """The result, for `--json`."""
        gates, metrics = self._evaluation()
        config = self.run.config if self.run else None
        return RunResult(
            run=config.run.name if config else None,
            uri=self.run.storage.root if self.run else None,
            vars=config.vars if config else {},
            state=state_of(self.failure),
            exit_code=self.failure.exit_code if self.failure else 0,
            stages=self.stages,
            published=self.published,
            not_published="" if self.published else self.not_published,
            gates=gates,
            metrics=metrics,
            seconds=round(time.perf_counter() - self._began, 3),
            failure=self.failure,
        )

    def _evaluation(self) -> tuple[list[GateResult], dict[str, Number]]:
        if self.run is None or not any(one.stage == "evaluate" for one in self.stages):
            return [], {}
        evaluation = Evaluation(self.run.artifact("evaluate"))
        return evaluation.gates, evaluation.metrics

    def _finish(self) -> None:
        before = self._written
        if not before and self.saved and self.run and (state := read_state(self.run)) is not None:
            before = state.state  # what an earlier command left
        if before not in ("", "done"):
            self._write("done")

    def _fail(self, error: BaseException) -> None:
        self.failure = failure_of(error, self.stage)
        if self._observers and self._building and self.stage:
            self._observers.stage_failed(StageFailure(self.stage, self.failure, time.time()))
        if self.not_published == _NOT_ASKED:
            self.not_published = self.failure.what
        if isinstance(error, InUseError):
            return  # the state is the other process's
        with contextlib.suppress(EmbedmillError, OSError):  # the first error is the one to tell
            self._write(state_of(self.failure))

    def _write(self, state: Literal["running", "done", "failed", "stopped"]) -> None:
        if self.run is not None and self.saved:
            write_state(self.run, state, self.stage, self.failure)
            self._written = state


@contextlib.contextmanager
def _noted(what: str) -> Iterator[None]:
    """Make a note of an error, where that is possible, instead of raising it."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(OSError):  # stderr may be gone
            print_note(f"{what}: {error}")


def announce(run: Run) -> None:
    """Call what `run.on_publish` names, for a run that was published by hand."""
    record = RunRecord(run, published=True)
    for stage in STAGES:
        record.finish(run.artifact(stage), built=False)
    notify(run.config, RunEnd(record.result(), True, time.time()))


def state_of(failure: Failure | None) -> Literal["done", "failed", "stopped"]:
    """How a command ended."""
    if failure is None:
        return "done"
    return "stopped" if failure.exit_code in (INTERRUPTED, TERMINATED) else "failed"


def failure_of(error: BaseException, stage: str | None) -> Failure:
    """An error as schedulers see it.

    Args:
        error: what ended the command.
        stage: the stage that failed.
    """
    if isinstance(error, OSError):
        error = MachineError(str(error))
    if isinstance(error, EmbedmillError):
        parts, code, retry = (error.what, error.where, error.todo), error.exit_code, error.retry
    elif isinstance(error, KeyboardInterrupt):
        todo = "Finished stages are kept: run the same command again to go on"
        parts, code = ("interrupted", "", todo), TERMINATED if error.args else INTERRUPTED
        retry = True
    else:
        parts, code, retry = (str(error), "", "This is a bug: please report it"), BUG, False
    what, where, todo = parts
    return Failure(
        stage=stage,
        error=type(error).__name__,
        what=what,
        where=where,
        todo=todo,
        exit_code=code,
        retry=retry,
    )
