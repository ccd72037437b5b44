"""The training loop of one worker: plain torch.distributed, the same code for one and many.

Legend: B events here, U distinct users, V distinct items, K negatives, D columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from pipeline.artifact import Run, Writer
from pipeline.config import TrainConfig
from pipeline.errors import NotFiniteError
from pipeline.log import Progress
from pipeline.train import metrics
from pipeline.train.batches import Epoch, Events, item_counts, mean_weight, read_events
from pipeline.train.checkpoint import Checkpoints, Cursor, Identity, entries_of
from pipeline.train.collectives import Group
from pipeline.train.losses import LOSSES, LossSettings, Objective, Step
from pipeline.train.negatives import NegativeSampler, sampler
from pipeline.train.optim import OPTIMIZERS, SCHEDULES, Update
from pipeline.train.plan import Layout, StepPlan, rows_in
from pipeline.train.tables import ShardedEmbedding, initial_weight
from schemas.manifest import FileEntry

__all__ = ["Outcome", "Task", "work"]


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


@dataclass(frozen=True)
class Outcome:
    """What training came to: the table files, and one entry of `history` per epoch."""

    files: list[FileEntry]
    history: list[dict[str, float]]
    best_epoch: int
    metric: str
    mean: float
    users: int
    items: int
    steps: int
    pairs: int


@dataclass
class Table:
    """One table's rows and optimizer state; `columns` are scaled each on its own."""

    rows: ShardedEmbedding
    state: dict[str, Tensor]
    columns: tuple[slice, ...]

    def tensors(self, partition: int) -> dict[str, Tensor]:
        """One partition's rows and state."""
        span = self.rows.span(partition)
        every = {"weight": self.rows.weight.detach(), **self.state}
        return {name: tensor[span].cpu().clone() for name, tensor in every.items()}

    def load(self, partition: int, tensors: dict[str, Tensor]) -> None:
        """Put one partition's rows and state back."""
        span = self.rows.span(partition)
        for name, tensor in {"weight": self.rows.weight.detach(), **self.state}.items():
            tensor[span] = tensors[name].to(tensor.device)


