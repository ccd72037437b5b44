"""The training loop of one worker: plain torch.distributed, the same code for one and many."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from safetensors.torch import save as save_tensors
from torch import Tensor

from embedmill.pipeline.log import Progress
from embedmill.pipeline.memory import free_memory
from embedmill.pipeline.train import metrics
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.batches import Epoch
from embedmill.pipeline.train.logs.step_log import StepLog
from embedmill.pipeline.train.plan import Layout, rows_in
from embedmill.pipeline.train.resources.out_of_memory import within_memory
from embedmill.pipeline.train.step import Steps
from embedmill.pipeline.train.tables.checkpoint import Checkpoints, Cursor
from embedmill.pipeline.train.tables.partition_files import entries_of
from embedmill.pipeline.train.trainer import PAIRS, Table, Task, Trainer, plan_of, prepared
from embedmill.schemas.manifest import FileEntry

__all__ = ["Outcome", "work"]

_SHOWN = ("ndcg@10", "recall@10", "rmse", "mae")  # in the line of an epoch: 80 columns


@dataclass(frozen=True)
class Outcome:
    """What training came to: the table files, and one entry of `history` per epoch.

    `metric` chose the best epoch, empty where there was nothing to validate on. `refit` has
    the train losses of a refit.
    """

    files: list[FileEntry]
    history: list[dict[str, float]]
    refit: list[float]
    best_epoch: int
    metric: str
    mean: float
    users: int
    items: int
    steps: int
    pairs: int


def work(task: Task, group: Group, progress: Progress) -> Outcome:
    """Train, as one of the workers of `group`, and write the tables of the best epoch.

    Every worker calls it with the same task. A checkpoint of the same config is gone on from.

    Returns:
        the same at every worker.

    Raises:
        NotFiniteError: a loss or gradient is NaN or infinite (all workers raise).
        StaleArtifactError: there is a checkpoint of another config.
        CorruptArtifactError: a checkpoint or shard is damaged.
        MachineError: the disk refuses, or this worker ran out of memory; in the latter case it
            must `leave` the group, or the others wait for it.
    """
    layout = Layout(task.run.config.run.partitions, group.world, group.rank)
    storage = task.run.storage.at("train")
    checkpoints = Checkpoints(storage, task.identity, layout, group)
    log = StepLog(storage, group, progress)
    try:
        return _trained(task, group, checkpoints, log, progress)
    finally:
        checkpoints.close()


def _trained(
    task: Task, group: Group, checkpoints: Checkpoints, log: StepLog, progress: Progress
) -> Outcome:
    found = checkpoints.find()
    log.start(found)
    with within_memory(lambda: "reading its events and making its tables"):
        trainer = prepared(task, group, found or Cursor())
        if found is not None:
            checkpoints.read(found.slot, trainer.load)
    if found is not None and group.rank == 0:
        progress.note(f"resumed at {_where(found)}, step {found.step + 1}")
    _phase(trainer, checkpoints, log, progress)
    if trainer.config.refit and not trainer.cursor.refit:
        sought = trainer.cursor
        again = Cursor(refit=[], history=sought.history, best_epoch=sought.best_epoch)
        del trainer  # its tables go before others take their place
        with within_memory(lambda: "making its tables for the refit"):
            trainer = prepared(task, group, again)
        _phase(trainer, checkpoints, log, progress)
    if trainer.cursor.best_slot != trainer.cursor.slot:
        checkpoints.read(trainer.cursor.best_slot, trainer.load)
    if trainer.smoothing is not None:
        trainer.smoothing.apply()
    outcome = _published(trainer, task)
    log.end(trainer.cursor)
    return outcome


def _phase(trainer: Trainer, checkpoints: Checkpoints, log: StepLog, progress: Progress) -> None:
    with within_memory(lambda: f"in {_where(trainer.cursor)}, step {trainer.cursor.step + 1}"):
        while not trainer.finished():
            _epoch(trainer, checkpoints, log, progress)
    with trainer.group.clock("checkpoint"):
        checkpoints.finish()


def _epoch(trainer: Trainer, checkpoints: Checkpoints, log: StepLog, progress: Progress) -> None:
    """From the cursor to the end of its epoch, validated and stored."""
    plan, every, clock = trainer.plan, trainer.config.checkpoint_steps, trainer.group.clock
    with clock("wait"):
        take = _taking(trainer)
    sizes = [sum(plan.batch_sizes(step)) for step in range(plan.steps)]
    done = trainer.cursor.epoch * plan.events + sum(sizes[: trainer.cursor.step])
    # A refit goes on counting after the epochs that sought the best one.
    before = len(trainer.cursor.history) * plan.events if trainer.cursor.refit is not None else 0
    done, total = before + done, before + trainer.epochs * plan.events
    for step in range(trainer.cursor.step, plan.steps):
        loss = take(step)
        if not math.isfinite(loss):
            raise trainer.diverged(f"step {step + 1} of {plan.steps}")
        cursor = trainer.cursor
        trainer.cursor = replace(cursor, step=step + 1, loss=cursor.loss + loss * sizes[step])
        done += sizes[step]
        if trainer.group.rank == 0:
            progress.update(done, total, "pairs", loss=loss, epoch=cursor.epoch + 1)
        if log.step(trainer, loss, sizes[step]):
            with clock("checkpoint"):
                checkpoints.poll()
        if every and (step + 1) % every == 0 and step + 1 < plan.steps:
            _store(trainer, checkpoints, log)
    with clock("validate"):
        trainer.cursor = _closed(trainer)
    log.epoch(trainer.cursor)
    _store(trainer, checkpoints, log)
    if trainer.group.rank == 0:
        progress.note(_line(trainer.cursor, trainer.epochs))


def _taking(trainer: Trainer) -> Callable[[int], float]:
    """What takes a step of the cursor's epoch, and returns its mean loss over all workers."""
    if trainer.sweep is not None:
        return trainer.sweep.take
    epoch, clock = trainer.cursor.epoch, trainer.group.clock
    order = Epoch.drawn(trainer.events, trainer.plan, trainer.layout, trainer.seed, epoch)

    steps = Steps(trainer, order)

    def take(step: int) -> float:
        with clock("wait"):
            if step + 1 < trainer.plan.steps:
                trainer.expect(order.batch(step + 1))
        return steps.take(step)

    return take


