"""The training loop of one worker: plain torch.distributed, the same code for one and many."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from embedmill.pipeline.log import Progress
from embedmill.pipeline.memory import free_memory
from embedmill.pipeline.train.assembly import WorkerTask, load_trainer, searched_examples
from embedmill.pipeline.train.checkpoints.checkpoint import Checkpoints, Cursor
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.logs.step_log import StepLog
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.publish import TrainingResult, publish_tables, write_state
from embedmill.pipeline.train.resources.out_of_memory import catch_out_of_memory
from embedmill.pipeline.train.trainer import Trainer
from embedmill.pipeline.train.trials import choose_settings

__all__ = ["TrainingResult", "train_worker"]

_SHOWN = ("ndcg@10", "recall@10", "rmse", "mae")  # in the line of an epoch: 80 columns


@dataclass(frozen=True)
class _Records:
    """What a worker writes while it trains: checkpoints, the log, and progress for the user."""

    checkpoints: Checkpoints
    log: StepLog
    progress: Progress


def train_worker(task: WorkerTask, group: Group, progress: Progress) -> TrainingResult:
    """Train as one of the workers of `group`, and write the tables of the best epoch.

    With objective "auto", trials choose what is trained. Every worker calls it with the same
    task. It resumes at a checkpoint of the same config.

    Returns:
        the same at every worker.

    Raises:
        NotFiniteError: a loss or gradient is NaN or infinite (all workers raise).
        StaleArtifactError: there is a checkpoint of another config.
        CorruptArtifactError: a checkpoint or shard is damaged.
        MachineError: a disk is full or fails, or this worker ran out of memory; in the latter
            case it must `leave` the group, or the others wait for it.
    """
    layout = Layout(task.run.config.run.partitions, group.world, group.rank)
    storage = task.storage
    checkpoints = Checkpoints(storage, task.identity, layout, group, task.fence)
    records = _Records(checkpoints, StepLog(storage, group, progress), progress)
    try:
        task, trials = choose_settings(task, group, progress)
        group.timer.lap()  # the log counts from here
        return replace(_train(task, group, records), trials=tuple(trials))
    finally:
        checkpoints.close()


def _train(task: WorkerTask, group: Group, records: _Records) -> TrainingResult:
    trainer = _resume(task, group, records)
    _run_phase(trainer, records)
    if trainer.config.refit and not trainer.cursor.refit:
        found = trainer.cursor
        start = Cursor(refit=[], history=found.history, best_epoch=found.best_epoch)
        del trainer  # frees its tables before those of the refit are made
        with catch_out_of_memory(lambda: "making its tables for the refit"):
            trainer = load_trainer(task, group, start)
        _run_phase(trainer, records)
    if trainer.cursor.best_slot != trainer.cursor.slot:
        records.checkpoints.read(trainer.cursor.best_slot, trainer.model.load_partition)
    state = write_state(trainer, task.storage)
    trainer.model.prepare_for_publishing()
    refit = trainer.cursor.refit is not None  # whose plan has other examples
    examples = searched_examples(task, group) if refit else trainer.plan.events
    result = publish_tables(trainer, task.run, storage=task.storage, examples=examples)
    result = replace(result, files=[*result.files, *state])
    records.log.end(trainer.cursor)
    return result


def _resume(task: WorkerTask, group: Group, records: _Records) -> Trainer:
    """A trainer at the latest checkpoint, or at the start where there is none."""
    cursor = records.checkpoints.find()
    records.log.start(cursor)
    with catch_out_of_memory(lambda: "reading its events and making its tables"):
        trainer = load_trainer(task, group, cursor or Cursor())
        if cursor is not None:
            records.checkpoints.read(cursor.slot, trainer.model.load_partition)
    if cursor is not None and group.rank == 0:
        records.progress.note(f"resumed at {_epoch_name(cursor)}, step {cursor.step + 1}")
    return trainer


def _run_phase(trainer: Trainer, records: _Records) -> None:
    """All epochs that seek the best one, or all epochs of the refit."""

    def position() -> str:
        return f"in {_epoch_name(trainer.cursor)}, step {trainer.cursor.step + 1}"

    with catch_out_of_memory(position):
        while not trainer.finished():
            _run_epoch(trainer, records)
    with trainer.group.timer("checkpoint"):
        records.checkpoints.finish()


def _run_epoch(trainer: Trainer, records: _Records) -> None:
    """From the cursor to the end of its epoch; then validate and store."""
    plan, timer = trainer.plan, trainer.group.timer
    log_interval, checkpoint_interval = trainer.log_interval, trainer.config.checkpoint_steps
    with timer("wait"):
        take_step = trainer.start_epoch()
    sizes = [sum(plan.batch_sizes(step)) for step in range(plan.steps)]
    done, total = _examples_done(trainer, sizes)
    for step in range(trainer.cursor.step, plan.steps):
        loss = take_step(step)
        if not math.isfinite(loss):
            raise trainer.diverged(f"step {step + 1} of {plan.steps}")
        cursor = trainer.cursor
        trainer.cursor = replace(cursor, step=step + 1, loss=cursor.loss + loss * sizes[step])
        done += sizes[step]
        if trainer.group.rank == 0:
            records.progress.update(done, total, "pairs", loss=loss, epoch=cursor.epoch + 1)
        records.log.add_step(loss, sizes[step])
        last = step + 1 == plan.steps
        if last or (step + 1) % log_interval == 0:
            records.log.write_steps(trainer)
            # After the same steps at all workers: a checkpoint may have been written meanwhile.
            with timer("checkpoint"):
                records.checkpoints.poll()
        if checkpoint_interval and (step + 1) % checkpoint_interval == 0 and not last:
            _store(trainer, records)
    with timer("validate"):
        trainer.cursor = _end_epoch(trainer)
    records.log.epoch(trainer.cursor)
    _store(trainer, records)
    if trainer.group.rank == 0:
        records.progress.note(_epoch_line(trainer.cursor, trainer.epochs))


def _examples_done(trainer: Trainer, sizes: list[int]) -> tuple[int, int]:
    """Examples that are done and in all, for progress; a refit counts on after the search."""
    cursor, plan = trainer.cursor, trainer.plan
    search = len(cursor.history) * plan.events if cursor.refit is not None else 0
    done = cursor.epoch * plan.events + sum(sizes[: cursor.step])
    return search + done, search + trainer.epochs * plan.events


def _store(trainer: Trainer, records: _Records) -> None:
    """Write the log, then start a checkpoint: a resume continues both from the same step.

    Where one is not due yet, the best tables are kept in memory, if there is room for them.
    """
    records.log.write_steps(trainer)
    with trainer.group.timer("checkpoint"):
        # Steps keep half of the free memory. `workers_on_this_machine` is a collective: every
        # worker has read its free memory before any copies its tables.
        room = free_memory() // (2 * trainer.group.workers_on_this_machine())
        limit = min(room, trainer.config.checkpoint_copy_mib << 20)
        too_large = trainer.group.max(int(trainer.model.nbytes > limit))
        copy = trainer.model.copy_partition
        if not too_large and not records.checkpoints.due():
            records.checkpoints.keep(trainer.cursor, copy)
            return
        with trainer.group.fail_together():
            records.log.save()
        records.checkpoints.begin(trainer.cursor, copy, copied=not too_large)


def _end_epoch(trainer: Trainer) -> Cursor:
    """Validate after an epoch's last step, and compare with the best epoch so far."""
    cursor, epoch = trainer.cursor, trainer.cursor.epoch + 1
    loss = cursor.loss / trainer.plan.events
    after = replace(cursor, epoch=epoch, step=0, loss=0.0)
    # The last update may have overflowed at one worker only: all must raise.
    if trainer.group.max(int(not trainer.model.is_finite())):
        raise trainer.diverged("after its last step")
    if cursor.refit is not None:
        after = replace(after, refit=[*cursor.refit, loss])
        return replace(after, best_slot=after.slot)
    metrics = _validate(trainer)
    rate = trainer.learning_rate(trainer.plan.steps - 1)
    entry = {"epoch": epoch, "train_loss": loss, "learning_rate": rate, **metrics}
    after = replace(after, history=[*cursor.history, entry])
    if _is_best(trainer, metrics):
        after = replace(after, best_epoch=epoch, best_slot=after.slot)
    return after