@dataclass
class Trainer:
    """All that a step needs; `cursor` is the only field that is replaced as training goes on."""

    config: TrainConfig
    seed: int
    group: Group
    layout: Layout
    plan: StepPlan
    objective: Objective
    settings: LossSettings
    metric: str
    events: Events
    chosen: metrics.Validation
    sampler: NegativeSampler
    users: Table
    items: Table
    cursor: Cursor

    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` of them without improvement."""
        cursor, patience = self.cursor, self.config.patience
        waited = cursor.epoch - cursor.best_epoch
        early = bool(patience and self.chosen.users and cursor.best_epoch and waited >= patience)
        return cursor.step == 0 and (cursor.epoch >= self.config.epochs or early)

    def tensors(self, partition: int) -> dict[str, Tensor]:
        """One partition of both tables, for a checkpoint."""
        return {
            f"{name}.{key}": tensor
            for name, table in (("users", self.users), ("items", self.items))
            for key, tensor in table.tensors(partition).items()
        }

    def load(self, parts: dict[int, dict[str, Tensor]]) -> None:
        """Put the owned partitions of both tables back."""
        for partition, tensors in parts.items():
            for name, table in (("users", self.users), ("items", self.items)):
                own = {k.removeprefix(f"{name}."): t for k, t in tensors.items() if name in k}
                table.load(partition, own)


def work(task: Task, group: Group, progress: Progress) -> Outcome:
    """Train, as one of the workers of `group`, and write the tables of the best epoch.

    Every worker calls it with the same task. A checkpoint of the same config is gone on from.

    Returns:
        the same at every worker.

    Raises:
        NotFiniteError: a loss or gradient is NaN or infinite (all workers raise).
        StaleArtifactError: there is a checkpoint of another config.
        CorruptArtifactError: a checkpoint or shard is damaged.
    """
    trainer = _prepared(task, group)
    storage = task.run.storage.at("train")
    checkpoints = Checkpoints(storage, task.identity, trainer.layout, group)
    found = checkpoints.find()
    if found is not None:
        trainer.load(checkpoints.read(found.slot))
        trainer.cursor = found
        if group.rank == 0:
            progress.note(f"resumed at epoch {found.epoch + 1}, step {found.step + 1}")
    while not trainer.finished():
        _epoch(trainer, checkpoints, progress)
    trainer.load(checkpoints.read(trainer.cursor.best_slot))
    return _published(trainer, task)


def _prepared(task: Task, group: Group) -> Trainer:
    run, config = task.run, task.run.config.train
    layout = Layout(run.config.run.partitions, group.world, group.rank)
    with group.agreed():
        shards, vocab = run.artifact("shards"), run.artifact("vocab")
        events = read_events(shards, "train", layout)
        valid = read_events(shards, "valid", layout)
    rows = {f.path: f.rows or 0 for f in shards.files("train")}
    sizes = tuple(rows[f"train/part-{p:05d}.parquet"] for p in range(layout.partitions))
    objective = LOSSES[config.objective]
    seed, items = run.config.run.seed, vocab.counters["items"]
    mean = mean_weight(events, layout, group) if objective.biased else 0.0
    return Trainer(
        config=config,
        seed=seed,
        group=group,
        layout=layout,
        plan=StepPlan(sizes, config.batch_size),
        objective=objective,
        settings=LossSettings(config.similarity, config.temperature, config.l2, mean),
        metric=config.metric or objective.metrics[0],
        events=events,
        chosen=metrics.validation(
            events, valid, layout, group, limit=config.valid_users, seed=seed
        ),
        sampler=sampler(
            item_counts(events, items, group),
            number=config.negatives if objective.negatives else 0,
            power=config.negatives_power,
            in_batch=config.in_batch and objective.negatives,
            seed=seed,
        ),
        users=_table("users", vocab.counters["users"], config, layout, group, seed),
        items=_table("items", items, config, layout, group, seed),
        cursor=Cursor(),
    )


def _table(
    name: str, rows: int, config: TrainConfig, layout: Layout, group: Group, seed: int
) -> Table:
    biased = LOSSES[config.objective].biased
    scale = config.init_scale or config.dim**-0.5
    weight_LD = initial_weight(name, rows, config.dim + biased, layout, seed=seed, scale=scale)
    columns: tuple[slice, ...] = (slice(0, config.dim),)
    if biased:
        weight_LD[:, config.dim] = 0.0
        columns = (*columns, slice(config.dim, config.dim + 1))
    weight_LD = weight_LD.to(group.device)
    state = OPTIMIZERS[config.optimizer].state(weight_LD, columns)
    return Table(ShardedEmbedding(weight_LD, rows, layout, group), state, columns)


def _epoch(trainer: Trainer, checkpoints: Checkpoints, progress: Progress) -> None:
    """From the cursor to the end of its epoch, validated and stored."""
    plan, config = trainer.plan, trainer.config
    order = Epoch.drawn(trainer.events, plan, trainer.layout, trainer.seed, trainer.cursor.epoch)
    sizes = [sum(plan.batch_sizes(step)) for step in range(plan.steps)]
    done = trainer.cursor.epoch * plan.events + sum(sizes[: trainer.cursor.step])
    for step in range(trainer.cursor.step, plan.steps):
        loss = _step(trainer, step, order.batch(step))
        cursor = trainer.cursor
        trainer.cursor = replace(cursor, step=step + 1, loss=cursor.loss + loss * sizes[step])
        done += sizes[step]
        if trainer.group.rank == 0:
            progress.update(
                done, config.epochs * plan.events, "pairs", loss=loss, epoch=cursor.epoch + 1
            )
        every = config.checkpoint_steps
        if every and (step + 1) % every == 0 and step + 1 < plan.steps:
            checkpoints.write(trainer.cursor, trainer.tensors)
    trainer.cursor = _closed(trainer)
    checkpoints.write(trainer.cursor, trainer.tensors)
    if trainer.group.rank == 0:
        progress.note(_line(trainer.cursor, config))


def _closed(trainer: Trainer) -> Cursor:
    """The cursor after the epoch's last step: validated, and compared with the best so far."""
    cursor, chosen = trainer.cursor, trainer.chosen
    measured: dict[str, float] = {}
    if chosen.users:
        measured = _validated(trainer)
        if not all(math.isfinite(value) for value in measured.values()):
            raise _diverged(trainer, "validation")
    epoch = cursor.epoch + 1
    entry = {
        "epoch": epoch,
        "train_loss": cursor.loss / trainer.plan.events,
        "learning_rate": _rate(trainer, cursor.step - 1),
        **measured,
    }
    after = Cursor(epoch, 0, 0.0, [*cursor.history, entry], cursor.best_epoch, cursor.best_slot)
    if _improved(trainer, measured):
        after = replace(after, best_epoch=epoch, best_slot=after.slot)
    return after


def _validated(trainer: Trainer) -> dict[str, float]:
    users, items = trainer.users.rows, trainer.items.rows
    if trainer.objective.biased:
        return metrics.rate(trainer.chosen, users, items, mean=trainer.settings.mean)
    cosine = trainer.settings.similarity == "cosine"
    return metrics.rank(trainer.chosen, users, items, cosine=cosine)


def _improved(trainer: Trainer, measured: dict[str, float]) -> bool:
    """Whether this epoch is the one to keep; without validation the last one is."""
    cursor = trainer.cursor
    if not measured or not cursor.best_epoch:
        return True
    now, best = measured[trainer.metric], cursor.history[cursor.best_epoch - 1][trainer.metric]
    return now > best if trainer.objective.rising else now < best


def _step(trainer: Trainer, step: int, batch: Tensor) -> float:
    """One global step; returns its mean loss.

    Raises:
        NotFiniteError: the loss or a gradient is not finite, at any worker.
    """
    plan, group = trainer.plan, trainer.group
    users, items = trainer.users, trainer.items
    sizes = plan.batch_sizes(step)
    user_B = trainer.events.user_E[batch].to(group.device)
    item_B, weight_B = trainer.events.item_E[batch], trainer.events.weight_E[batch]
    candidate_K = trainer.sampler.draw(trainer.cursor.epoch * plan.steps + step)
    if trainer.sampler.in_batch:
        every = group.by_partition_rows(item_B.to(group.device), trainer.layout, sizes)
        candidate_K = torch.cat([candidate_K, every.cpu()])
    log_expected_K = torch.zeros(len(candidate_K))
    if trainer.config.logq and len(candidate_K):
        log_expected_K = trainer.sampler.log_expected(candidate_K, sum(sizes))
    rows_V, index = torch.unique(torch.cat([item_B, candidate_K]), return_inverse=True)
    item_VD, route = items.rows.fetch(rows_V.to(group.device))
    local_U, user_index_B = torch.unique(users.rows.local(user_B), return_inverse=True)
    # A softmax takes an event as a vote, whatever its weight, but for those of weight 0.
    ranked = trainer.objective.negatives
    counted_B = (weight_B > 0).float() if ranked else torch.ones_like(weight_B)
    part = Step(
        user_UD=users.rows.weight.detach()[local_U],
        item_VD=item_VD,
        user_B=user_index_B,
        positive_B=index[: len(item_B)].to(group.device),
        negative_K=index[len(item_B) :].to(group.device),
        log_expected_K=log_expected_K.to(group.device),
        weight_B=counted_B.to(group.device),
        target_B=weight_B.to(group.device),
        size=sum(sizes),
    )
    result = trainer.objective.loss(part, trainer.settings)
    # One number tells all workers of a NaN or infinity anywhere: it spreads through a sum.
    check = result.user_UD.abs().sum().double() + result.item_VD.abs().sum().double()
    total, finite = group.sum(torch.stack([result.loss.double(), check])).tolist()
    if not (math.isfinite(total) and math.isfinite(finite)):
        raise _diverged(trainer, f"step {step + 1} of {plan.steps}")
    count = trainer.cursor.epoch * plan.steps + step + 1
    rate = _rate(trainer, step)
    update = OPTIMIZERS[trainer.config.optimizer].update
    local_G, item_GD = items.rows.push(route, result.item_VD)
    for table, local, gradient in ((users, local_U, result.user_UD), (items, local_G, item_GD)):
        weight_LD = table.rows.weight.detach()
        update(weight_LD, table.state, table.columns, Update(local, gradient, rate, count))
    return float(total)


def _rate(trainer: Trainer, step: int) -> float:
    """The learning rate of a step of the current epoch."""
    config, steps = trainer.config, trainer.plan.steps
    at, total, warm = (
        trainer.cursor.epoch * steps + step,
        config.epochs * steps,
        config.warmup_steps,
    )
    if at < warm:
        return config.learning_rate * (at + 1) / warm
    done = (at - warm) / max(1, total - warm)
    return config.learning_rate * SCHEDULES[config.schedule](done)


def _diverged(trainer: Trainer, where: str) -> NotFiniteError:
    return NotFiniteError(
        f"the loss or a gradient is not finite in epoch {trainer.cursor.epoch + 1}, {where}",
        where="train",
        todo=f"Lower train.learning_rate (it is {trainer.config.learning_rate:g})"
        + (
            f" or raise train.temperature (it is {trainer.config.temperature:g})"
            if trainer.objective.negatives
            else ""
        ),
    )


def _line(cursor: Cursor, config: TrainConfig) -> str:
    entry = cursor.history[-1]
    skipped = ("epoch", "learning_rate")
    facts = " ".join(f"{k}={v:.4f}" for k, v in entry.items() if k not in skipped)
    best = " best" if cursor.best_epoch == cursor.epoch else ""
    return f"epoch {cursor.epoch}/{config.epochs} {facts}{best}"


def _published(trainer: Trainer, task: Task) -> Outcome:
    """Write the tables as they are; each worker writes the partitions that it owns."""
    storage, layout, group = task.run.storage.at("train"), trainer.layout, trainer.group
    files: list[FileEntry] = []
    for name, table in (("users", trainer.users), ("items", trainer.items)):
        with group.agreed():
            written = [
                storage.write(_path(name, p), save_tensors(_table_tensors(table, p)))
                for p in layout.owned
            ]
        total = table.rows.rows
        files += entries_of(
            written,
            layout,
            group,
            lambda p, name=name: _path(name, p),  # type: ignore[misc]
            lambda p, total=total: rows_in(p, layout.partitions, total),  # type: ignore[misc]
        )
    cursor, epochs = trainer.cursor, len(trainer.cursor.history)
    return Outcome(
        files=files,
        history=cursor.history,
        best_epoch=cursor.best_epoch,
        metric=trainer.metric if trainer.chosen.users else "",
        mean=trainer.settings.mean,
        users=trainer.users.rows.rows,
        items=trainer.items.rows.rows,
        steps=epochs * trainer.plan.steps,
        pairs=epochs * trainer.plan.events,
    )


def _path(table: str, partition: int) -> str:
    return f"{table}/part-{partition:05d}.safetensors"


def _table_tensors(table: Table, partition: int) -> dict[str, Tensor]:
    weight_ND = table.rows.weight.detach()[table.rows.span(partition)].cpu()
    vector = table.columns[0]
    tensors = {"weight": weight_ND[:, vector].contiguous().clone()}
    if len(table.columns) > 1:
        tensors["bias"] = weight_ND[:, -1].contiguous().clone()
    return tensors