def _store(trainer: Trainer, checkpoints: Checkpoints, log: StepLog) -> None:
    """A checkpoint, and before it the log up to there: a resume goes on with both."""
    log.close(trainer)
    with trainer.group.clock("checkpoint"):
        with trainer.group.agreed():
            log.save()
        # Half of what is free is left for the steps; all look before any goes on to take.
        room = free_memory() // (2 * trainer.group.neighbours())
        large = trainer.bytes > min(room, trainer.config.checkpoint_copy_mib << 20)
        copied = not trainer.group.max(int(large))
        checkpoints.begin(trainer.cursor, trainer.tensors, copied=copied)


def _closed(trainer: Trainer) -> Cursor:
    """The cursor after the epoch's last step: validated, and compared with the best so far."""
    cursor, epoch = trainer.cursor, trainer.cursor.epoch + 1
    loss = cursor.loss / trainer.plan.events
    after = replace(cursor, epoch=epoch, step=0, loss=0.0)
    # The last update may have overflowed at one worker; the others must not wait for it.
    if trainer.group.max(int(not (trainer.users.finite() and trainer.items.finite()))):
        raise trainer.diverged("after its last step")
    if cursor.refit is not None:
        after = replace(after, refit=[*cursor.refit, loss])
        return replace(after, best_slot=after.slot)
    measured = _validated(trainer) if trainer.chosen.users else {}
    if not all(math.isfinite(value) for value in measured.values()):
        raise trainer.diverged("validation")
    rate = trainer.rate(trainer.plan.steps - 1)
    entry = {"epoch": epoch, "train_loss": loss, "learning_rate": rate, **measured}
    after = replace(after, history=[*cursor.history, entry])
    if _improved(trainer, measured):
        after = replace(after, best_epoch=epoch, best_slot=after.slot)
    return after


