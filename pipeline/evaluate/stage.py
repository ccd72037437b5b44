"""The evaluate stage: metrics on test over all items, by exact search and through the index.

Rules:

* The items that a user has in train and valid are no answers. Test items among them (repeats) are
  not counted as relevant.
* Left out, and counted: users whose test items are all repeats, and users without an event that
  the model was fitted to.
* Items without such an event can be answers. Rows that are not live (retired rows, and rows that
  several ids share) cannot.
* Popularity, counted over the events that the model was fitted to, and the index are measured with
  the same users and the same excluded items. The index is searched once for each k, as `embedmill
  recommend` searches it.
* Predicted ratings are not clipped to a scale.
* Where there are very many users, a sample of them is drawn by a hash (`evaluate.users`). The
  others and their test events are counted.

The files are described in `schemas.evaluate`.

Legend: B users of a batch, U users of a group, D coordinates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from embedmill.pipeline.evaluate.board import Recommender
from embedmill.pipeline.evaluate.drift import drift_metrics, measure_drift
from embedmill.pipeline.evaluate.gates import check_gates, judge
from embedmill.pipeline.evaluate.holdout import UserSample, count_test_users, read_fitted_items
from embedmill.pipeline.evaluate.measurer import (
    GroupFigures,
    Measurer,
    MeasuringTask,
    measure_groups,
)
from embedmill.pipeline.evaluate.protocols import protocols
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.task_pool import (
    LAUNCHERS,
    Launchers,
    TaskPool,
    TaskRequest,
    choose_launcher,
    usable_cores,
)
from embedmill.pipeline.views.index import StoredIndex
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import spec_of
from embedmill.schemas.evaluate import DRIFT, GATES, INTERVALS, METRICS, PROTOCOLS, SLICES

__all__ = ["Recommender", "build"]

# With fewer scores than this (a few seconds of work) one thread is faster than several.
_SMALL = 1 << 30
# About what a core takes for a score, and for all searches of a user; what takes longer than
# processes take to start is spread over them.
_SCORE_SECONDS, _SEARCH_SECONDS, _LARGE_SECONDS = 3e-9, 5e-4, 20.0
# Tasks for each worker: each reads the users' vectors once.
_TASKS = 4


def build(
    run: Run,
    out: Writer,
    progress: Progress,
    open_index: Callable[[Artifact], Recommender],
    launchers: Launchers = LAUNCHERS,
) -> None:
    """Measure on test and judge the gates; users are spread over tasks.

    The figures do not depend on how many tasks there are: users are measured in groups, and the
    sums of groups are added in their order.

    Args:
        run: the run.
        out: the artifact.
        progress: updated with the number of test events evaluated.
        open_index: opens the index of an artifact; a function of a module, as tasks import it.
        launchers: start the workers, where there is much to measure.

    Raises:
        ConfigError: a gate names a metric that the run does not have.
        MachineError: a worker ended.
    """
    check_gates(run.config)
    export, index, shards = run.artifact("export"), run.artifact("index"), run.artifact("shards")
    spec, total = spec_of(export), Shards(shards).count("test")
    sample = _sample(run, Shards(shards), spec.items)
    users = min(total, spec.users) * sample.share
    launcher = choose_launcher(
        run.config.evaluate.launcher, run.config.run.root,
        large=users * (spec.items * _SCORE_SECONDS + _SEARCH_SECONDS) > _LARGE_SECONDS,
    )  # fmt: skip
    request = TaskRequest("evaluate", run.config.evaluate.workers)
    with launchers[launcher](request) as pool:
        fitted = read_fitted_items(Shards(shards), spec, pool)
        task = MeasuringTask.of(run, out.storage, open_index, fitted, sample)
        totals = Measurer.of(task)
        with _threads(users * spec.items):
            for figures in _by_group(task, None if launcher == "inline" else pool):
                out.add(totals.add_figures(figures))
                progress.update(totals.counters["events"], total, "test events")
    _write(run, out, totals, index)


def _by_group(task: MeasuringTask, pool: TaskPool | None) -> Iterator[GroupFigures]:
    """The figures of all groups, in order; measured here where there is no pool."""
    if pool is None:
        yield from Measurer.of(task).groups()
        return
    tasks = _TASKS * (task.run.config.evaluate.workers or usable_cores())
    for some in pool.map(measure_groups, task.split(tasks)):
        yield from some


def _write(run: Run, out: Writer, totals: Measurer, index: Artifact) -> None:
    """Write the files over what was measured, and commit."""
    counters = totals.counters
    metrics = totals.metrics() | _of_index(index)
    metrics |= _drift(run, run.artifact("export"), totals.earlier_export, out)
    intervals = totals.intervals()
    out.write_json(METRICS, metrics | {name: counters[name] for name in ("users", "cold_users")})
    out.write_json(SLICES, totals.board.slices())
    out.write_json(PROTOCOLS, protocols(run.config, spec_of(run.artifact("export"))))
    out.write_json(INTERVALS, intervals)
    out.write_json(GATES, judge(run.config, metrics, intervals))
    measured = {f"seconds.{name}": round(took, 3) for name, took in totals.seconds().items()}
    out.commit(counters, software={"torch": torch.__version__}, measured=measured)


def _sample(run: Run, shards: Shards, items: int) -> UserSample:
    """Which test users are evaluated."""
    config, seed, events = run.config.evaluate, run.config.run.seed, shards.count("test")
    if config.evaluated(events, items) == events:
        return UserSample(1.0, seed)  # users are no more than events: none is read
    users = count_test_users(shards)
    return UserSample(config.evaluated(users, items) / users, seed)


@contextlib.contextmanager
def _threads(pairs: float) -> Iterator[None]:
    """Use one thread for a small job, in which waiting for each other slows threads down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if pairs < _SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _drift(run: Run, export: Artifact, earlier: Artifact | None, out: Writer) -> dict[str, float]:
    """How far vectors have moved since an earlier export; nothing without one."""
    if earlier is None:
        return {}
    drift = measure_drift(export, earlier, run.config.run.seed)
    out.write_json(DRIFT, drift)
    return dict(drift_metrics(drift))


def _of_index(index: Artifact) -> dict[str, float]:
    """Metrics of the index stage, copied so that one file has all metrics."""
    stored = StoredIndex(index)
    return {"index.recall@10": stored.recall.recall, "index.bytes": stored.spec.bytes}
