"""What a training will take, told before anything starts: sizes, memory, disk, minutes."""

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
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.batches import Epoch, Events
from embedmill.pipeline.train.objectives.objectives import OBJECTIVES, begins_spectral
from embedmill.pipeline.train.plan import Layout, generator, rows_in
from embedmill.pipeline.train.resources.available import free_now, workers_here
from embedmill.pipeline.train.resources.budget import (
    Demand,
    Free,
    Size,
    demand_of,
    fitting,
    size_of,
)
from embedmill.pipeline.train.step import Steps
from embedmill.pipeline.train.tables.checkpoint import Cursor
from embedmill.pipeline.train.trainer import Data, Trainer, assembled

__all__ = ["Forecast", "Given", "forecast", "power_law", "synthetic"]

_POWER = 0.8  # of the law that counts of rows are taken to follow
_CALIBRATED = 1 << 28  # bytes of tables to calibrate with
_EVENTS = 1 << 20  # events to calibrate with, at least a step of them
_WARM = 2  # steps before the clock starts


@dataclass(frozen=True)
class Given:
    """Sizes said by hand, where the stages before have not finished; 0 for what is not said.

    `events` are those to train on.
    """

    users: int = 0
    items: int = 0
    events: int = 0


@dataclass(frozen=True)
class Forecast:
    """A plan: `tables` is where they will live, `refused` says why nothing fits.

    `seconds` are those of an epoch, without validation and checkpoints; 0 where nothing was
    calibrated. `spectral` says that tables begin with singular vectors.
    """

    size: Size
    demand: Demand
    free: Free
    tables: str
    refused: MachineError | None
    epochs: int
    seconds: float
    spectral: bool

    def as_json(self) -> dict[str, Any]:
        """One flat object."""
        flat: dict[str, Any] = {f"rows.{k}": v for k, v in asdict(self.size).items()}
        flat |= {f"need.{k}": v for k, v in self.demand.as_json().items()}
        flat |= {f"free.{k}": v for k, v in asdict(self.free).items()}
        memory = self.demand.memory("mapped" if self.tables == "mapped" else "memory")
        return flat | {
            "need.memory": memory,
            "tables": self.tables,
            "fits": self.refused is None,
            "epochs": self.epochs,
            "seconds_per_epoch": round(self.seconds, 3),
            "minutes": round(self.seconds * self.epochs / 60, 3),
        }

    def lines(self) -> list[tuple[str, str, str]]:
        """What, how much, and a remark: at most 80 columns together."""
        size, demand, free = self.size, self.demand, self.free
        mapped = self.tables == "mapped"
        memory = demand.memory("mapped" if mapped else "memory")
        on_disk = "" if free.run is None else f", of {_bytes(free.run)} free"
        found = [
            ("rows", f"{size.rows:,}", f"{size.users:,} users, {size.items:,} items"),
            ("pairs", f"{size.train:,}", f"to train on, {size.valid:,} to validate on"),
            ("steps", f"{demand.steps:,}", f"an epoch, {demand.steps * self.epochs:,} at most"),
            ("workers", f"{demand.workers}", "each of which needs, at most"),
            ("  tables", _bytes(demand.tables), "mapped from files" if mapped else "in memory"),
            ("  optimizer", _bytes(demand.optimizer), "beside the tables"),
            ("  events", _bytes(demand.events), "and their order"),
            ("  batch", _bytes(demand.batch), "or validation, whichever is more"),
            ("  partition", _bytes(demand.partition), "while it is stored"),
            ("  process", _bytes(demand.process), "Python, torch, Arrow"),
            ("memory", _bytes(memory), f"in all, of {_bytes(free.memory)} free"),
            ("disk", _bytes(demand.stored), f"checkpoints and tables{on_disk}"),
            ("on the wire", _bytes(demand.wire), "sent by a worker in a step"),
        ]
        if mapped:
            room = f"mapped tables, of {_bytes(free.scratch)} free"
            found.insert(-1, ("scratch", _bytes(demand.files), room))
            if self.spectral:
                todo = "reads mapped tables many times; init = 'normal' does not"
                found.append(("start", "spectral", todo))
        if self.seconds:
            each, epochs = duration(self.seconds), _epochs(self.epochs)
            found.append(
                ("time", duration(self.seconds * self.epochs), f"{epochs} of {each}, at most")
            )
        return found