def _validated(trainer: Trainer) -> dict[str, float]:
    users, items, settings = trainer.users.rows, trainer.items.rows, trainer.settings
    if not trainer.objective.ranking:
        return metrics.rate(trainer.chosen, users, items, mean=settings.mean)
    if trainer.histories is not None:
        user_BD = trainer.histories.of(trainer.chosen.user_B, users)
        return metrics.rank(trainer.chosen, user_BD, users, replace(settings, similarity="cosine"))
    local_B = users.local(trainer.chosen.user_B.to(users.group.device))
    user_BD = users.weight.detach()[local_B]
    return metrics.rank(trainer.chosen, user_BD, items, settings, trainer.smoothing)


def _improved(trainer: Trainer, measured: dict[str, float]) -> bool:
    """Whether this epoch is the one to keep; without validation the last one is."""
    cursor = trainer.cursor
    if not measured or not cursor.best_epoch:
        return True
    now, best = measured[trainer.metric], cursor.history[cursor.best_epoch - 1][trainer.metric]
    return now > best if trainer.objective.ranking else now < best


def _where(cursor: Cursor) -> str:
    return f"{'refit ' if cursor.refit is not None else ''}epoch {cursor.epoch + 1}"


def _line(cursor: Cursor, epochs: int) -> str:
    if cursor.refit is not None:
        return f"refit epoch {cursor.epoch}/{epochs} · loss {cursor.refit[-1]:.4f}"
    entry = cursor.history[-1]
    facts = [f"{k} {entry[k]:.4f}" for k in _SHOWN if k in entry]
    best = " · best" if cursor.best_epoch == cursor.epoch else ""
    return (
        " · ".join([f"epoch {cursor.epoch}/{epochs}", f"loss {entry['train_loss']:.4f}", *facts])
        + best
    )


def _published(trainer: Trainer, task: Task) -> Outcome:
    """Write the tables as they are; each worker writes the partitions that it owns."""
    cursor = trainer.cursor
    shards = task.run.artifact("shards").counters
    epochs, refits = len(cursor.history), len(cursor.refit or [])
    sought = shards["train" if trainer.histories is None else PAIRS["train",]]
    steps = epochs * plan_of((sought,), trainer.config).steps + refits * trainer.plan.steps
    vocab = task.run.artifact("vocab").counters
    return Outcome(
        files=_tables(trainer, task),
        history=cursor.history,
        refit=cursor.refit or [],
        best_epoch=cursor.best_epoch,
        metric=trainer.metric if trainer.metric in cursor.history[0] else "",
        mean=trainer.settings.mean,
        users=vocab["users"],
        items=vocab["items"],
        steps=steps,
        pairs=epochs * sought + refits * trainer.plan.events,
    )


def _tables(trainer: Trainer, task: Task) -> list[FileEntry]:
    """The files of all tables; of a model of pairs, users are derived from its items."""
    users, items, histories = trainer.users, trainer.items, trainer.histories

    def table(name: str, table: Table) -> list[FileEntry]:
        def tensors(partition: int) -> dict[str, Tensor]:
            return table.published(partition) if partition in trainer.layout.owned else {}

        return _written(trainer, task, name, table.rows.rows, tensors)

    if histories is None:
        return [*table("users", users), *table("items", items)]

    def means(partition: int) -> dict[str, Tensor]:
        return {"weight": histories.partition(partition, users.rows).cpu()}

    derived = _written(trainer, task, "users", histories.users, means)
    return [*derived, *table("items", users), *table("contexts", items)]


def _written(
    trainer: Trainer,
    task: Task,
    name: str,
    rows: int,
    tensors: Callable[[int], dict[str, Tensor]],
) -> list[FileEntry]:
    """Write a table of `rows` rows; each worker asks for `tensors` equally often."""
    storage, layout = task.run.storage.at("train"), trainer.layout
    written = []

    def path(partition: int) -> str:
        return f"{name}/part-{partition:05d}.safetensors"

    for partition in range(layout.rank, layout.partitions + layout.rank, layout.world):
        found = tensors(partition)
        with trainer.group.agreed():
            if partition < layout.partitions:
                written.append(storage.write(path(partition), save_tensors(found)))
    return entries_of(
        written, layout, trainer.group, path, lambda p: rows_in(p, layout.partitions, rows)
    )
