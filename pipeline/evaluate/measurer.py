"""Users of some partitions measured together; their figures are added up in order of groups.

Legend: B users of a batch, U users of a group, D coordinates, M test events.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from embedmill.pipeline.evaluate.board import Board, BoardFigures, ItemTable, Recommender
from embedmill.pipeline.evaluate.earlier_quality import EarlierFigures, EarlierQuality
from embedmill.pipeline.evaluate.holdout import (
    FittedItems,
    Group,
    UserSample,
    group_of,
    partition_groups,
)
from embedmill.pipeline.evaluate.other_protocols import OtherProtocols, ProtocolFigures
from embedmill.pipeline.evaluate.ranking import USER_METRICS
from embedmill.pipeline.evaluate.ratings import Errors, predict
from embedmill.pipeline.export import find_earlier
from embedmill.pipeline.index import faiss_threads
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.train.fold_in import FoldIn, trained_with
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors, spec_of
from embedmill.schemas.evaluate import USERS
from embedmill.schemas.export import VectorSpec
from embedmill.schemas.manifest import FileEntry

__all__ = ["GroupFigures", "Measurer", "MeasuringTask", "measure_groups"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

# Users whose vectors are read together: 256 MiB at 64 dimensions. Each reading may go through all
# files of vectors, so it is for several groups where few users are drawn of each.
_USERS = 1 << 20

# users: evaluated; nothing_left: all their test items were seen before; events: of test.
_COUNTED = (
    "users", "nothing_left", "cold_users", "cold_events", "repeats", "test_pairs", "events",
    "unsampled_users", "unsampled_events",
)  # fmt: skip


@dataclass(frozen=True)
class MeasuringTask:
    """Measure some groups of partitions.

    Attributes:
        run: with stages up to `index`.
        storage: the folder of the artifact's files.
        open_index: opens the index of an artifact.
        fitted: events that the model was fitted to, by item.
        sample: the users that are drawn.
        groups: partitions of each group.
        first: number of the first of them.
    """

    run: Run
    storage: Storage
    open_index: Callable[[Artifact], Recommender]
    fitted: FittedItems
    sample: UserSample
    groups: tuple[tuple[int, ...], ...]
    first: int = 0

    @functools.cached_property
    def index(self) -> Recommender:
        """The index, opened once however many measure this task."""
        return self.open_index(self.run.artifact("index"))

    @functools.cached_property
    def fold_in(self) -> FoldIn:
        """What makes vectors of cold users; reads all events when it is first asked for."""
        export, shards = self.run.artifact("export"), Shards(self.run.artifact("shards"))
        train = trained_with(self.run.artifact("train"), self.run.config)
        return FoldIn.of(spec_of(export), train, shards, Vectors.of(export, "items"))

    @staticmethod
    def of(
        run: Run,
        storage: Storage,
        open_index: Callable[[Artifact], Recommender],
        fitted: FittedItems,
        sample: UserSample,
    ) -> MeasuringTask:
        """All groups of a run. Args as the attributes."""
        groups = partition_groups(Shards(run.artifact("shards")))
        return MeasuringTask(run, storage, open_index, fitted, sample, groups)

    def split(self, tasks: int) -> Iterator[MeasuringTask]:
        """At most so many tasks of consecutive groups, in order."""
        bounds = np.unique(np.linspace(0, len(self.groups), tasks + 1).astype(int)).tolist()
        for start, stop in itertools.pairwise(bounds):
            yield replace(self, groups=self.groups[start:stop], first=self.first + start)


@dataclass(frozen=True)
class GroupFigures:
    """What was added up over a group, and the files that were written."""

    counters: dict[str, int]
    board: BoardFigures
    others: ProtocolFigures
    beside: EarlierFigures | None
    errors: Errors | None
    files: tuple[FileEntry, ...]


@dataclass
class Measurer:
    """Measures groups of users, and adds their figures up."""

    task: MeasuringTask
    spec: VectorSpec
    board: Board
    others: OtherProtocols
    earlier_export: Artifact | None
    beside: EarlierQuality | None
    errors: Errors | None
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))

    @staticmethod
    def of(task: MeasuringTask) -> Measurer:
        """One that has measured nothing."""
        run, counts = task.run, task.fitted.counts
        export, config = run.artifact("export"), run.config.evaluate
        spec, items = spec_of(export), ItemTable(Vectors.of(export, "items"))
        board = Board.of(config, counts, items, task.index)
        others = OtherProtocols.of(config, run.config.run.seed, board, counts, lambda: task.fold_in)
        earlier = _earlier(run, export)
        beside = EarlierQuality.of(board, counts, export, earlier) if earlier is not None else None
        errors = Errors() if spec.objective == "rating" else None
        return Measurer(task, spec, board, others, earlier, beside, errors)

    def groups(self) -> Iterator[GroupFigures]:
        """The figures of each group of the task, in order."""
        run, pending, users = self.task.run, list[tuple[int, Group]](), 0
        shards, config = Shards(run.artifact("shards")), run.config.evaluate
        for number, partitions in enumerate(self.task.groups, self.task.first):
            group = group_of(shards, partitions, self.spec.fitted, config.fold_in, self.task.sample)
            pending.append((number, group))
            users += len(group.users)
            if users >= _USERS:
                yield from self._measure(pending)
                pending, users = [], 0
        yield from self._measure(pending)

    def add_figures(self, taken: GroupFigures) -> tuple[FileEntry, ...]:
        """Add a group's figures up; returns the files that were written."""
        for name, count in taken.counters.items():
            self.counters[name] += count
        self.board.add_figures(taken.board)
        self.others.add_figures(taken.others)
        if self.beside is not None and taken.beside is not None:
            self.beside.add_figures(taken.beside)
        if self.errors is not None and taken.errors is not None:
            self.errors.add_figures(taken.errors)
        return taken.files

    def metrics(self) -> dict[str, float]:
        """All metrics but those of the index and of drift."""
        found = self.board.metrics(self.counters["users"]) | self.others.metrics()
        found |= self.errors.means() if self.errors is not None else {}
        return found | (self.beside.metrics() if self.beside is not None else {})

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of means over users."""
        return self.board.intervals(self.counters["users"]) | self.others.intervals()

    def seconds(self) -> dict[str, float]:
        """Seconds by what was measured, of all tasks together."""
        return {**self.board.seconds, **self.others.seconds()}

    def _measure(self, pending: list[tuple[int, Group]]) -> Iterator[GroupFigures]:
        """Measure some groups, whose users' vectors are read together."""
        vectors = Vectors.of(self.task.run.artifact("export"), "users")
        rows = np.concatenate([np.empty(0, np.int64), *(group.users for _, group in pending)])
        matrix = vectors.matrix()
        user_RD = matrix[rows] if matrix is not None else vectors.gather(rows)
        at = 0
        for number, group in pending:
            yield self._figures(number, group, user_RD[at : at + len(group.users)])
            at += len(group.users)

    def _figures(self, number: int, group: Group, user_UD: Floats) -> GroupFigures:
        export = self.task.run.artifact("export")
        asked = self.board.add(group, user_UD)
        self.others.add(group, user_UD)
        if self.beside is not None:
            self.beside.add(group, user_UD)
        if self.errors is not None:
            self.errors.add(group, _ratings(export, self.spec, group, user_UD), self.task.fitted)
        files: tuple[FileEntry, ...] = ()
        if self.task.run.config.evaluate.keep_users:
            files = (_write_users(self.task.storage, number, self.board, export),)
        return GroupFigures(
            _counters(group, asked),
            self.board.take_figures(),
            self.others.take_figures(),
            self.beside.take_figures() if self.beside is not None else None,
            self.errors.take_figures() if self.errors is not None else None,
            files,
        )


