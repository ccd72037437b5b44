"""The lines of a training's log, shown by TensorBoard and MLflow while it goes on.

Both run where the driver runs. A tracker that fails half-way is left out with a note: training
does not depend on it, and `log.jsonl` has every line.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from embedmill.pipeline.config import stage_fields
from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.run import Run

__all__ = ["TRACKERS", "check_trackers", "tracked"]

_PLACES = ("kind", "time", "epoch", "step", "refit", "at", "workers", "steps", "pairs", "seconds")


class Tracker(Protocol):
    """Shows the lines of one training."""

    def start(self, at: int) -> None:
        """Training begins or goes on after `at` steps; what came later is done again."""

    def figures(self, figures: dict[str, float], at: int) -> None:
        """Figures by name, after `at` steps."""

    def close(self, *, finished: bool) -> None:
        """Training has ended, well or not."""


@contextlib.contextmanager
def tracked(run: Run, progress: Progress) -> Iterator[Progress]:
    """A progress that also tells the trackers of `train.track` what is recorded.

    Raises:
        MachineError: a tracker cannot begin.
    """
    trackers: dict[str, Tracker] = {}
    for name in run.config.train.track:
        try:
            trackers[name] = TRACKERS[name].make(run)
        except Exception as error:  # of whatever kind its client raises
            raise MachineError(
                f"{name} cannot be used: {_first_line(error)}",
                where="train.track",
                todo=f"Check {TRACKERS[name].check}, or leave it out",
            ) from error
    told, finished = _Told(progress, trackers), False
    try:
        yield told
        finished = True
    finally:
        told.close(finished=finished)


def check_trackers(run: Run) -> None:
    """Refuse names that are not known or not installed, before anything is scheduled.

    Raises:
        ConfigError: naming `train.track`.
    """
    for name in run.config.train.track:
        if name not in TRACKERS:
            raise ConfigError(
                f"unknown tracker '{name}'; allowed: {', '.join(TRACKERS)}", where="train.track"
            )
        kind = TRACKERS[name]
        if kind.module() is None:
            raise ConfigError(
                f"{name} is not installed", where="train.track", todo=f"pip install {kind.package}"
            )
    if "tensorboard" in run.config.train.track and not run.storage.is_local:
        raise ConfigError(
            "tensorboard writes to a local disk, and run.root is none", where="train.track"
        )


class _Told:
    """Passes progress on, and records to the trackers too."""

    def __init__(self, progress: Progress, trackers: dict[str, Tracker]) -> None:
        self._progress = progress
        self._trackers = trackers

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        self._progress.update(done, total, unit, **facts)

    def note(self, text: str) -> None:
        self._progress.note(text)

    def record(self, line: dict[str, Any]) -> None:
        self._progress.record(line)
        at = int(line["at"])
        if line["kind"] == "start":
            self._each(lambda tracker: tracker.start(at))
        else:
            figures = _figures(line)
            self._each(lambda tracker: tracker.figures(figures, at))

    def close(self, *, finished: bool) -> None:
        self._each(lambda tracker: tracker.close(finished=finished))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # of whatever kind its client raises
                del self._trackers[name]
                self._progress.note(f"{name} is left out from here on: {_first_line(error)}")


def _figures(line: dict[str, Any]) -> dict[str, float]:
    """What a line measures, by the names that trackers group by."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if name.startswith("seconds.") and line["seconds"] > 0:
            found[f"share/{name.removeprefix('seconds.')}"] = value / line["seconds"]
        elif name not in _PLACES and not name.startswith(("seconds.", "max.")):
            # Neither of them takes an @ in a name.
            found[f"{line['kind']}/{name.replace('@', '_at_')}"] = float(value)
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


class _TensorBoard:
    """Event files in `<run>/tensorboard/`; `tensorboard --logdir <root>` compares runs."""

    def __init__(self, run: Run) -> None:
        self._folder = run.storage.local_path("tensorboard")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = None

    def start(self, at: int) -> None:
        if self._writer is not None:
            self._writer.close()
        module = TRACKERS["tensorboard"].module()
        # Named by the second alone, a file would replace that of a start a moment ago.
        self._writer = module.SummaryWriter(
            str(self._folder), purge_step=at + 1, filename_suffix=f".{os.getpid()}.{at}"
        )

    def figures(self, figures: dict[str, float], at: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, at)
        self._writer.flush()

    def close(self, *, finished: bool) -> None:
        if self._writer is not None:
            self._writer.close()


class _MLflow:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME (or "embedmill") at MLFLOW_TRACKING_URI.

    A training that goes on after a kill goes on with its MLflow run, found by its tags.
    """

    def __init__(self, run: Run) -> None:
        module = TRACKERS["mlflow"].module()
        self._entities = importlib.import_module("mlflow.entities")
        self._client = module.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "embedmill")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._id = self._open(experiment, run)

    def _open(self, experiment: str, run: Run) -> str:
        tags = {
            "embedmill.run": run.storage.root,
            "embedmill.fingerprint": run.writer("train").fingerprint,
        }
        asked = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        for one in self._client.search_runs([experiment], asked, max_results=1):
            if one.info.status != "FINISHED":
                self._client.update_run(one.info.run_id, status="RUNNING")
                return str(one.info.run_id)
        made = self._client.create_run(experiment, tags=tags, run_name=run.config.run.name)
        fields = stage_fields(run.config, ["train", "run"])
        params = [self._entities.Param(key, str(value)) for key, value in fields.items()]
        self._client.log_batch(made.info.run_id, params=params)
        return str(made.info.run_id)

    def start(self, at: int) -> None:
        self._client.set_tag(self._id, "embedmill.began_at_step", str(at))

    def figures(self, figures: dict[str, float], at: int) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, at) for name, value in figures.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


class _Kind:
    """How a tracker is made, and what must be installed for it."""

    def __init__(
        self, make: Callable[[Run], Tracker], modules: tuple[str, ...], package: str, check: str
    ) -> None:
        self.make = make
        self.modules = modules
        self.package = package
        self.check = check

    def module(self) -> Any:
        """The first of its modules that is installed, or None."""
        for name in self.modules:
            with contextlib.suppress(ImportError):
                return importlib.import_module(name)
        return None


TRACKERS: dict[str, _Kind] = {
    "tensorboard": _Kind(
        _TensorBoard, ("torch.utils.tensorboard", "tensorboardX"), "tensorboard", "run.root"
    ),
    "mlflow": _Kind(_MLflow, ("mlflow",), "mlflow-skinny", "MLFLOW_TRACKING_URI"),
}
