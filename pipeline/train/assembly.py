"""Builds a training on one worker: its examples, tables, model and data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch

from embedmill.pipeline.memory import free_memory
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.lease import FenceCheck
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor, Identity
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.examples import Examples
from embedmill.pipeline.train.data.l2_scaling import l2_scaling
from embedmill.pipeline.train.data.negatives import NegativeSampler, negative_sampler
from embedmill.pipeline.train.data.sample_weights import SampleWeights
from embedmill.pipeline.train.data.train_events import item_counts
from embedmill.pipeline.train.graph.event_graph import EventGraph
from embedmill.pipeline.train.graph.smoothing import Smoothing
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.objectives import OBJECTIVES, Objective
from embedmill.pipeline.train.objectives.example_sources import ITEM_PAIRS
from embedmill.pipeline.train.plan import Layout, Plan, TrainingSize
from embedmill.pipeline.train.resources.available import scratch_folder
from embedmill.pipeline.train.resources.budget import budget_of, split_memory
from embedmill.pipeline.train.runtime import Runtime
from embedmill.pipeline.train.start import Start, find_start, started_config
from embedmill.pipeline.train.start.copy_rows import StartedTable, copy_start
from embedmill.pipeline.train.start.replay import replay, with_new_events
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding, set_initial
from embedmill.pipeline.train.tables.embedding_table import Table
from embedmill.pipeline.train.tables.placement import (
    Allocator,
    RowPrefetcher,
    keep_in_memory,
    zeros_in_files,
    zeros_in_memory,
)
from embedmill.pipeline.train.trainer import Trainer
from embedmill.pipeline.train.training_data import TrainingData
from embedmill.pipeline.train.validation import Validation, choose_validation

__all__ = ["WorkerTask", "assemble", "load_trainer", "searched_examples"]


@dataclass(frozen=True)
class WorkerTask:
    """What every worker is given; it is sent to workers of other processes.

    Args:
        run: its config and where its artifacts are.
        identity: what the training is made from.
        own_storage: the folder that is written to; None for that of the stage.
        fence: checked before a file is replaced; None where nobody else can take the run over.
    """

    run: Run
    identity: Identity
    own_storage: Storage | None = None
    fence: FenceCheck | None = None
    start: Start | None = None

    @staticmethod
    def of(run: Run, out: Writer) -> WorkerTask:
        """The task of building `out`; where it starts from an earlier run, with fewer epochs."""
        inputs = {entry.stage: entry.content for entry in out.inputs}
        identity, (start, _) = Identity(out.fingerprint, out.config, inputs), find_start(run)
        if start is not None:
            train = started_config(run.config.train, start)
            run = Run(run.config.model_copy(update={"train": train}))
        fence = out.driver.fence if out.driver else None
        return WorkerTask(run, identity, out.storage, fence, start)

    @property
    def storage(self) -> Storage:
        """The folder of tables, checkpoints and log."""
        return self.own_storage or self.run.storage.at("train")


def load_trainer(task: WorkerTask, group: Group, cursor: Cursor) -> Trainer:
    """Read the owned partitions and make tables for the phase that the cursor is in.

    While the best epoch is sought, validation events are held out; a refit trains on them too.
    A collective. The tables have their initial values, whatever the cursor.
    """
    layout = Layout(task.run.config.run.partitions, group.world, group.rank)
    with group.fail_together():
        examples = _read_examples(task, layout, refit=cursor.refit is not None)
    return assemble(task.run, examples, group, cursor, start=task.start)


def searched_examples(task: WorkerTask, group: Group) -> int:
    """Examples of an epoch while the best one is sought, over all workers; a collective."""
    config = task.run.config
    if task.start is None or not config.train.keys.reads("replay") or config.train.replay >= 1:
        shards = task.run.artifact("shards").counters
        return OBJECTIVES[config.train.objective].source.epoch_examples(shards)
    layout = Layout(config.run.partitions, group.world, group.rank)
    with group.fail_together():
        examples = _read_examples(task, layout, refit=False)
    taken, every = group.sum(
        torch.tensor([len(examples.taken), len(examples.train)], device=group.device)
    ).tolist()
    return int(taken or every)


def _read_examples(task: WorkerTask, layout: Layout, *, refit: bool) -> Examples:
    config = task.run.config.train
    examples = OBJECTIVES[config.objective].source.read(task.run, layout, refit=refit)
    if task.start is None:
        return examples
    if config.keys.reads("replay"):
        return replay(examples, task.start, task.run)
    if config.objective == "spectral":
        return with_new_events(examples, task.start, task.run)
    return examples


def assemble(
    run: Run,
    examples: Examples,
    group: Group,
    cursor: Cursor,
    validation: Validation | None = None,
    start: Start | None = None,
) -> Trainer:
    """Build a training on `examples`; a collective.

    Args:
        run: its config and where its artifacts are; no artifact is read.
        examples: what is trained on.
        group: the workers.
        cursor: how far training is. Only at the very start are tables initialized spectrally:
            later, they are loaded from a checkpoint.
        validation: of these examples, where it has been chosen already.
        start: the run whose rows the tables begin with.
    """
    runtime = Runtime.of(run.config, group)
    objective = OBJECTIVES[runtime.config.objective]
    plan = _epoch_plan(objective, examples, runtime)
    if not plan.events and examples.replayed is not None:  # none is new, and none was drawn
        examples = replace(examples, replayed=None)
        plan = _epoch_plan(objective, examples, runtime)
    weights = objective.task.sample_weights(examples.train, runtime.config, runtime)
    users, items = _make_tables(run, examples, plan, runtime)
    fresh, scale = (
        not cursor.epoch and not cursor.step,
        objective.task.scale(examples.train, runtime),
    )
    if fresh and start is not None:
        started = _StartedTables(objective, users, items).copy(start, run, examples, weights, scale)
        runtime, fresh = replace(runtime, started=started), not started
    if not runtime.started:
        _draw_initial((users, items), runtime)
    smoothing = _use_graph(objective, examples, weights, (users, items), runtime, fresh=fresh)
    settings = objective.loss_settings(runtime.config, scale)
    model = objective.source.model(users, items, settings, smoothing, examples)
    validation = validation or _validation(examples, runtime)
    data = _training_data(objective, examples, plan, weights, model, runtime, validation)
    stepper = objective.method.stepper(model, data, runtime)
    return Trainer(objective, runtime, data, model, stepper, cursor)


def _epoch_plan(objective: Objective, examples: Examples, runtime: Runtime) -> Plan:
    """The plan for the examples of all workers; a collective."""
    group = runtime.group
    sizes = torch.tensor(examples.taken.sizes, dtype=torch.int64, device=group.device)
    every = group.gather_partitions(sizes, runtime.layout).tolist()
    return objective.method.plan(tuple(every), runtime.config)


def _training_data(
    objective: Objective,
    examples: Examples,
    plan: Plan,
    weights: SampleWeights,
    model: Model,
    runtime: Runtime,
    validation: Validation,
) -> TrainingData:
    """How steps use the examples, and what validation needs; a collective."""
    config, users, items = runtime.config, model.users.embedding, model.items.embedding
    return TrainingData(
        events=examples.train,
        taken=examples.taken,
        new=examples.new,
        plan=plan,
        sample_weights=weights,
        l2_scaling=l2_scaling(examples.train, config.l2_power, users, items),
        negatives=_sampler(objective, examples, plan, runtime),
        validation=validation,
    )


def _validation(examples: Examples, runtime: Runtime) -> Validation:
    """The users to validate on; a collective."""
    return choose_validation(
        examples.known,
        examples.valid,
        runtime.layout,
        runtime.group,
        limit=runtime.config.valid_users,
        seed=runtime.seed,
        inactive=examples.inactive,
    )


def _sampler(
    objective: Objective, examples: Examples, plan: Plan, runtime: Runtime
) -> NegativeSampler:
    """The sampler of negatives, by the items' counts over all workers; a collective."""
    counts = objective.method.negative_counts(runtime.config, plan.events)
    return negative_sampler(
        item_counts(examples.known, examples.items, runtime.group),
        number=counts.sampled,
        power=runtime.config.negatives_power,
        from_batch=counts.from_batch,
        seed=runtime.seed,
        inactive=examples.inactive,
    )


