"""What a training needs, by arithmetic: memory, disk, steps, bytes between workers.

`embedmill plan` shows the figures, and training is refused on them before anything is scheduled.
They are meant to be high rather than low: batches are taken to have no row twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from embedmill.pipeline.config import Config, TrainConfig
from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.als import SweepPlan
from embedmill.pipeline.train.objectives.objectives import OBJECTIVES, has_bias
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.optimizers import OPTIMIZERS

__all__ = [
    "Demand",
    "Free",
    "Size",
    "columns_of",
    "demand_of",
    "fitting",
    "shared",
    "size_of",
    "state_of",
]

Tables = Literal["memory", "mapped"]

_FLOAT = 4
_INDEX = 8
_EVENT = 12  # two rows and a weight
_ORDER = 4
_SOLVED_EVENT = 120  # iALS sorts the events by both sides, and keeps both orders
_PROCESS = 450 << 20  # an interpreter with torch, pyarrow and Ray
_CLUSTER = 700 << 20  # Ray's own processes, and the driver
_SCORES = 3 << 26  # of validation: a block of scores, and what picks the best of them
_BLOCK = 1 << 16  # rows of validation at hand at once
_LOSS = 32 << 20  # blocks of a loss
_ROWS_AT_ONCE = 8  # copies of a step's rows: as sent and as received, gradients, changes
_SOLVED_ROWS = 4  # the same of iALS
_COPIES = 3  # of one partition while it is stored: the rows, their bytes, the file's buffer


@dataclass(frozen=True)
class Size:
    """What is trained on: rows of both tables, and events.

    Of pairs of items, `users` are the centers, `train` the pairs, `valid` what is read beside
    them, and `derived` the users, whose vectors are made of the items'.
    """

    users: int
    items: int
    train: int
    valid: int
    derived: int = 0

    @property
    def rows(self) -> int:
        """Rows of both tables."""
        return self.users + self.items


@dataclass(frozen=True)
class Demand:
    """Bytes that the worker with most rows needs; `cluster`, `stored` and `files` are in all.

    `wire` is what one worker sends in a step. `stored` is what checkpoints and tables take on
    the run's disk, `files` what mapped tables take on the scratch disk.
    """

    workers: int
    tables: int
    optimizer: int
    events: int
    batch: int
    partition: int
    process: int
    cluster: int
    wire: int
    steps: int
    stored: int
    files: int

    def memory(self, tables: Tables) -> int:
        """Bytes of memory in all, with the tables there or mapped."""
        held = self.tables + self.optimizer if tables == "memory" else 0
        one = held + self.events + self.batch + self.partition + self.process
        return self.workers * one + self.cluster

    @property
    def ahead(self) -> int:
        """Bytes that a worker will still take for tables in memory, once it has its events."""
        return self.tables + self.optimizer + self.events // 3 + self.batch + self.partition

    def holdable(self, free: int) -> float:
        """Share of a worker's mapped rows that `free` bytes hold beside all else.

        It takes two thirds of what is left; pages of files need the rest.
        """
        spare = free - (self.ahead - self.tables - self.optimizer)
        return min(1.0, max(0, spare) * 2 / 3 / max(1, self.tables + self.optimizer))

    def as_json(self) -> dict[str, int]:
        """The figures by name."""
        return asdict(self)


@dataclass(frozen=True)
class Free:
    """Free bytes: memory of this machine, the disk of the run (None: not local) and of scratch."""

    memory: int
    run: int | None
    scratch: int
    one_disk: bool


def shared(spare: float, users: int, items: int) -> tuple[float, float]:
    """Shares of the users' and items' rows to hold, of all rows a share of `spare`.

    A row of the smaller table is used more often: it takes up to half of it.
    """
    rows, few = spare * (users + items), min(users, items)
    of_few = min(1.0, rows / 2 / max(1, few))
    of_many = min(1.0, (rows - of_few * few) / max(1, users + items - few))
    return (of_few, of_many) if users < items else (of_many, of_few)


def columns_of(config: TrainConfig) -> tuple[slice, ...]:
    """Groups of a table's columns that are scaled on their own: the vector, and a bias."""
    vector = slice(0, config.dim)
    return (vector, slice(config.dim, config.dim + 1)) if has_bias(config) else (vector,)


def state_of(config: TrainConfig) -> dict[str, int]:
    """Columns of each tensor of the optimizer, none where rows are solved for."""
    if OBJECTIVES[config.objective].loss is None:
        return {}
    columns = columns_of(config)
    return OPTIMIZERS[config.optimizer].state(columns[-1].stop, columns)


def size_of(run: Run) -> Size:
    """The size of a run whose shards are there."""
    vocab, shards = run.artifact("vocab").counters, run.artifact("shards").counters
    if OBJECTIVES[run.config.train.objective].pairs:
        pairs = max(shards["pairs"], shards.get("pairs_with_valid", 0))
        events = shards["train"] + shards["valid"]
        return Size(vocab["items"], vocab["items"], pairs, events, derived=vocab["users"])
    return Size(vocab["users"], vocab["items"], shards["train"], shards["valid"])


