"""A training in memory: events, tables, optimizer state, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.errors import NotFiniteError
from embedmill.pipeline.memory import free_memory
from embedmill.pipeline.store.artifact import Artifact, Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train import als, metrics
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.batches import (
    Events,
    Votes,
    item_counts,
    mean_weight,
    read_events,
    votes,
)
from embedmill.pipeline.train.data.graph import Graph
from embedmill.pipeline.train.data.histories import Histories, read_latest
from embedmill.pipeline.train.data.negatives import NegativeSampler, sampler
from embedmill.pipeline.train.losses import LossSettings, Objective
from embedmill.pipeline.train.objectives.l2_scaling import Decay, decay_of
from embedmill.pipeline.train.objectives.objectives import (
    OBJECTIVES,
    begins_spectral,
    has_bias,
    is_smoothed,
    similarity_of,
)
from embedmill.pipeline.train.objectives.smoothing import Smoothing
from embedmill.pipeline.train.plan import Layout, Plan, StepPlan
from embedmill.pipeline.train.resources.available import scratch_of
from embedmill.pipeline.train.resources.budget import Size, columns_of, demand_of, shared, state_of
from embedmill.pipeline.train.tables.checkpoint import Cursor, Identity
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding, set_initial
from embedmill.pipeline.train.tables.optimizers import SCHEDULES
from embedmill.pipeline.train.tables.placement import Ahead, Place, hold, in_files, in_memory
from embedmill.pipeline.train.tables.spectral import set_spectral

__all__ = ["PAIRS", "Data", "Table", "Task", "Trainer", "assembled", "plan_of", "prepared"]

# Folders of pairs by the splits that they are of.
PAIRS = {("train",): "pairs", ("train", "valid"): "pairs_with_valid"}
_BLOCK = 1 << 16  # rows looked at together


@dataclass(frozen=True)
class Task:
    """What every worker is told."""

    run: Run
    identity: Identity

    @staticmethod
    def of(run: Run, out: Writer) -> Task:
        """The task of building `out`."""
        inputs = {entry.stage: entry.content for entry in out.inputs}
        return Task(run, Identity(out.fingerprint, out.config, inputs))


@dataclass
class Table:
    """One table's rows and optimizer state; `columns` are scaled each on its own.

    A mapped table has an `ahead`.
    """

    rows: ShardedEmbedding
    state: dict[str, Tensor]
    columns: tuple[slice, ...]
    ahead: Ahead | None = None

    @property
    def weight(self) -> Tensor:
        """The rows held here, [L, width], outside autograd."""
        return self.rows.weight.detach()

    def finite(self) -> bool:
        """Whether all rows held here are finite; looks at a block at a time."""
        blocks = torch.split(self.weight, _BLOCK)
        return all(bool(block_ND.isfinite().all()) for block_ND in blocks)

    def tensors(self, partition: int) -> dict[str, Tensor]:
        """One partition's rows and state."""
        span = self.rows.span(partition)
        every = {"weight": self.weight, **self.state}
        return {name: tensor[span].to("cpu", copy=True) for name, tensor in every.items()}

    def load(self, partition: int, tensors: dict[str, Tensor]) -> None:
        """Put one partition's rows and state back."""
        span = self.rows.span(partition)
        for name, tensor in {"weight": self.weight, **self.state}.items():
            tensor[span] = tensors[name].to(tensor.device)

    def published(self, partition: int) -> dict[str, Tensor]:
        """One partition as it leaves training: "weight" [n, D] and "bias" [n], if any."""
        rows = self.weight[self.rows.span(partition)].cpu()
        tensors = {"weight": rows[:, self.columns[0]].contiguous().clone()}
        if len(self.columns) > 1:
            tensors["bias"] = rows[:, -1].contiguous().clone()
        return tensors