def _use_graph(
    objective: Objective,
    examples: Examples,
    weights: SampleWeights,
    tables: tuple[Table, Table],
    runtime: Runtime,
    *,
    fresh: bool,
) -> Smoothing | None:
    """Initialize fresh tables spectrally, and prepare smoothing, as the config says."""
    config = runtime.config
    spectral, smoothed = objective.starts_spectral(config), objective.is_smoothed(config)
    if not (spectral or smoothed):
        return None
    users, items = (table.embedding for table in tables)
    with runtime.group.timer("wait"):
        graph = EventGraph.of(examples.train, weights, users, items, config.dim)
        if objective.spectral_start and spectral and fresh:
            scale = objective.initial_scale(config)
            objective.spectral_start(graph, seed=runtime.seed, scale=scale)
    if not smoothed:
        return None
    smoothing = config.smoothing
    scaled = graph.scaled(smoothing.user_power, smoothing.item_power)
    return Smoothing(scaled, smoothing.weight)


@dataclass(frozen=True)
class _StartedTables:
    """Fresh tables that may begin with the rows of an earlier run."""

    objective: Objective
    users: Table
    items: Table

    def copy(
        self,
        start: Start,
        run: Run,
        examples: Examples,
        weights: SampleWeights,
        scale: tuple[float, float],
    ) -> bool:
        """Whether they do: not where no id is in both runs; a collective.

        Args:
            start: the earlier run.
            run: the run that trains.
            examples: what is trained on.
            weights: of the examples.
            scale: mean and standard deviation of the ratings.
        """
        pairs = self.objective.source is ITEM_PAIRS
        tables = (
            StartedTable("users", "items" if pairs else "users", self.users,
                         "items" if pairs else "users"),
            StartedTable("items", "items", self.items, "contexts" if pairs else "items"),
        )  # fmt: skip
        return copy_start(start, run, tables, (examples.train, weights), scale[1])


