"""What each stage costs for given sizes, by unit costs that were measured once.

Seconds are of one core of the machine that `pipeline.index.cost` describes, and are fitted to runs
of `benchmarks/whole_line.py` over 1, 10 and 100 M rows. Memory is that of all processes on one
machine together, fitted to the same runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from embedmill.pipeline.config import Config
from embedmill.pipeline.estimates.line_sizes import LineSizes
from embedmill.pipeline.index import INDEXES, cost
from embedmill.pipeline.train.estimate import Estimate
from embedmill.pipeline.train.short_training import SHORT_EVENTS
from embedmill.pipeline.views.shards import GROUP_EVENTS
from embedmill.schemas import export, vocab

__all__ = ["COSTS", "StageCost", "Work"]

_GIB = 1 << 30
_MIB = 1 << 20
_EVENT_BYTES = 12.4  # of an event in a file of stage events, compressed
_ID_BYTES = 6.4  # of an id in a file of the vocabulary, compressed
_SHARD_BYTES = 20.3  # of an event in a file of stage shards
_SHUFFLED_BYTES = 40  # of an event while it is sorted by user
_PROCESS = 0.38 * _GIB  # a task's Python, torch and FAISS
_WORKERS = 2.5  # seconds that workers take to start
_WAITING = 0.7 * _GIB  # the command's process while workers train
# What workers held at most, over their tables and events: those and copies of their parts.
_HELD = 1.5
_NETWORK = 1.25e9  # bytes a second of a node of a cluster: 10 Gbit/s
# GiB at most at 1, 10 and 100 M rows: buffers and tasks of the data stages are bounded, their
# tables of ids are not. "driver" is the command's process in the stages that follow.
_PEAKS = {
    "events": (0.51, 2.05, 3.5),
    "vocab": (0.56, 2.6, 5.7),
    "shards": (0.64, 2.0, 7.7),
    "driver": (0.7, 1.45, 1.5),
}


@dataclass(frozen=True)
class Work:
    """What stages are given.

    Attributes:
        sizes: of the log.
        config: of the run.
        train: what the training takes on `cores`; its seconds are of real steps.
        cores: of all machines.
        workers: processes that train.
        node_cores: of one machine.
        answered: share of the evaluated users who have a test item that is not a repeat.
    """

    sizes: LineSizes
    config: Config
    train: Estimate
    cores: int
    workers: int
    node_cores: int
    answered: float = 1.0

    @property
    def row_bytes(self) -> int:
        """Of a vector as exported, float32."""
        return 4 * self.config.train.dim

    @property
    def vectors(self) -> int:
        """Users and items."""
        return self.sizes.users + self.sizes.items

    @property
    def evaluated_users(self) -> int:
        """Users that are evaluated."""
        users = min(self.sizes.test, self.sizes.users)
        return int(self.answered * self.config.evaluate.evaluated(users, self.sizes.items))


@dataclass(frozen=True)
class StageCost:
    """What a stage takes.

    Attributes:
        fixed: seconds that do not depend on the sizes.
        core_seconds: of work that is spread over cores.
        serial: seconds of work that one core does.
        parts: tasks that it is cut into, so many cores are of use.
        memory: bytes of all processes, on one machine.
        task: bytes of one task, beside the driver.
        bytes_in: read.
        bytes_out: written.
        shuffled: sent from task to task.
    """

    fixed: float
    core_seconds: float
    serial: float
    parts: int
    memory: float
    task: float
    bytes_in: float
    bytes_out: float
    shuffled: float = 0.0

    def seconds(self, cores: int) -> float:
        """On so many cores."""
        return self.fixed + self.serial + self.core_seconds / max(1, min(cores, self.parts))


def _peak(name: str, rows: int) -> float:
    """Bytes at so many rows: the power laws between those of `_PEAKS`, and on from the last one."""
    at = math.log10(max(1.0, rows / 1e6))
    first, middle, last = (math.log(gib) for gib in _PEAKS[name])
    low, slope, start = (first, middle - first, 0.0) if at < 1 else (middle, last - middle, 1.0)
    return math.exp(low + slope * (at - start)) * _GIB


def _grown(rows: int, power: float) -> float:
    """What a row takes, over that at 10 M rows: larger tables of ids miss the caches more often."""
    return float((max(1, rows) / 1e7) ** power)


def _events(work: Work) -> StageCost:
    sizes, out = work.sizes, work.sizes.events * _EVENT_BYTES
    memory = _peak("events", sizes.rows)
    return StageCost(
        0.8, sizes.rows * 1.9e-6 * _grown(sizes.rows, 0.1), 0.0,
        max(1, sizes.raw_bytes // (8 << 20)), memory,
        memory / work.cores, sizes.raw_bytes, out, sizes.events * _SHUFFLED_BYTES,
    )  # fmt: skip


def _vocab(work: Work) -> StageCost:
    sizes, memory = work.sizes, _peak("vocab", work.sizes.rows)
    each = sizes.events * 9e-7 + work.vectors * 1.9e-6
    return StageCost(
        0.1, each * _grown(sizes.events, 0.08), 0.0, work.config.run.partitions, memory,
        memory / work.cores, sizes.events * _EVENT_BYTES, work.vectors * _ID_BYTES,
        work.vectors * _SHUFFLED_BYTES,
    )  # fmt: skip


def _shards(work: Work) -> StageCost:
    sizes, memory = work.sizes, _peak("shards", work.sizes.rows)
    return StageCost(
        1.1, sizes.events * 1.7e-6 * _grown(sizes.events, 0.2), 0.0, work.config.run.partitions,
        memory, memory / work.cores,
        sizes.events * _EVENT_BYTES + work.vectors * _ID_BYTES, sizes.events * _SHARD_BYTES,
        sizes.events * _SHUFFLED_BYTES,
    )  # fmt: skip


def _train(work: Work) -> StageCost:
    sizes, estimate, train = work.sizes, work.train, work.config.train
    tables, budget = work.vectors * work.row_bytes, estimate.budget
    validated = min(train.valid_users, sizes.valid) * sizes.items
    validation = estimate.epochs * validated * cost.batched_products(1, train.dim) * 1e-6
    reading = (sizes.train + sizes.valid) * 1.5e-7
    stored = estimate.epochs * tables * 1.5e-9
    steps = estimate.seconds * estimate.epochs * work.workers
    sent = float(budget.wire) * budget.steps * estimate.epochs
    beside = min(work.node_cores, work.workers)  # workers that share a node's network
    exchange = sent * beside / _NETWORK if work.cores > work.node_cores else 0.0
    here = not budget.optimizer and sizes.train <= SHORT_EVENTS
    held = budget.memory("memory" if estimate.tables != "mapped" else "mapped")
    if not budget.optimizer:
        held = int(_HELD * work.workers * (budget.tables + budget.events))
        held += 0 if here else int(work.workers * _PROCESS)
    driver = _peak("driver", sizes.rows) if here else _WAITING
    return StageCost(
        1.4 + (0 if here else _WORKERS), steps + validation + reading + stored, exchange,
        work.workers, driver + held,
        budget.memory("memory") / work.workers,
        sizes.events * _SHARD_BYTES, tables, sent * work.workers,
    )  # fmt: skip


def _export(work: Work) -> StageCost:
    size, npy = work.vectors * work.row_bytes, work.config.export.npy
    parts = sum(-(-rows // vocab.ROWS_PER_FILE) for rows in (work.sizes.users, work.sizes.items))
    task = _PROCESS + 4 * export.ROWS_PER_FILE * work.row_bytes + vocab.ROWS_PER_FILE * 60
    running = min(parts, work.cores) if size > 1 << 29 else 0
    return StageCost(
        0.3 + _WORKERS * (running > 0), size * 1.6e-8, size * 3.7e-9 * npy, parts if running else 1,
        _peak("driver", work.sizes.rows) + running * task, task,
        size + work.vectors * _ID_BYTES, size * (1 + npy),
    )  # fmt: skip


def _index(work: Work) -> StageCost:
    sizes, config, dim = work.sizes, work.config.index, work.config.train.dim
    raw = sizes.items * dim * 4
    # Candidates built and tuned: most of it is queries that go through a share of all items, which
    # is less of a larger catalogue. Shards are tuned on a sample.
    shards = config.shards or -(-raw // config.shard_bytes)
    searched = sizes.items * dim / 64 * _grown(100 * sizes.items, -0.08)
    searched *= 1.0 if shards == 1 else 0.33
    kind = INDEXES["fastscan" if config.kind == "auto" else config.kind]
    written = kind.estimate_bytes(sizes.items, dim, kind.plan(sizes.items, dim, config))
    parts, serial = (work.node_cores, searched * 1.2e-4) if shards == 1 else (shards, 0.0)
    return StageCost(
        2.2, searched * 3.2e-4, serial, parts,
        _peak("driver", sizes.rows) + 0.1 * _GIB + 10 * raw, _PROCESS + 10 * raw,
        raw + sizes.test * _SHARD_BYTES, written,
    )  # fmt: skip


def _evaluate(work: Work) -> StageCost:
    sizes, dim, users = work.sizes, work.config.train.dim, work.evaluated_users
    product = cost.batched_products(1, dim) * 1e-6
    # One search for each length of list: in part of a large catalogue, in all of a small one.
    searches = len(work.config.evaluate.ks) * users
    search = 6e-5 + min(1.5e-4, 0.24 * sizes.items * product)
    reading = sizes.events * 5e-7
    groups = -(-sizes.events // GROUP_EVENTS)
    running = min(work.cores, groups)
    task = 50 * _MIB + 4.5 * min(sizes.items * dim * 4, 2 << 30) + GROUP_EVENTS * 60
    work_seconds = users * sizes.items * product + searches * search + reading
    return StageCost(
        1.0 + 2 * _WORKERS * (running > 1), work_seconds,
        0.0, groups, _peak("driver", sizes.rows) + running * task, _PROCESS + task,
        sizes.events * _SHARD_BYTES + work.vectors * work.row_bytes, 10_000.0,
    )  # fmt: skip


def _report(work: Work) -> StageCost:
    memory = _peak("driver", work.sizes.rows) + 2 * work.sizes.items * work.row_bytes
    return StageCost(
        0.4, 0.0, 0.9 * (work.sizes.items / 1e5) ** 0.5, 1, memory, memory,
        work.sizes.items * work.row_bytes, 700_000.0,
    )  # fmt: skip


COSTS: Mapping[str, Callable[[Work], StageCost]] = {
    "events": _events,
    "vocab": _vocab,
    "shards": _shards,
    "train": _train,
    "export": _export,
    "index": _index,
    "evaluate": _evaluate,
    "report": _report,
}
