"""The budget of a training, computed before it starts: memory, disk, steps, bytes exchanged.

`embedmill plan` shows it, and a training that does not fit is refused before anything is
scheduled. Figures are upper bounds: a batch is assumed to have no row twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from embedmill.pipeline.config import Config, TrainConfig
from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.objectives import OBJECTIVES
from embedmill.pipeline.train.objectives.training_method import FLOAT_BYTES
from embedmill.pipeline.train.plan import Layout, TrainingSize
from embedmill.pipeline.train.resources.available import FreeResources, launcher_of

__all__ = ["Budget", "budget_of", "choose_tables", "size_of", "split_memory"]

Tables = Literal["memory", "mapped"]

_PROCESS = 450 << 20  # an interpreter with torch, pyarrow and Ray
_CLUSTER = 700 << 20  # Ray's own processes, and the driver
_SCORES = 3 << 26  # of validation: a block of scores, and the memory of its top k
_BLOCK = 1 << 16  # rows of a block of validation
_COPIES = 3  # of a partition while it is stored: its rows, their bytes, the file's buffer


@dataclass(frozen=True)
class Budget:
    """What a training needs. Without other notes, bytes of the worker with most rows.

    Args:
        workers: how many workers train.
        tables: its rows of both tables.
        optimizer: their optimizer state.
        events: its examples and their order.
        batch: a step or validation, whichever needs more.
        partition: a partition while it is stored.
        process: Python and its libraries.
        cluster: Ray, in all.
        wire: what a worker sends in a step.
        steps: steps of an epoch.
        stored: checkpoints and tables on the run's disk, in all.
        files: memory-mapped tables on the scratch disk, in all.
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
        """Bytes of memory of all workers, with tables in memory or memory-mapped."""
        in_memory = self.tables + self.optimizer if tables == "memory" else 0
        worker = in_memory + self.events + self.batch + self.partition + self.process
        return self.workers * worker + self.cluster

    @property
    def after_events(self) -> int:
        """Bytes that a worker still needs once its events are read, with tables in memory."""
        return self.tables + self.optimizer + self.events // 3 + self.batch + self.partition

    def memory_share(self, free: int) -> float:
        """Share of a worker's memory-mapped rows that can be kept in `free` bytes of memory.

        They get two thirds of what nothing else needs; the rest is for pages of the files.
        """
        spare = free - (self.after_events - self.tables - self.optimizer)
        return min(1.0, max(0, spare) * 2 / 3 / max(1, self.tables + self.optimizer))

    def as_json(self) -> dict[str, int]:
        """The figures by name."""
        return asdict(self)


def split_memory(share: float, users: int, items: int) -> tuple[float, float]:
    """Which shares of the users' and of the items' rows to keep in memory.

    Rows of the smaller table are used more often: it gets up to half of the memory.

    Args:
        share: of the rows of both tables together.
        users: rows of the users' table.
        items: rows of the items' table.
    """
    rows, smaller = share * (users + items), min(users, items)
    of_smaller = min(1.0, rows / 2 / max(1, smaller))
    of_larger = min(1.0, (rows - of_smaller * smaller) / max(1, users + items - smaller))
    return (of_smaller, of_larger) if users < items else (of_larger, of_smaller)


def size_of(run: Run) -> TrainingSize:
    """The size of a run whose shards are finished."""
    source = OBJECTIVES[run.config.train.objective].source
    return source.stored_size(run.artifact("vocab").counters, run.artifact("shards").counters)


def budget_of(size: TrainingSize, config: Config, workers: int) -> Budget:
    """What a training needs.

    Args:
        size: its rows and examples.
        config: the run's config.
        workers: how many train.
    """
    train, partitions = config.train, config.run.partitions
    objective = OBJECTIVES[train.objective]
    method, columns = objective.method, objective.columns(train)
    layout = Layout(partitions, workers)
    rows = layout.local_rows(size.users) + layout.local_rows(size.items)
    row = columns[-1].stop * FLOAT_BYTES
    state = sum(method.state_widths(train, columns).values()) * FLOAT_BYTES
    share = len(layout.owned) / partitions
    both_tables = size.rows * (row + state)
    largest_partition = -(-size.users // partitions) + -(-size.items // partitions)
    return Budget(
        workers=workers,
        tables=rows * row,
        optimizer=rows * state,
        events=method.event_bytes(size, train, share),
        batch=max(method.step_bytes(size, train, workers, row), _validation_bytes(train, row)),
        partition=_COPIES * largest_partition * (row + state),
        process=_PROCESS,
        cluster=_CLUSTER if launcher_of(train) == "ray" else 0,
        wire=method.sent_bytes(size, train, workers, row),
        steps=method.plan((size.train,), train).steps,
        stored=_checkpoints(size, train) * both_tables + (size.rows + size.derived) * row,
        files=both_tables,
    )


def choose_tables(budget: Budget, config: Config, free: FreeResources) -> Tables:
    """Whether the tables will be in memory or memory-mapped.

    Args:
        budget: what the training needs.
        config: the run's config.
        free: what the machine has.

    Raises:
        MachineError: they fit neither way, or not the way that the config asks for.
    """
    requested = config.train.tables
    in_memory, mapped = budget.memory("memory"), budget.memory("mapped")
    _check_disk(budget.stored, free.run, "checkpoints and tables", config)
    if requested != "mapped" and in_memory <= free.memory:
        return "memory"
    if requested == "memory" or config.train.device == "cuda":
        raise MachineError(
            f"training needs {_gb(in_memory)} of memory in {_workers(budget.workers)}, "
            f"{_gb(free.memory)} are free",
            where="train",
            todo="Lower train.dim, or set train.tables = 'mapped' to keep the tables on disk",
        )
    if mapped > free.memory:
        raise MachineError(
            f"training needs {_gb(mapped)} of memory in {_workers(budget.workers)} even with its "
            f"tables on disk, {_gb(free.memory)} are free",
            where="train",
            todo="Lower train.workers or train.batch_size, or raise run.partitions",
        )
    also_stored = budget.stored if free.one_disk and free.run is not None else 0
    _check_disk(budget.files + also_stored, free.scratch, "mapped tables", config)
    return "mapped"


def _validation_bytes(train: TrainConfig, row: int) -> int:
    return _SCORES + (3 * _BLOCK + train.valid_users) * row


def _checkpoints(size: TrainingSize, train: TrainConfig) -> int:
    """Checkpoints stored at once: the best, the latest, and the one that is being written."""
    number = 3 if size.valid else 2
    return min(number, train.epochs) if not train.checkpoint_steps else number


def _check_disk(need: int, free: int | None, what: str, config: Config) -> None:
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