def measure_groups(task: MeasuringTask) -> list[GroupFigures]:
    """The figures of a task's groups, in order; on one thread, as others run beside it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with faiss_threads(1):
            return list(Measurer.of(task).groups())
    finally:
        torch.set_num_threads(before)


def _write_users(storage: Storage, number: int, board: Board, export: Artifact) -> FileEntry:
    """Write a file of the metrics of the users of a group."""
    kept, board.by_user[:] = list(board.by_user), []
    rows = np.concatenate([one.rows for one in kept]) if kept else np.empty(0, np.int64)
    names = [f"{name}@{k}" for k in board.config.ks for name in USER_METRICS]
    values = {
        name: np.concatenate([one.values[name].numpy() for one in kept]) if kept else rows / 1.0
        for name in names
    }
    ids = Vectors.of(export, "users").vocabulary.ids(rows)
    table = pa.table({"user": pa.array(ids, pa.string()), **values})
    return write_parquet(storage, "evaluate", USERS.path(number), table)


def _counters(group: Group, asked: int) -> dict[str, int]:
    return {
        "users": asked,
        "nothing_left": len(group.users) - asked,
        "cold_users": group.cold_users,
        "cold_events": group.cold_events,
        "repeats": group.repeats,
        "test_pairs": len(group.relevant.rows),
        "events": len(group.test.user) + group.cold_events + group.unsampled_events,
        "unsampled_users": group.unsampled_users,
        "unsampled_events": group.unsampled_events,
    }


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
