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

The files are described in `schemas.evaluate`.

Legend: B users of a batch, U users of a group, D coordinates.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.config import EvaluateConfig
from embedmill.pipeline.evaluate.gates import check_gates, judge
from embedmill.pipeline.evaluate.holdout import Group, groups, read_fitted_items
from embedmill.pipeline.evaluate.ranking import Popularity, Slices, Tally
from embedmill.pipeline.evaluate.ratings import Errors, predict
from embedmill.pipeline.log import Progress
from embedmill.pipeline.score import RowLists, top_k
from embedmill.pipeline.store.artifact import Artifact, Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.index import StoredIndex
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors, spec_of
from embedmill.schemas.evaluate import GATES, METRICS, SLICES, Slice
from embedmill.schemas.export import VectorSpec

__all__ = ["Recommender", "build"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

# Item vectors of up to this many bytes are kept in memory; more are read for every batch of users.
_LOADED_BYTES = 2 << 30
# With fewer scores than this (a few seconds of work) one thread is faster than several.
_SMALL = 1 << 30

# users: evaluated; nothing_left: all their test items were seen before; events: of test.
_COUNTED = (
    "users", "nothing_left", "cold_users", "cold_events", "repeats", "test_pairs", "events",
)  # fmt: skip


class Recommender(Protocol):
    """What an opened index can do; see `embedmill.pipeline.index.RowSearcher`."""

    def search_unseen(self, query_BD: Floats, k: int, seen: RowLists) -> tuple[Floats, Rows]:
        """Scores and rows [B, k] of the best items outside each user's list."""


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
    board = _Board.of(config, fitted.counts, _Items.of(export), open_index(index))
    errors = Errors() if spec.objective == "rating" else None
    total = shards.count("test")
    counters = dict.fromkeys(_COUNTED, 0)
    with _threads(min(total, spec.users) * spec.items):
        for group in groups(shards, spec.fitted):
            user_UD = Vectors.of(export, "users").gather(group.users)
            asked = board.add(group, user_UD)
            if errors is not None:
                errors.add(group, _ratings(export, spec, group, user_UD), fitted)
            _count(counters, group, asked)
            progress.update(counters["events"], total, "test events")
    metrics = board.metrics(counters["users"]) | _of_index(index)
    metrics |= errors.means() if errors is not None else {}
    out.write_json(METRICS, metrics | {name: counters[name] for name in ("users", "cold_users")})
    out.write_json(SLICES, board.slices())
    out.write_json(GATES, judge(run.config, metrics))
    measured = {f"seconds.{name}": round(took, 3) for name, took in board.seconds.items()}
    out.commit(counters, software={"torch": torch.__version__}, measured=measured)


@dataclass(frozen=True)
class _Items:
    """Item vectors, loaded into memory if they are few enough, and which of them are live."""

    vectors: Vectors
    loaded: Floats | None
    live_N: NDArray[np.bool_]

    @staticmethod
    def of(export: Artifact) -> _Items:
        vectors = Vectors.of(export, "items")
        small = vectors.count * vectors.dim * 4 <= _LOADED_BYTES
        return _Items(vectors, vectors.load() if small else None, vectors.live())

    @functools.cached_property
    def inactive(self) -> torch.Tensor:
        """Rows that are not live, rising."""
        return torch.from_numpy(np.flatnonzero(~self.live_N))

    def blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """(first row, float32 [N, D]) over the whole catalogue."""
        if self.loaded is not None:
            yield 0, torch.from_numpy(self.loaded)
        else:
            for first, block_ND in self.vectors.blocks():
                yield first, torch.from_numpy(block_ND)


@dataclass(frozen=True)
class _Board:
    """Three recommenders on the same users: the model, popularity, the index."""

    config: EvaluateConfig
    items: _Items
    index: Recommender
    popularity: Popularity
    parts: Slices
    by_recommender: dict[str, Tally]
    asked: torch.Tensor
    seconds: dict[str, float]

    @staticmethod
    def of(config: EvaluateConfig, counts: Rows, items: _Items, index: Recommender) -> _Board:
        parts = Slices.cut(counts, items.live_N, config.slices)
        by_recommender = {
            name: Tally(config.ks, parts) for name in ("", "popularity", "through_index")
        }
        asked = torch.zeros(len(parts.names), dtype=torch.int64)
        seconds = dict.fromkeys(("exact", "popularity", "through_index"), 0.0)
        popularity = Popularity(counts, items.live_N)
        return _Board(config, items, index, popularity, parts, by_recommender, asked, seconds)

    def add(self, group: Group, user_UD: Floats) -> int:
        """Rank items for the users of a group who have relevant ones; returns their number."""
        chosen = (group.relevant.lengths > 0).nonzero()[:, 0]
        most = max(self.config.ks)
        for start in range(0, len(chosen), self.config.batch_users):
            batch = chosen[start : start + self.config.batch_users]
            seen, relevant = group.seen.select(batch), group.relevant.select(batch)
            user_BD = user_UD[batch.numpy()]
            with self._timed("exact"):
                users, items = torch.from_numpy(user_BD), self.items
                _, rows = top_k(users, items.blocks(), most, seen, items.inactive)
                self.by_recommender[""].add(rows, relevant)
            with self._timed("popularity"):
                self.by_recommender["popularity"].add(self.popularity.top(most, seen), relevant)
            with self._timed("through_index"):
                for k in self.config.ks:
                    _, found = self.index.search_unseen(user_BD, k, seen)
                    self.by_recommender["through_index"].add(
                        torch.from_numpy(found), relevant, (k,)
                    )
            which = self.parts.of_item[relevant.rows]
            self.asked.add_(torch.bincount(which, minlength=len(self.asked)))
        return len(chosen)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def metrics(self, users: int) -> dict[str, float]:
        """Means over users, flat; empty where there were none."""
        return {
            f"{prefix}.{name}" if prefix else name: value
            for prefix, tally in self.by_recommender.items()
            for name, value in tally.means(users).items()
        }

    def slices(self) -> list[Slice]:
        """Share of test pairs found, by slice of items."""
        return [
            Slice.model_validate(
                {
                    "slice": name,
                    "items": int(self.parts.items[s]),
                    "train_events": int(self.parts.train_events[s]),
                    "test_pairs": int(self.asked[s]),
                    **{
                        f"{prefix}.recall@{k}" if prefix else f"recall@{k}": (
                            int(tally.found[k][s]) / int(self.asked[s]) if self.asked[s] else None
                        )
                        for prefix, tally in self.by_recommender.items()
                        for k in self.config.ks
                    },
                }
            )
            for s, name in enumerate(self.parts.names)
            if self.parts.items[s] or name != self.parts.names[-1]
        ]


def _count(counters: dict[str, int], group: Group, asked: int) -> None:
    counters["events"] += len(group.test.user) + group.cold_events
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


def _of_index(index: Artifact) -> dict[str, float]:
    """Metrics of the index stage, copied so that one file has all metrics."""
    stored = StoredIndex(index)
    return {"index.recall@10": stored.recall.recall, "index.bytes": stored.spec.bytes}
