"""What a training will take, estimated before anything starts: memory, disk, minutes."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from embedmill.pipeline.config import Config
from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import duration, si
from embedmill.pipeline.train.assembly import assemble
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.examples import Examples
from embedmill.pipeline.train.data.histories import Histories
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.objectives import OBJECTIVES
from embedmill.pipeline.train.plan import Layout, TrainingSize, generator, rows_in
from embedmill.pipeline.train.resources.available import (
    FreeResources,
    free_resources,
    local_workers,
)
from embedmill.pipeline.train.resources.budget import Budget, budget_of, choose_tables, size_of
from embedmill.pipeline.train.trainer import Trainer
from embedmill.pipeline.train.trials import largest

__all__ = ["Estimate", "GivenSizes", "estimate", "power_law", "synthetic_examples"]

_POWER = 0.8  # row r is assumed to have events in proportion to r ** -0.8
_CALIBRATION_BYTES = 1 << 28  # of the tables to calibrate with
_CALIBRATION_EVENTS = 1 << 20  # to calibrate with, at least
# An example takes as much more in larger tables as their size to this power: more rows come from
# main memory. Spectral vectors of 10 M users took 1.5 times as much as those of 1 M.
_LARGER = 0.17


@dataclass(frozen=True)
class GivenSizes:
    """Sizes for stages that have not finished; 0: not given. `events` are train events."""

    users: int = 0
    items: int = 0
    events: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a training will take.

    Args:
        size: its rows and examples.
        budget: what it needs.
        free: what this machine has.
        tables: "memory" or "mapped"; empty where it does not fit.
        refused: why it does not fit, or None.
        epochs: the most that it may take, a refit included.
        seconds: of an epoch, without validation and checkpoints; 0 if not calibrated.
        spectral: whether tables are initialized with singular vectors.
        slower: by what factor an example is taken to be slower than in the tables that were timed.
    """

    size: TrainingSize
    budget: Budget
    free: FreeResources
    tables: str
    refused: MachineError | None
    epochs: int
    seconds: float
    spectral: bool
    slower: float = 1.0

    def as_json(self) -> dict[str, Any]:
        """One flat object."""
        flat: dict[str, Any] = {f"rows.{k}": v for k, v in asdict(self.size).items()}
        flat |= {f"need.{k}": v for k, v in self.budget.as_json().items()}
        flat |= {f"free.{k}": v for k, v in asdict(self.free).items()}
        memory = self.budget.memory("mapped" if self.tables == "mapped" else "memory")
        return flat | {
            "need.memory": memory,
            "tables": self.tables,
            "fits": self.refused is None,
            "epochs": self.epochs,
            "seconds_per_epoch": round(self.seconds, 3),
            "minutes": round(self.seconds * self.epochs / 60, 3),
        }

    def lines(self) -> list[tuple[str, str, str]]:
        """Name, figure and remark of each line of the table that `plan` prints: 80 columns."""
        size, budget, free = self.size, self.budget, self.free
        mapped = self.tables == "mapped"
        memory = budget.memory("mapped" if mapped else "memory")
        on_disk = "" if free.run is None else f", of {_bytes(free.run)} free"
        lines = [
            ("rows", f"{size.rows:,}", f"{size.users:,} users, {size.items:,} items"),
            ("pairs", f"{size.train:,}", f"to train on, {size.valid:,} to validate on"),
            ("steps", f"{budget.steps:,}", f"an epoch, {budget.steps * self.epochs:,} at most"),
            ("workers", f"{budget.workers}", "each of which needs, at most"),
            ("  tables", _bytes(budget.tables), "mapped from files" if mapped else "in memory"),
            ("  optimizer", _bytes(budget.optimizer), "beside the tables"),
            ("  events", _bytes(budget.events), "and their order"),
            ("  batch", _bytes(budget.batch), "or validation, whichever is more"),
            ("  partition", _bytes(budget.partition), "while it is stored"),
            ("  process", _bytes(budget.process), "Python, torch, Arrow"),
            ("memory", _bytes(memory), f"in all, of {_bytes(free.memory)} free"),
            ("disk", _bytes(budget.stored), f"checkpoints and tables{on_disk}"),
            ("on the wire", _bytes(budget.wire), "sent by a worker in a step"),
        ]
        if mapped:
            room = f"mapped tables, of {_bytes(free.scratch)} free"
            lines.insert(-1, ("scratch", _bytes(budget.files), room))
            if self.spectral:
                todo = "reads mapped tables many times; init = 'normal' does not"
                lines.append(("start", "spectral", todo))
        if self.seconds:
            each, epochs = duration(self.seconds), _epochs(self.epochs)
            lines.append(
                ("time", duration(self.seconds * self.epochs), f"{epochs} of {each}, at most")
            )
        return lines


