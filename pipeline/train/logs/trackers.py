"""Experiment trackers: TensorBoard and MLflow show the log of a training while it goes on.

They run in the driver's process. A tracker that fails later on is left out with a note:
training does not depend on it, and the log has every line.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from embedmill.pipeline.config import stage_fields
from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.run import Run

__all__ = ["TRACKERS", "TrackerKind", "check_trackers", "with_trackers"]

# Fields of a line that are no metrics.
_NO_METRICS = (
    "kind", "time", "epoch", "step", "refit", "at", "workers", "steps", "pairs", "seconds"
)  # fmt: skip


class Tracker(Protocol):
    """Shows the metrics of one training."""

    def start(self, at: int) -> None:
        """Training starts, or resumes after `at` steps; metrics of later steps are void."""

    def show(self, metrics: dict[str, float], at: int) -> None:
        """Metrics by name, after `at` steps."""

    def close(self, *, finished: bool) -> None:
        """Training has ended; `finished`: successfully."""


@contextlib.contextmanager
def with_trackers(run: Run, progress: Progress) -> Iterator[Progress]:
    """A progress whose records also go to the trackers of `train.track`.

    Raises:
        MachineError: a tracker cannot be started.
    """
    trackers: dict[str, Tracker] = {}
    for name in run.config.train.track:
        try:
            trackers[name] = TRACKERS[name].make(run)
        except Exception as error:  # clients raise exceptions of any type
            raise MachineError(
                f"{name} cannot be used: {_first_line(error)}",
                where="train.track",
                todo=f"Check {TRACKERS[name].check}, or leave it out",
            ) from error
    tracked, finished = _TrackedProgress(progress, trackers), False
    try:
        yield tracked
        finished = True
    finally:
        tracked.close(finished=finished)


def check_trackers(run: Run) -> None:
    """Raise ConfigError for a tracker that is unknown, not installed, or cannot be used."""
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
            "tensorboard writes to a local disk, and run.root is not on one", where="train.track"
        )


class _TrackedProgress:
    """Passes progress on, and records to the trackers as well."""

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
            metrics = _metrics(line)
            self._each(lambda tracker: tracker.show(metrics, at))

    def close(self, *, finished: bool) -> None:
        self._each(lambda tracker: tracker.close(finished=finished))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # clients raise exceptions of any type
                del self._trackers[name]
                self._progress.note(f"{name} is left out from here on: {_first_line(error)}")


def _metrics(line: dict[str, Any]) -> dict[str, float]:
    """The metrics of a line, by names in groups: "share/wait", "epoch/train_loss"."""
    metrics: dict[str, float] = {}
    for name, value in line.items():
        if name.startswith("seconds.") and line["seconds"] > 0:
            metrics[f"share/{name.removeprefix('seconds.')}"] = value / line["seconds"]
        elif name not in _NO_METRICS and not name.startswith(("seconds.", "max.")):
            # Neither tracker allows @ in a name.
            metrics[f"{line['kind']}/{name.replace('@', '_at_')}"] = float(value)
    return metrics


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
        # By default, names differ by the second only: a quick restart would replace the file.
        self._writer = module.SummaryWriter(
            str(self._folder), purge_step=at + 1, filename_suffix=f".{os.getpid()}.{at}"
        )

    def show(self, metrics: dict[str, float], at: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, at)
        self._writer.flush()

    def close(self, *, finished: bool) -> None:
        if self._writer is not None:
            self._writer.close()


class _MLflow:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME (or "embedmill") at MLFLOW_TRACKING_URI.

    A training that resumes continues its MLflow run, which is found by its tags.
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
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        for found in self._client.search_runs([experiment], query, max_results=1):
            if found.info.status != "FINISHED":
                self._client.update_run(found.info.run_id, status="RUNNING")
                return str(found.info.run_id)
        created = self._client.create_run(experiment, tags=tags, run_name=run.config.run.name)
        fields = stage_fields(run.config, ["train", "run"])
        params = [self._entities.Param(key, str(value)) for key, value in fields.items()]
        self._client.log_batch(created.info.run_id, params=params)
        return str(created.info.run_id)

    def start(self, at: int) -> None:
        self._client.set_tag(self._id, "embedmill.began_at_step", str(at))

    def show(self, metrics: dict[str, float], at: int) -> None:
        now = int(time.time() * 1000)
        values = [self._entities.Metric(name, value, now, at) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=values)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


@dataclass(frozen=True)
class TrackerKind:
    """How a tracker is made.

    Args:
        make: starts it for a run.
        modules: of which one must be installed.
        package: to install where none is.
        check: what to look at where it cannot be started.
    """

    make: Callable[[Run], Tracker]
    modules: tuple[str, ...]
    package: str
    check: str

    def module(self) -> Any:
        """The first of its modules that is installed, or None."""
        for name in self.modules:
            with contextlib.suppress(ImportError):
                return importlib.import_module(name)
        return None


TRACKERS: dict[str, TrackerKind] = {
    "tensorboard": TrackerKind(
        _TensorBoard, ("torch.utils.tensorboard", "tensorboardX"), "tensorboard", "run.root"
    ),
    "mlflow": TrackerKind(_MLflow, ("mlflow",), "mlflow-skinny", "MLFLOW_TRACKING_URI"),
}