@dataclass(frozen=True)
class _Placement:
    """Where this worker's tables are; `memory_share` of memory-mapped rows stay in memory."""

    allocate: Allocator
    memory_mapped: bool = False
    memory_share: float = 1.0


def _choose_placement(run: Run, examples: Examples, plan: Plan, runtime: Runtime) -> _Placement:
    """Memory or memory-mapped files, by this machine's free memory; a collective.

    Workers may choose differently: tables are the same either way.
    """
    config, group = runtime.config, runtime.group
    if group.device.type != "cpu":
        return _Placement(partial(zeros_in_memory, device=group.device))
    size = TrainingSize(examples.users, examples.items, plan.events, len(examples.valid))
    budget, free = budget_of(size, run.config, group.world), free_memory()
    # A collective: every worker has read its free memory before any allocates.
    free //= group.workers_on_this_machine()
    if config.tables == "memory" or (config.tables == "auto" and budget.after_events <= free):
        return _Placement(zeros_in_memory)
    folder = scratch_folder(run)
    return _Placement(zeros_in_files(folder), True, budget.memory_share(free))


def _make_tables(run: Run, examples: Examples, plan: Plan, runtime: Runtime) -> tuple[Table, Table]:
    """Both tables, of zeros; a collective."""
    placement = _choose_placement(run, examples, plan, runtime)
    shares = split_memory(placement.memory_share, examples.users, examples.items)
    with runtime.group.fail_together():
        return (
            _make_table("users", examples.users, placement, shares[0], runtime),
            _make_table("items", examples.items, placement, shares[1], runtime),
        )


def _make_table(
    name: str, rows: int, placement: _Placement, memory_share: float, runtime: Runtime
) -> Table:
    """A table of `rows` rows of zeros."""
    config, layout = runtime.config, runtime.layout
    objective = OBJECTIVES[config.objective]
    columns, local_rows = objective.columns(config), layout.local_rows(rows)
    weight_LD = placement.allocate(local_rows, columns[-1].stop)
    widths = objective.method.state_widths(config, columns)
    state = {key: placement.allocate(local_rows, width) for key, width in widths.items()}
    prefetcher = None
    if placement.memory_mapped:
        heads = layout.head_slices(rows, memory_share)
        for tensor in (weight_LD, *state.values()):
            keep_in_memory(tensor, heads)
        prefetcher = RowPrefetcher([weight_LD, *state.values()])
    embedding = ShardedEmbedding(weight_LD, rows, layout, runtime.group)
    return Table(embedding, state, columns, prefetcher)


def _draw_initial(tables: tuple[Table, Table], runtime: Runtime) -> None:
    """Normal initial values of users and items, or of what has their names; biases stay zero."""
    config = runtime.config
    objective = OBJECTIVES[config.objective]
    scale = objective.initial_scale(config)
    with runtime.group.fail_together():
        for name, table in zip(("users", "items"), tables, strict=True):
            rows = table.embedding.rows
            set_initial(table.weight, name, rows, runtime.layout, seed=runtime.seed, scale=scale)
            if len(table.columns) > 1:
                table.weight[:, config.dim] = 0.0