def demand_of(size: Size, config: Config, workers: int) -> Demand:
    """What training over `size` needs.

    Args:
        size: rows and events.
        config: the run's.
        workers: how many train.
    """
    train, partitions = config.train, config.run.partitions
    layout = Layout(partitions, workers)
    held = layout.local_rows(size.users) + layout.local_rows(size.items)
    width = train.dim + int(has_bias(train))
    row, beside = width * _FLOAT, sum(state_of(train).values()) * _FLOAT
    share = len(layout.owned) / partitions
    whole = size.rows * (row + beside)
    largest = -(-size.users // partitions) + -(-size.items // partitions)
    return Demand(
        workers=workers,
        tables=held * row,
        optimizer=held * beside,
        events=_events(size, train, share),
        batch=max(_step(size, train, workers, row), _validation(train, row)),
        partition=_COPIES * largest * (row + beside),
        process=_PROCESS,
        cluster=_CLUSTER if train.launcher == "ray" else 0,
        wire=_wire(size, train, workers, row),
        steps=_steps(size, train),
        stored=_slots(size, train) * whole + (size.rows + size.derived) * row,
        files=whole,
    )


def fitting(demand: Demand, config: Config, free: Free) -> Tables:
    """Where the tables are to live.

    Raises:
        MachineError: neither in memory nor in files, or not where the config wants them.
    """
    wanted = config.train.tables
    in_memory, mapped = demand.memory("memory"), demand.memory("mapped")
    _fits_disk(demand.stored, free.run, "checkpoints and tables", config)
    if wanted != "mapped" and in_memory <= free.memory:
        return "memory"
    if wanted == "memory" or config.train.device == "cuda":
        raise MachineError(
            f"training needs {_gb(in_memory)} of memory in {_workers(demand.workers)}, "
            f"{_gb(free.memory)} are free",
            where="train",
            todo="Lower train.dim, or set train.tables = 'mapped' to keep the tables on disk",
        )
    if mapped > free.memory:
        raise MachineError(
            f"training needs {_gb(mapped)} of memory in {_workers(demand.workers)} even with its "
            f"tables on disk, {_gb(free.memory)} are free",
            where="train",
            todo="Lower train.workers or train.batch_size, or raise run.partitions",
        )
    beside = demand.stored if free.one_disk and free.run is not None else 0
    _fits_disk(demand.files + beside, free.scratch, "mapped tables", config)
    return "mapped"


def _events(size: Size, train: TrainConfig, share: float) -> int:
    if OBJECTIVES[train.objective].loss is None:
        return int(share * size.train * _SOLVED_EVENT)
    per_item = 3 * _INDEX * size.items  # counts, and what negatives are drawn by
    if train.l2_power != 1:  # what each row's L2 is multiplied by
        per_item += _FLOAT * (size.items + int(share * size.users))
    fitted = size.train + (size.valid if train.refit else 0)
    read = size.train + size.valid
    return int(share * (read * _EVENT + fitted * _ORDER)) + per_item


def _step(size: Size, train: TrainConfig, workers: int, row: int) -> int:
    if OBJECTIVES[train.objective].loss is None:
        return _SOLVED_ROWS * min(max(size.users, size.items) * row, 1 << 30) + _LOSS
    batch = -(-train.batch_size // workers)
    rows = min(batch, size.users) + _distinct(size, train, workers)
    return _ROWS_AT_ONCE * rows * row + 16 * _INDEX * (batch + _candidates(train)) + _LOSS


def _validation(train: TrainConfig, row: int) -> int:
    return _SCORES + (3 * _BLOCK + train.valid_users) * row


def _wire(size: Size, train: TrainConfig, workers: int, row: int) -> int:
    """Rows asked for, their vectors, and their gradients on the way back, to other workers."""
    if OBJECTIVES[train.objective].loss is None or workers == 1:
        return 0
    rows = _distinct(size, train, workers) * (workers - 1) / workers
    told = -(-_from_batch(train) // workers) * _INDEX * (workers - 1)
    return int(rows * (_INDEX + 2 * row)) + told


def _candidates(train: TrainConfig) -> int:
    if not OBJECTIVES[train.objective].negatives:
        return 0
    return train.negatives + _from_batch(train)


def _from_batch(train: TrainConfig) -> int:
    return (train.in_batch_negatives or train.batch_size) if train.in_batch else 0


def _distinct(size: Size, train: TrainConfig, workers: int) -> int:
    """Items that one worker looks up in a step, at most."""
    return min(-(-train.batch_size // workers) + _candidates(train), size.items)


def _steps(size: Size, train: TrainConfig) -> int:
    if OBJECTIVES[train.objective].loss is None:
        return SweepPlan((size.train,), train.dim).steps
    return -(-size.train // train.batch_size)


def _slots(size: Size, train: TrainConfig) -> int:
    """Checkpoints there at once: the best, the latest, and the one that is being written."""
    written = 3 if size.valid else 2
    return min(written, train.epochs) if not train.checkpoint_steps else written


def _fits_disk(need: int, free: int | None, what: str, config: Config) -> None:
    if free is not None and need > free:
        key = "train.scratch" if what == "mapped tables" else "run.root"
        raise MachineError(
            f"{what} need {_gb(need)} of disk, {_gb(free)} are free",
            where="train",
            todo=f"Lower train.dim (it is {config.train.dim}), or set {key} to a larger disk",
        )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _workers(count: int) -> str:
    return "one worker" if count == 1 else f"{count} workers"
