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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from embedmill.pipeline.evaluate.board import Board, ItemTable, Recommender
from embedmill.pipeline.evaluate.drift import drift_metrics, measure_drift
from embedmill.pipeline.evaluate.earlier_quality import EarlierQuality
from embedmill.pipeline.evaluate.gates import check_gates, judge
from embedmill.pipeline.evaluate.holdout import (
    Group,
    UserSample,
    count_test_users,
    groups,
    read_fitted_items,
)
from embedmill.pipeline.evaluate.protocols import protocols
from embedmill.pipeline.evaluate.ranking import USER_METRICS
from embedmill.pipeline.evaluate.ratings import Errors, predict
from embedmill.pipeline.evaluate.sampled import SampledRanks
from embedmill.pipeline.export import find_earlier
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Artifact, Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.fold_in import FoldIn, KnownEvents, trained_with
from embedmill.pipeline.views.index import StoredIndex
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors, spec_of
from embedmill.schemas.evaluate import DRIFT, GATES, INTERVALS, METRICS, PROTOCOLS, SLICES, USERS
from embedmill.schemas.export import VectorSpec

__all__ = ["Recommender", "build"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

# With fewer scores than this (a few seconds of work) one thread is faster than several.
_SMALL = 1 << 30
# With "auto", more scores than this (a quarter of an hour of two cores) are not computed: so many
# users are drawn, whose means are within .002 of those of all with 95 % confidence.
_MOST_SCORES, _DRAWN_USERS = 10**11, 200_000

# users: evaluated; nothing_left: all their test items were seen before; events: of test.
_COUNTED = (
    "users", "nothing_left", "cold_users", "cold_events", "repeats", "test_pairs", "events",
    "unsampled_users", "unsampled_events",
)  # fmt: skip


def build(
    run: Run, out: Writer, progress: Progress, open_index: Callable[[Artifact], Recommender]
) -> None:
    """Measure on test and judge the gates.

    Args:
        run: the run.
        out: the artifact.
        progress: updated with the number of test events evaluated.
        open_index: opens the index of an artifact.

    Raises:
        ConfigError: a gate names a metric that the run does not have.
    """
    check_gates(run.config)
    export, index = run.artifact("export"), run.artifact("index")
    shards = Shards(run.artifact("shards"))
    spec, config = spec_of(export), run.config.evaluate
    fitted = read_fitted_items(shards, spec.items, spec.fitted)
    items = ItemTable.of(export)
    board = Board.of(config, fitted.counts, items, open_index(index))
    more = _Protocols.of(run, shards, board, fitted.counts)
    errors = Errors() if spec.objective == "rating" else None
    total = shards.count("test")
    counters = dict.fromkeys(_COUNTED, 0)
    sample = _sample(run, shards, spec.items)
    earlier = _earlier(run, export)
    beside = (
        EarlierQuality.of(board, fitted.counts, export, earlier) if earlier is not None else None
    )
    with _threads(min(total, spec.users) * spec.items):
        for number, group in enumerate(groups(shards, spec.fitted, config.fold_in, sample)):
            user_UD = Vectors.of(export, "users").gather(group.users)
            asked = board.add(group, user_UD)
            more.add(group, user_UD)
            if beside is not None:
                beside.add(group, user_UD)
            if errors is not None:
                errors.add(group, _ratings(export, spec, group, user_UD), fitted)
            if config.keep_users:
                _write_users(out, number, board, export)
            _count(counters, group, asked)
            progress.update(counters["events"], total, "test events")
    metrics = board.metrics(counters["users"]) | more.metrics() | _of_index(index)
    intervals = board.intervals(counters["users"]) | more.intervals()
    metrics |= errors.means() if errors is not None else {}
    metrics |= beside.metrics() if beside is not None else {}
    metrics |= _drift(run, export, earlier, out)
    out.write_json(METRICS, metrics | {name: counters[name] for name in ("users", "cold_users")})
    out.write_json(SLICES, board.slices())
    out.write_json(PROTOCOLS, protocols(run.config, spec))
    out.write_json(INTERVALS, intervals)
    out.write_json(GATES, judge(run.config, metrics, intervals))
    seconds = {**board.seconds, **more.seconds()}
    measured = {f"seconds.{name}": round(took, 3) for name, took in seconds.items()}
    out.commit(counters, software={"torch": torch.__version__}, measured=measured)


@dataclass
class _Protocols:
    """Protocols beside the whole catalogue for known users, where the config asks for them."""

    items: ItemTable
    sampled: SampledRanks | None
    fold_in: FoldIn | None
    folded_in: Board | None
    users: int = 0
    sampling: float = 0.0

    @staticmethod
    def of(run: Run, shards: Shards, board: Board, counts: Rows) -> _Protocols:
        config, live_N = run.config.evaluate, board.items.live_N
        sampled = fold_in = folded_in = None
        if config.sampled_negatives:
            live = np.flatnonzero(live_N)
            sampled = SampledRanks(
                config.ks, config.sampled_negatives, run.config.run.seed, counts, live
            )
        if config.fold_in:
            spec = spec_of(run.artifact("export"))
            train = trained_with(run.artifact("train"), run.config)
            fold_in = FoldIn.of(spec, train, shards, board.items.vectors)
            known = config.model_copy(update={"keep_users": False})
            folded_in = Board.of(known, counts, board.items, board.index)
        return _Protocols(board.items, sampled, fold_in, folded_in)

    def add(self, group: Group, user_UD: Floats) -> None:
        if self.sampled is not None:
            start = time.perf_counter()
            self.sampled.add(group, user_UD, self.items.gather)
            self.sampling += time.perf_counter() - start
        cold = group.folded_in
        if self.fold_in is not None and self.folded_in is not None and cold is not None:
            known = KnownEvents(cold.fitted.user, cold.fitted.item, cold.fitted.weight)
            own_UD = self.fold_in.vectors(known, len(cold.users))
            self.users += self.folded_in.add(cold, own_UD)

    def metrics(self) -> dict[str, float]:
        found: dict[str, float] = {}
        if self.sampled is not None:
            found = {f"sampled.{name}": value for name, value in self.sampled.means().items()}
            found["sampled.pairs"] = self.sampled.pairs
        if self.folded_in is not None:
            metrics = self.folded_in.metrics(self.users)
            found |= {f"fold_in.{name}": value for name, value in metrics.items()}
            found["fold_in.users"] = self.users
        return found

    def intervals(self) -> dict[str, tuple[float, float]]:
        if self.folded_in is None:
            return {}
        ends = self.folded_in.intervals(self.users)
        return {f"fold_in.{name}": both for name, both in ends.items()}

    def seconds(self) -> dict[str, float]:
        found = {"sampled": self.sampling} if self.sampled is not None else {}
        if self.folded_in is not None:
            found["fold_in"] = sum(self.folded_in.seconds.values())
        return found


def _sample(run: Run, shards: Shards, items: int) -> UserSample:
    """Which test users are evaluated."""
    wanted, events = run.config.evaluate.users, shards.count("test")
    if wanted == 0 or (wanted == "auto" and events * items <= _MOST_SCORES):
        return UserSample(1.0, run.config.run.seed)  # users are no more than events: none is read
    users = count_test_users(shards)
    if wanted == "auto":
        wanted = _DRAWN_USERS if users * items > _MOST_SCORES else 0
    return UserSample(wanted / users if 0 < wanted < users else 1.0, run.config.run.seed)


def _write_users(out: Writer, number: int, board: Board, export: Artifact) -> None:
    """A file of the metrics of the users of a group."""
    kept, board.by_user[:] = list(board.by_user), []
    rows = np.concatenate([one.rows for one in kept]) if kept else np.empty(0, np.int64)
    names = [f"{name}@{k}" for k in board.config.ks for name in USER_METRICS]
    values = {
        name: np.concatenate([one.values[name].numpy() for one in kept]) if kept else rows / 1.0
        for name in names
    }
    ids = Vectors.of(export, "users").vocabulary.ids(rows)
    out.write_table(USERS.path(number), pa.table({"user": pa.array(ids, pa.string()), **values}))


def _count(counters: dict[str, int], group: Group, asked: int) -> None:
    counters["events"] += len(group.test.user) + group.cold_events + group.unsampled_events
    counters["unsampled_users"] += group.unsampled_users
    counters["unsampled_events"] += group.unsampled_events
    counters["users"] += asked
    counters["nothing_left"] += len(group.users) - asked
    counters["cold_users"] += group.cold_users
    counters["cold_events"] += group.cold_events
    counters["repeats"] += group.repeats
    counters["test_pairs"] += len(group.relevant.rows)


@contextlib.contextmanager
def _threads(pairs: int) -> Iterator[None]:
    """Use one thread for a small job, in which waiting for each other slows threads down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if pairs < _SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ratings(
    export: Artifact, spec: VectorSpec, group: Group, user_UD: Floats
) -> NDArray[np.float64]:
    """Predicted ratings of the group's test events, float64 [M]."""
    base_U = spec.mean + _biases(export, spec, group.users)
    return predict(group, user_UD, base_U, Vectors.of(export, "items"))


def _biases(export: Artifact, spec: VectorSpec, rows: Rows) -> NDArray[np.float64]:
    """User biases of some rows, zero where the model has none."""
    if not spec.bias:
        return np.zeros(len(rows))
    return Vectors.of(export, "users").column("bias")[rows].astype(np.float64)


def _earlier(run: Run, export: Artifact) -> Artifact | None:
    """The export whose vectors these were to be aligned to; None without one."""
    space, earlier = spec_of(export).space, find_earlier(run)
    if space is None or earlier is None:
        return None
    # Another run may have that name by now.
    return earlier if space.aligned_to in ("", earlier.manifest.content) else None


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
