"""What each stage costs for given sizes, by unit costs that were measured once.

Seconds are of one core of the machine that `pipeline.index.cost` describes, and are fitted to runs
of `benchmarks/whole_line.py`. Memory is that of all processes on one machine together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from embedmill.pipeline.config import Config
from embedmill.pipeline.estimates.line_sizes import LineSizes
from embedmill.pipeline.index import INDEXES, cost
from embedmill.pipeline.train.estimate import Estimate
from embedmill.schemas import export, vocab

__all__ = ["COSTS", "StageCost", "Work"]

_GIB = 1 << 30
_MIB = 1 << 20
_EVENT_BYTES = 12.4  # of an event in a file of stage events, compressed
_ID_BYTES = 6.4  # of an id in a file of the vocabulary, compressed
_SHARD_BYTES = 20.3  # of an event in a file of stage shards
_SHUFFLED_BYTES = 40  # of an event while it is sorted by user
_DRIVER = 0.45 * _GIB  # Python, Arrow, the embedded engine
_PROCESS = 0.38 * _GIB  # a task's Python, torch and FAISS
_GROUP_EVENTS = 1 << 22  # in a group that is evaluated
# Budgets of training are upper bounds; objectives without steps held so much of them.
_HELD = 0.4
_NETWORK = 1.25e9  # bytes a second of a node of a cluster: 10 Gbit/s
# Memory of the data stages grows with the rows to this power, as buffers are bounded: 0.48 GiB at
# 1 M rows, 2.1 at 10 M, 7.9 at 100 M.
_DATA_POWER = 0.6


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
    """

    sizes: LineSizes
    config: Config
    train: Estimate
    cores: int
    workers: int
    node_cores: int

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
        return self.config.evaluate.evaluated(users, self.sizes.items)


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


def _data_memory(work: Work) -> float:
    return float(0.48 * _GIB * max(1.0, work.sizes.rows / 1e6) ** _DATA_POWER)


def _events(work: Work) -> StageCost:
    sizes, out = work.sizes, work.sizes.events * _EVENT_BYTES
    memory = _data_memory(work)
    return StageCost(
        1.0, sizes.rows * 1.9e-6, 0.0, max(1, sizes.raw_bytes // (8 << 20)), memory,
        memory / work.cores, sizes.raw_bytes, out, sizes.events * _SHUFFLED_BYTES,
    )  # fmt: skip


def _vocab(work: Work) -> StageCost:
    sizes, memory = work.sizes, 1.2 * _data_memory(work)
    return StageCost(
        0.4, sizes.events * 9e-7 + work.vectors * 9e-7, 0.0, work.config.run.partitions, memory,
        memory / work.cores, sizes.events * _EVENT_BYTES, work.vectors * _ID_BYTES,
        work.vectors * _SHUFFLED_BYTES,
    )  # fmt: skip


def _shards(work: Work) -> StageCost:
    sizes, memory = work.sizes, 1.2 * _data_memory(work)
    return StageCost(
        1.0, sizes.events * 2.0e-6, 0.0, work.config.run.partitions, memory, memory / work.cores,
        sizes.events * _EVENT_BYTES + work.vectors * _ID_BYTES, sizes.events * _SHARD_BYTES,
        sizes.events * _SHUFFLED_BYTES,
    )  # fmt: skip


def _train(work: Work) -> StageCost:
    sizes, estimate, train = work.sizes, work.train, work.config.train
    tables = work.vectors * work.row_bytes
    validated = min(train.valid_users, sizes.valid) * sizes.items
    validation = estimate.epochs * validated * cost.batched_products(1, train.dim) * 1e-6
    reading = (sizes.train + sizes.valid) * 1.5e-7
    stored = estimate.epochs * tables * 1.5e-9
    steps = estimate.seconds * estimate.epochs * work.workers
    budget = estimate.budget.memory("memory" if estimate.tables != "mapped" else "mapped")
    sent = float(estimate.budget.wire) * estimate.budget.steps * estimate.epochs
    beside = min(work.node_cores, work.workers)  # workers that share a node's network
    exchange = sent * beside / _NETWORK if work.cores > work.node_cores else 0.0
    return StageCost(
        5.0, steps + validation + reading + stored, exchange, work.workers,
        budget * (1.0 if estimate.budget.optimizer else _HELD) + _data_memory(work) / 2,
        estimate.budget.memory("memory") / work.workers,
        sizes.events * _SHARD_BYTES, tables, sent * work.workers,
    )  # fmt: skip


def _export(work: Work) -> StageCost:
    size, npy = work.vectors * work.row_bytes, work.config.export.npy
    parts = sum(-(-rows // vocab.ROWS_PER_FILE) for rows in (work.sizes.users, work.sizes.items))
    task = _PROCESS + 4 * export.ROWS_PER_FILE * work.row_bytes + vocab.ROWS_PER_FILE * 60
    running = min(parts, work.cores) if size > 1 << 29 else 0
    return StageCost(
        0.3 + 2.5 * (running > 0), size * 1.7e-8, size * 4e-9 * npy, parts,
        _DRIVER + _data_memory(work) + running * task, task,
        size + work.vectors * _ID_BYTES, size * (1 + npy),
    )  # fmt: skip


def _index(work: Work) -> StageCost:
    sizes, config, dim = work.sizes, work.config.index, work.config.train.dim
    raw = sizes.items * dim * 4
    # Candidates built and tuned: most of it is queries that go through a share of all items. Shards
    # are tuned on a sample.
    shards = config.shards or -(-raw // config.shard_bytes)
    searched = sizes.items * dim / 64 * (1.0 if shards == 1 else 0.33)
    kind = INDEXES["fastscan" if config.kind == "auto" else config.kind]
    written = kind.estimate_bytes(sizes.items, dim, kind.plan(sizes.items, dim, config))
    parts, serial = (work.node_cores, searched * 4e-5) if shards == 1 else (shards, 0.0)
    return StageCost(
        4.0, searched * 3.6e-4, serial, parts,
        _DRIVER + _data_memory(work) + 2.5 * raw, _PROCESS + 2.5 * raw,
        raw + sizes.test * _SHARD_BYTES, written,
    )  # fmt: skip


def _evaluate(work: Work) -> StageCost:
    sizes, dim, users = work.sizes, work.config.train.dim, work.evaluated_users
    scores = users * sizes.items * (cost.batched_products(1, dim) * 1e-6 + 3e-9)
    # One search for each length of list, which takes a quarter as long as exact search.
    searches = len(work.config.evaluate.ks) * users
    search = 1e-4 + 0.25 * cost.batched_products(sizes.items, dim) * 1e-6
    reading = sizes.events * 2.5e-7
    table = sizes.items * dim * 4
    task = _PROCESS + min(table, 2 << 30) + _GROUP_EVENTS * 60
    groups = -(-sizes.events // _GROUP_EVENTS)
    return StageCost(
        1.0, scores + searches * search + reading, 0.5, groups,
        _DRIVER + _data_memory(work) + min(work.cores, groups) * task, task,
        sizes.events * _SHARD_BYTES + work.vectors * work.row_bytes, 10_000.0,
    )  # fmt: skip


def _report(work: Work) -> StageCost:
    memory = _DRIVER + _data_memory(work)
    return StageCost(
        0.4, 0.0, work.vectors * 3e-8 + work.sizes.items * 2e-7, 1, memory, memory,
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