@dataclass
class Trainer:
    """All that a step needs; `cursor` is the only field that is replaced as training goes on.

    Where pairs of items are trained on, `events` are pairs, `users` the centers and `items` the
    contexts; `histories` then say what users are made of.
    """

    config: TrainConfig
    seed: int
    group: Group
    layout: Layout
    plan: Plan
    objective: Objective
    settings: LossSettings
    events: Events
    votes: Votes
    decay: Decay
    chosen: metrics.Validation
    sampler: NegativeSampler
    users: Table
    items: Table
    smoothing: Smoothing | None
    sweep: als.Sweep | None
    histories: Histories | None
    cursor: Cursor

    @property
    def metric(self) -> str:
        """What chooses the best epoch."""
        return self.config.metric or self.objective.metrics[0]

    @property
    def epochs(self) -> int:
        """Epochs of this phase, unless it stops early."""
        return self.cursor.best_epoch if self.cursor.refit is not None else self.config.epochs

    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` of them without improvement."""
        cursor, patience = self.cursor, self.config.patience
        waited = cursor.epoch - cursor.best_epoch
        early = bool(patience and self.chosen.users and cursor.best_epoch and waited >= patience)
        return cursor.step == 0 and (cursor.epoch >= self.epochs or early)

    def rate(self, step: int) -> float:
        """The learning rate of a step of the current epoch; 0 where rows are solved for."""
        if self.sweep is not None:
            return 0.0
        config, steps = self.config, self.plan.steps
        at, warm = self.cursor.epoch * steps + step, config.warmup_steps
        if at < warm:
            return config.learning_rate * (at + 1) / warm
        done = (at - warm) / max(1, config.epochs * steps - warm)
        return config.learning_rate * SCHEDULES[config.schedule](done)

    def expect(self, batch_B: Tensor) -> None:
        """Events of the step after: their users' rows can come from the disk meanwhile."""
        if self.users.ahead is not None:
            self.users.ahead.bring(self.users.rows.local(self.events.user_E[batch_B].long()))

    @property
    def bytes(self) -> int:
        """Of the rows and optimizer state held here: what a checkpoint of this worker takes."""
        tables = (self.users, self.items)
        return sum(t.nbytes for table in tables for t in (table.weight, *table.state.values()))

    def tensors(self, partition: int) -> dict[str, Tensor]:
        """A copy of one partition of both tables, for a checkpoint."""
        return {
            f"{name}.{key}": tensor
            for name, table in (("users", self.users), ("items", self.items))
            for key, tensor in table.tensors(partition).items()
        }

    def load(self, partition: int, tensors: dict[str, Tensor]) -> None:
        """Put an owned partition of both tables back."""
        for name, table in (("users", self.users), ("items", self.items)):
            start = f"{name}."
            own = {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
            table.load(partition, own)

    def diverged(self, where: str) -> NotFiniteError:
        """The error for a value that is not finite."""
        config = self.config
        todo = f"Lower train.learning_rate (it is {config.learning_rate:g})"
        if config.keys.reads("temperature"):
            key = config.keys.path("temperature")
            todo += f" or raise {key} (it is {config.temperature:g})"
        if self.sweep is not None:
            todo = f"Raise train.ials.regularization (it is {config.ials.regularization:g})"
        return NotFiniteError(
            f"the loss or a gradient is not finite in epoch {self.cursor.epoch + 1}, {where}",
            where="train",
            todo=todo,
        )


def plan_of(sizes: tuple[int, ...], config: TrainConfig) -> Plan:
    """The steps of an epoch over `sizes` train events by partition."""
    if OBJECTIVES[config.objective].loss is None:
        return als.SweepPlan(sizes, config.dim)
    return StepPlan(sizes, config.batch_size)


def prepared(task: Task, group: Group, cursor: Cursor) -> Trainer:
    """Read the owned partitions and make tables for the phase that the cursor is in.

    While the best epoch is sought, validation events are held back; a refit trains on them too.
    """
    layout = Layout(task.run.config.run.partitions, group.world, group.rank)
    fitted: tuple[str, ...] = ("train",)
    held: tuple[str, ...] = ("valid",)
    if cursor.refit is not None:
        fitted, held = ("train", "valid"), ()
    with group.agreed():
        shards, vocab = task.run.artifact("shards"), task.run.artifact("vocab")
        rows = vocab.counters["users"], vocab.counters["items"]
        train, valid = (read_events(shards, splits, layout, rows) for splits in (fitted, held))
        data = Data(*rows, train, valid, barred=_barred(vocab))
        if OBJECTIVES[task.run.config.train.objective].pairs:
            data = _paired(task, data, fitted, layout)
    return assembled(task.run, data, group, cursor)


def _barred(vocab: Artifact) -> Tensor | None:
    """Rows of items that are not live: retired ones, and those that ids share."""
    if vocab.counters["items_live"] == vocab.counters["items"]:
        return None
    live = vocab.read_tables("items", ["live"])["live"].to_numpy()
    return torch.from_numpy(np.flatnonzero(~live))


def _paired(task: Task, data: Data, fitted: tuple[str, ...], layout: Layout) -> Data:
    """The same with pairs of items to train on: centers take the place of users."""
    shards, last = task.run.artifact("shards"), task.run.config.train.item2vec.history
    pairs = read_events(shards, [PAIRS[fitted]], layout, (data.items, data.items))
    latest = data.train
    if last:
        latest = read_latest(shards, fitted, layout, (data.users, data.items), last)
    histories = Histories(latest, data.users, layout)
    return replace(data, users=data.items, pairs=pairs, histories=histories)


@dataclass(frozen=True)
class Data:
    """What a worker trains on: rows of both tables, and the events of its partitions.

    With `pairs` it trains on these, and the events only say what validation asks for. `barred`
    are the rows of items that are not live, rising; None where all are.
    """

    users: int
    items: int
    train: Events
    valid: Events
    pairs: Events | None = None
    histories: Histories | None = None
    barred: Tensor | None = None


def assembled(run: Run, data: Data, group: Group, cursor: Cursor) -> Trainer:
    """A training of `data` from its start, at `cursor`; of `run` only the config counts."""
    config, seed = run.config.train, run.config.run.seed
    layout = Layout(run.config.run.partitions, group.world, group.rank)
    objective, train = OBJECTIVES[config.objective], data.train
    events = train if data.pairs is None else data.pairs
    sizes = torch.tensor(events.sizes, dtype=torch.int64, device=group.device)
    plan = plan_of(tuple(group.by_partition(sizes, layout).tolist()), config)
    settings = LossSettings(
        biased=has_bias(config),
        similarity=similarity_of(config),
        temperature=config.temperature,
        l2=config.l2,
        l2_bias=config.l2_bias,
        per_pair=config.item2vec.per_pair,
        margin=config.ccl.margin,
        negative_weight=config.ccl.negative_weight,
        rounded=config.precision == "bfloat16",
    )
    if not objective.ranking:
        settings = replace(settings, mean=mean_weight(train, layout, group))
    counted = _votes(events, config, layout, group)
    place, spare = _place(run, data, plan.events, group)
    made = _Made(layout, group, place, seed)
    of_users, of_items = shared(spare, data.users, data.items)
    with group.agreed():
        users = _table("users", data.users, config, made, of_users)
        items = _table("items", data.items, config, made, of_items)
    from_batch = 0
    if objective.negatives and config.in_batch:
        from_batch = config.in_batch_negatives or plan.events
    smoothing = None
    if begins_spectral(config) or is_smoothed(config):
        graph = Graph.of(train, counted, users.rows, items.rows, config.dim)
        if begins_spectral(config) and not cursor.epoch and not cursor.step:
            set_spectral(graph.scaled(0.5, 0.5), seed=seed, scale=_scale(config))
        if is_smoothed(config):
            by = config.smoothing
            smoothing = Smoothing(graph.scaled(by.user_power, by.item_power), by.weight)
    sweep = None
    if isinstance(plan, als.SweepPlan):
        votes_E = counted.of(train.weight_E)
        with group.clock("wait"):
            sweep = als.prepared(users.rows, items.rows, train, votes_E, config.ials, plan)
    return Trainer(
        config=config,
        seed=seed,
        group=group,
        layout=layout,
        plan=plan,
        objective=objective,
        settings=settings,
        events=events,
        votes=counted,
        decay=decay_of(events, config.l2_power, users.rows, items.rows),
        chosen=replace(
            metrics.validation(
                train, data.valid, layout, group, limit=config.valid_users, seed=seed
            ),
            barred=data.barred,
        ),
        sampler=sampler(
            item_counts(train, data.items, group),
            number=config.negatives if objective.negatives else 0,
            power=config.negatives_power,
            from_batch=from_batch,
            seed=seed,
            barred=data.barred,
        ),
        users=users,
        items=items,
        smoothing=smoothing,
        sweep=sweep,
        histories=data.histories,
        cursor=cursor,
    )


def _votes(events: Events, config: TrainConfig, layout: Layout, group: Group) -> Votes:
    if not OBJECTIVES[config.objective].ranking:
        return Votes()
    return votes(events, config.weight_power, layout, group)


@dataclass(frozen=True)
class _Made:
    """How tables are made: whose rows, where they live, from which seed."""

    layout: Layout
    group: Group
    place: Place
    seed: int


def _place(run: Run, data: Data, events: int, group: Group) -> tuple[Place, float]:
    """Where this worker's tables live, and the share of mapped rows that memory can hold.

    Each worker looks at its own machine: the result is the same.
    """
    config = run.config.train
    if group.device.type != "cpu":
        return partial(in_memory, device=group.device), 1.0
    size = Size(data.users, data.items, events, len(data.valid))
    demand, free = demand_of(size, run.config, group.world), free_memory()
    # All have looked before any goes on to take.
    own = free // group.neighbours()
    if config.tables == "memory" or (config.tables == "auto" and demand.ahead <= own):
        return in_memory, 1.0
    return in_files(scratch_of(run)), demand.holdable(own)


def _table(name: str, rows: int, config: TrainConfig, made: _Made, share: float) -> Table:
    """A table of `rows` rows at its start; mapped, but for the first `share` of each partition."""
    layout, place = made.layout, made.place
    columns, held = columns_of(config), layout.local_rows(rows)
    weight_LD = place(held, columns[-1].stop)
    state = {key: place(held, width) for key, width in state_of(config).items()}
    if mapped := place is not in_memory and made.group.device.type == "cpu":
        heads = layout.heads(rows, share)
        for table in (weight_LD, *state.values()):
            hold(table, heads)
    set_initial(weight_LD, name, rows, layout, seed=made.seed, scale=_scale(config))
    if len(columns) > 1:
        weight_LD[:, config.dim] = 0.0
    ahead = Ahead([weight_LD, *state.values()]) if mapped else None
    return Table(ShardedEmbedding(weight_LD, rows, layout, made.group), state, columns, ahead)


def _scale(config: TrainConfig) -> float:
    """Standard deviation of the values that tables begin with."""
    solved = OBJECTIVES[config.objective].loss is None
    # iALS begins near zero: Rendle et al. 2021, arXiv 2110.14037, section 4.
    return config.init_scale or (0.1 if solved else 1.0) * config.dim**-0.5