def _validate(trainer: Trainer) -> dict[str, float]:
    """The metrics of the current tables; none where there are no validation users."""
    validation = trainer.data.validation
    if not validation.users:
        return {}
    metrics = trainer.objective.task.validate(trainer.model, validation)
    if not all(math.isfinite(value) for value in metrics.values()):
        raise trainer.diverged("validation")
    return metrics


def _is_best(trainer: Trainer, metrics: dict[str, float]) -> bool:
    """Whether this epoch is the best so far; without validation, the latest is."""
    cursor = trainer.cursor
    if not metrics or not cursor.best_epoch:
        return True
    best = cursor.history[cursor.best_epoch - 1][trainer.metric]
    return trainer.objective.task.is_better(metrics[trainer.metric], best)


def _epoch_name(cursor: Cursor) -> str:
    return f"{'refit ' if cursor.refit is not None else ''}epoch {cursor.epoch + 1}"


def _epoch_line(cursor: Cursor, epochs: int) -> str:
    """The line of a finished epoch for the user."""
    if cursor.refit is not None:
        return f"refit epoch {cursor.epoch}/{epochs} · loss {cursor.refit[-1]:.4f}"
    entry = cursor.history[-1]
    facts = [f"{k} {entry[k]:.4f}" for k in _SHOWN if k in entry]
    best = " · best" if facts and cursor.best_epoch == cursor.epoch else ""
    return (
        " · ".join([f"epoch {cursor.epoch}/{epochs}", f"loss {entry['train_loss']:.4f}", *facts])
        + best
    )
