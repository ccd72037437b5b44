"""Observers beside a run: each in a thread of its own, which nothing waits for before the end.

An observer that raises is left out from then on, with one warning. At the end of the run those
that are still at work have `observe.timeout` seconds, together; then they are left behind, with a
warning.
"""

from __future__ import annotations

import importlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from embedmill.jobs.observers.observer import (
    Observer,
    RunEnd,
    StageEnd,
    StageFailure,
    StageStart,
)
from embedmill.jobs.observers.secrets import reason_of
from embedmill.pipeline.config import Config
from embedmill.pipeline.log import print_note
from embedmill.pipeline.store.run import Run

__all__ = ["OBSERVERS", "ObserverKind", "Observers"]

_Call = Callable[[Observer], None]

# Their warnings would come on stderr, with URLs in them; a program that handles logs gets them.
_LIBRARIES = ("alembic", "httpx2", "openlineage", "opentelemetry", "urllib3")


@dataclass(frozen=True)
class ObserverKind:
    """Where an observer's class is, and what it needs.

    Attributes:
        module: below `jobs.observers`, imported only where the observer is wanted.
        name: of the class.
        install: what `pip install` gets where its library is missing.
    """

    module: str
    name: str
    install: str

    def make(self, run: Run, began: float) -> Observer:
        """The observer of a run that began at a time; raises whatever its library raises."""
        module = importlib.import_module(f"embedmill.jobs.observers.{self.module}")
        made: Observer = getattr(module, self.name)(run, began)
        return made


OBSERVERS: dict[str, ObserverKind] = {
    "openlineage": ObserverKind("lineage", "LineageObserver", "embedmill[openlineage]"),
    "prometheus": ObserverKind("prometheus", "MetricsObserver", "embedmill[prometheus]"),
    "opentelemetry": ObserverKind("spans", "SpanObserver", "embedmill[opentelemetry]"),
    "mlflow": ObserverKind("mlflow_run", "ModelObserver", "mlflow-skinny pandas"),
}


class Observers:
    """The observers of one run."""

    def __init__(self, run: Run) -> None:
        """Start those of `observe.observers`."""
        config = run.config
        for name in _LIBRARIES if config.observe.observers else ():
            logging.getLogger(name).addHandler(logging.NullHandler())
        self._watchers = [
            _Watcher(name, OBSERVERS[name], run, _patience(name, config))
            for name in config.observe.observers
        ]

    def stage_started(self, stage: str) -> None:
        """A stage is being built."""
        start = StageStart(stage, time.time())
        self._tell(lambda one: one.stage_started(start))

    def stage_finished(self, end: StageEnd) -> None:
        """A stage is up to date."""
        self._tell(lambda one: one.stage_finished(end))

    def stage_failed(self, failure: StageFailure) -> None:
        """A stage that was being built has failed."""
        self._tell(lambda one: one.stage_failed(failure))

    def run_ended(self, end: RunEnd) -> None:
        """The command has ended: wait for observers as long as the config says."""
        self._tell(lambda one: one.run_ended(end))
        began = time.monotonic()
        for watcher in self._watchers:
            watcher.close(began)

    def _tell(self, call: _Call) -> None:
        for watcher in self._watchers:
            watcher.tell(call)


def _patience(name: str, config: Config) -> float:
    """Seconds that the end of a run waits for an observer."""
    uploads = name == "mlflow" and config.observe.model
    return config.observe.long_timeout if uploads else config.observe.timeout


class _Watcher:
    """An observer and its thread, which ends with the process whatever the observer does."""

    def __init__(self, name: str, kind: ObserverKind, run: Run, patience: float) -> None:
        self._name, self._kind, self._run, self._patience = name, kind, run, patience
        self._began = time.time()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"observer {name}", daemon=True)
        self._thread.start()

    def tell(self, call: _Call) -> None:
        """Have a method of the observer called, after those before it."""
        self._calls.put(call)

    def close(self, began: float) -> None:
        """Wait until all calls are done, or the time since `began` is up."""
        self._calls.put(None)
        self._thread.join(max(0.0, began + self._patience - time.monotonic()))
        if self._thread.is_alive():
            print_note(f"{self._name}: not done within {self._patience:g} s, and left behind")

    def _work(self) -> None:
        try:
            observer = self._kind.make(self._run, self._began)
            while (call := self._calls.get()) is not None:
                call(observer)
        except BaseException as error:  # libraries raise errors of any type
            self._warn(error)

    def _warn(self, error: BaseException) -> None:
        if isinstance(error, ImportError):
            reason = f"{error.name or error} is not installed: pip install '{self._kind.install}'"
        else:
            observe = self._run.config.observe
            reason = reason_of(error, observe.lineage + observe.metrics)
        print_note(f"observer {self._name} is left out: {reason}")