def forecast(run: Run, given: Given, *, seconds: float = 3.0) -> Forecast:
    """Plan the training of a run.

    Args:
        run: its config, and its finished stages.
        given: sizes that stand in for stages that have not finished.
        seconds: how long real steps are taken to calibrate; 0 for not at all.

    Raises:
        ConfigError: sizes are neither stored nor given.
    """
    size, free = _size(run, given), free_now(run)
    workers = workers_here(run.config)
    demand = demand_of(size, run.config, workers)
    tables, refused = "", None
    try:
        tables = fitting(demand, run.config, free)
    except MachineError as error:
        refused = error
    train = run.config.train
    epochs = train.epochs * (2 if train.refit else 1)
    pace = 0.0 if refused or not seconds else _pace(run.config, size, seconds)
    shared = max(1.0, workers * train.threads / (os.cpu_count() or 1))
    took = pace * size.train / workers * shared
    spectral = begins_spectral(train)
    return Forecast(size, demand, free, tables, refused, epochs, took, spectral)


def power_law(rows: int, number: int, source: torch.Generator) -> Tensor:
    """Rows by a power law, the r-th in proportion to r ** -0.8, int64 [number]."""
    share_N = torch.rand(number, generator=source, dtype=torch.float64)
    return (rows * share_N ** (1 / (1 - _POWER))).long().clamp_(max=rows - 1)


def synthetic(size: Size, layout: Layout, seed: int = 1) -> Data:
    """Train events of a worker's partitions, users and items each by a power law."""
    each = -(-size.train // layout.partitions)
    user, item = [], []
    for partition in layout.owned:
        source = generator(seed, "synthetic", partition)
        held = rows_in(partition, layout.partitions, size.users)
        count = each if held else 0
        user.append((partition + layout.partitions * power_law(held, count, source)).int())
        item.append(power_law(size.items, count, source).int())
    sizes = tuple(len(part) for part in user)
    train = Events(torch.cat(user), torch.cat(item), torch.ones(1).expand(sum(sizes)), sizes)
    return Data(size.users, size.items, train, train.none())


def _size(run: Run, given: Given) -> Size:
    """From the shards, or from the vocabulary and what is given, or from that alone."""
    said = (given.users, given.items, given.events)
    if not any(said) and run.find("shards") is not None:
        return size_of(run)
    vocab = run.find("vocab")
    counted = vocab.counters if vocab is not None else {}
    users = given.users or counted.get("users", 0)
    items = given.items or counted.get("items", 0)
    events = given.events or counted.get("events_kept", 0)
    if not (users and items and events):
        raise ConfigError(
            "sizes are not known before stage 'shards' has finished",
            where=run.storage.root,
            todo="Give --users, --items and --events, or run up to 'shards' first",
        )
    shards = run.config.shards
    valid = min(events, int(shards.valid * (users if shards.split == "last" else events)))
    train = given.events or max(1, events - valid)
    if OBJECTIVES[run.config.train.objective].pairs:
        return Size(items, items, train, valid, derived=users)
    return Size(users, items, train, valid)


def _pace(config: Config, size: Size, seconds: float) -> float:
    """Seconds for an event of a worker, by real steps on tables scaled down."""
    train = config.train
    batch = -(-train.batch_size // workers_here(config))
    row = max(1, demand_of(size, config, 1).tables // size.rows)
    scale = min(1.0, _CALIBRATED / (row * size.rows))
    small = Size(
        max(config.run.partitions, int(size.users * scale)),
        max(1, int(size.items * scale)),
        max(config.run.partitions, min(size.train, max(_EVENTS, 4 * batch))),
        0,
    )
    alone = train.model_copy(update={"batch_size": batch, "workers": 1, "tables": "memory",
                                     "device": "cpu"})  # fmt: skip
    run = Run(config.model_copy(update={"train": alone}))
    threads = torch.get_num_threads()
    torch.set_num_threads(train.threads)
    try:
        layout = Layout(config.run.partitions)
        trainer = assembled(run, synthetic(small, layout), Group(), Cursor())
        if trainer.sweep is not None:
            began = time.perf_counter()
            for step in range(trainer.plan.steps):
                trainer.sweep.take(step)
            return (time.perf_counter() - began) / trainer.plan.events
        return _stepped(trainer, seconds)
    finally:
        torch.set_num_threads(threads)


def _stepped(trainer: Trainer, seconds: float) -> float:
    """Seconds for an event, over steps of the first epoch for about so long."""
    order = Epoch.drawn(trainer.events, trainer.plan, trainer.layout, trainer.seed, 0)
    steps = Steps(trainer, order)
    done, began = 0, time.perf_counter()
    for step in range(trainer.plan.steps):
        if step == _WARM:
            done, began = 0, time.perf_counter()
        steps.take(step)
        done += sum(trainer.plan.batch_sizes(step))
        if step > _WARM and time.perf_counter() - began > seconds:
            break
    return (time.perf_counter() - began) / max(1, done)


def _bytes(size: int) -> str:
    return f"{si(size)}B" if size >= 1000 else f"{size} B"


def _epochs(count: int) -> str:
    return "one epoch" if count == 1 else f"{count} epochs"