def estimate(
    run: Run, given: GivenSizes, *, seconds: float = 3.0, cluster_workers: int = 0
) -> Estimate:
    """Estimate the training of a run.

    Args:
        run: its config, and its finished stages.
        given: sizes for stages that have not finished.
        seconds: how long to calibrate with real steps; 0: not at all.
        cluster_workers: of a cluster, whose nodes have a core for each thread of them; 0: for this
            machine, by whose memory and disk a training may be refused.

    Raises:
        ConfigError: sizes are neither stored nor given.
    """
    run = Run(run.config.model_copy(update={"train": largest(run.config.train)}))
    train = run.config.train
    size, free = _size(run, given), free_resources(run)
    workers = cluster_workers or local_workers(run.config)
    budget = budget_of(size, run.config, workers)
    tables, refused = "memory" if cluster_workers else "", None
    try:
        tables = tables or choose_tables(budget, run.config, free)
    except MachineError as error:
        refused = error
    epoch_seconds, slower = 0.0, _slower(run.config, size)
    if seconds and not refused:
        crowded = 0 if cluster_workers else workers * train.threads / (os.cpu_count() or 1)
        crowding = max(1.0, crowded)
        event_seconds = _seconds_per_example(run.config, size, seconds) * slower
        epoch_seconds = event_seconds * size.train / workers * crowding
    epochs = train.epochs * (2 if train.refit else 1)
    spectral = OBJECTIVES[train.objective].starts_spectral(train)
    return Estimate(size, budget, free, tables, refused, epochs, epoch_seconds, spectral, slower)


def _slower(config: Config, size: TrainingSize) -> float:
    """What an example takes in tables of this size, over that in those that are timed."""
    return float(_timed_share(config, size) ** -_LARGER)


def _timed_share(config: Config, size: TrainingSize) -> float:
    """The share of the rows that tables have which are timed."""
    return min(1.0, _CALIBRATION_BYTES / max(1, budget_of(size, config, 1).tables))


def power_law(rows: int, number: int, source: torch.Generator) -> Tensor:
    """Rows drawn by a power law, the r-th in proportion to r ** -0.8, int64 [number]."""
    share_N = torch.rand(number, generator=source, dtype=torch.float64)
    return (rows * share_N ** (1 / (1 - _POWER))).long().clamp_(max=rows - 1)


def synthetic_examples(size: TrainingSize, layout: Layout, seed: int = 1) -> Examples:
    """Examples of a worker's partitions, users and items each drawn by a power law."""
    each = -(-size.train // layout.partitions)
    user, item = [], []
    for partition in layout.owned:
        source = generator(seed, "synthetic", partition)
        users = rows_in(partition, layout.partitions, size.users)
        count = each if users else 0
        user.append((partition + layout.partitions * power_law(users, count, source)).int())
        item.append(power_law(size.items, count, source).int())
    sizes = tuple(len(user_N) for user_N in user)
    train = Events(torch.cat(user), torch.cat(item), torch.ones(1).expand(sum(sizes)), sizes)
    none = train.empty()
    histories = Histories(none, size.derived, layout) if size.derived else None
    return Examples(size.users, size.items, train, train, none, histories)


def _size(run: Run, given: GivenSizes) -> TrainingSize:
    """From the shards; where these are missing or sizes are given, from the vocabulary and them."""
    any_given = given.users or given.items or given.events
    if not any_given and run.find("shards") is not None:
        return size_of(run)
    vocab = run.find("vocab")
    counters = vocab.counters if vocab is not None else {}
    users = given.users or counters.get("users", 0)
    items = given.items or counters.get("items", 0)
    events = given.events or counters.get("events_kept", 0)
    if not (users and items and events):
        raise ConfigError(
            "sizes are not known before stage 'shards' has finished",
            where=run.storage.root,
            todo="Give --users, --items and --events, or run up to 'shards' first",
        )
    shards = run.config.shards
    valid = min(events, int(shards.valid * (users if shards.split == "last" else events)))
    train = given.events or max(1, events - valid)
    return OBJECTIVES[run.config.train.objective].source.given_size(users, items, train, valid)


def _seconds_per_example(config: Config, size: TrainingSize, seconds: float) -> float:
    """Time real steps of one worker on smaller tables, for about `seconds`."""
    train = config.train
    batch = -(-train.batch_size // local_workers(config))
    scale = _timed_share(config, size)
    events = min(size.train, max(_CALIBRATION_EVENTS, 4 * batch))
    small = TrainingSize(
        max(config.run.partitions, int(size.users * scale)),
        max(1, int(size.items * scale)),
        max(config.run.partitions, events),
        valid=0,
        derived=size.derived,
    )
    alone = train.model_copy(update={"batch_size": batch, "workers": 1, "tables": "memory",
                                     "device": "cpu"})  # fmt: skip
    run = Run(config.model_copy(update={"train": alone}))
    threads = torch.get_num_threads()
    torch.set_num_threads(train.threads)
    try:
        examples = synthetic_examples(small, Layout(config.run.partitions))
        return _time_steps(assemble(run, examples, Group(), Cursor()), seconds) / train.threads
    finally:
        torch.set_num_threads(threads)


def _time_steps(trainer: Trainer, seconds: float) -> float:
    """Processor seconds for an example, over steps of the first epoch.

    On a busy machine they say more than wall seconds do.
    """
    plan, take_step = trainer.plan, trainer.start_epoch()
    calibration = trainer.objective.method.calibration(plan)
    done, start, spent = 0, time.perf_counter(), time.process_time()
    for step in range(plan.steps):
        if step == calibration.warm_up:
            done, start, spent = 0, time.perf_counter(), time.process_time()
        take_step(step)
        done += sum(plan.batch_sizes(step))
        timed = step + 1 - calibration.warm_up
        if timed >= calibration.timed and time.perf_counter() - start > seconds:
            break
    return (time.process_time() - spent) / max(1, done)


def _bytes(size: int) -> str:
    return f"{si(size)}B" if size >= 1000 else f"{size} B"


def _epochs(count: int) -> str:
    return "one epoch" if count == 1 else f"{count} epochs"
