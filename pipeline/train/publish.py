"""What a training returns: the files of its tables, written by partition, and its history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from safetensors.torch import save as save_tensors
from torch import Tensor

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.train.checkpoints.partition_files import gather_entries
from embedmill.pipeline.train.model import PublishedTable
from embedmill.pipeline.train.plan import rows_in
from embedmill.pipeline.train.trainer import Trainer
from embedmill.schemas.manifest import FileEntry
from embedmill.schemas.train import FILES, STATE, Trial

__all__ = ["TrainingResult", "publish_tables", "write_state"]


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training, the same at every worker.

    Args:
        files: of the tables.
        history: an entry for each epoch.
        refit: train losses of the epochs of a refit.
        best_epoch: counted from 1; 0 where there was nothing to validate on: the last is kept.
        metric: that chose the best epoch; empty where there was nothing to validate on.
        mean: of the train ratings; 0 in a ranking.
        users: rows of the users' table.
        items: rows of the items' table.
        steps: global steps that were taken.
        pairs: examples that were trained on, over all epochs.
        train: section train as it was trained, with the objective that `auto` chose.
        trials: of objective `auto`.
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
    train: TrainConfig
    trials: tuple[Trial, ...] = ()


def publish_tables(
    trainer: Trainer, run: Run, *, storage: Storage, examples: int
) -> TrainingResult:
    """Write the tables as they are; each worker writes the partitions that it owns.

    A collective.

    Args:
        trainer: a training that has finished.
        run: the run.
        storage: the folder that tables are written to.
        examples: of an epoch before the refit.
    """
    cursor, objective = trainer.cursor, trainer.objective
    vocab = run.artifact("vocab").counters
    epochs, refit_epochs = len(cursor.history), len(cursor.refit or [])
    # The plan of a refit has other examples than that of the epochs before it.
    steps = objective.method.plan((examples,), trainer.config).steps
    tables = trainer.model.published_tables(trainer.runtime.layout)
    metric = trainer.metric if trainer.metric in cursor.history[0] else ""
    return TrainingResult(
        files=[entry for table in tables for entry in _write_published(trainer, storage, table)],
        history=cursor.history,
        refit=cursor.refit or [],
        best_epoch=cursor.best_epoch if metric else 0,
        metric=metric,
        mean=trainer.model.settings.mean,
        users=vocab["users"],
        items=vocab["items"],
        steps=epochs * steps + refit_epochs * trainer.plan.steps,
        pairs=epochs * examples + refit_epochs * trainer.plan.events,
        train=trainer.config,
    )


def write_state(trainer: Trainer, storage: Storage) -> list[FileEntry]:
    """Write rows and optimizer state as they are trained, for a training that starts from them.

    A collective. Nothing is written unless `train.start` is set, nor where the published tables
    say all: an objective without optimizer.
    """
    if not trainer.config.start or not trainer.model.users.state:
        return []
    copied = PublishedTable("state", 0, _owned_copies(trainer))
    return _write_table(trainer, storage, copied, STATE.path, None)


def _owned_copies(trainer: Trainer) -> Callable[[int], dict[str, Tensor]]:
    owned, copy = trainer.runtime.layout.owned, trainer.model.copy_partition

    def tensors(partition: int) -> dict[str, Tensor]:
        return copy(partition) if partition in owned else {}

    return tensors


def _write_published(trainer: Trainer, storage: Storage, table: PublishedTable) -> list[FileEntry]:
    partitions = trainer.runtime.layout.partitions

    def rows(partition: int) -> int:
        return rows_in(partition, partitions, table.rows)

    return _write_table(trainer, storage, table, FILES[table.name].path, rows)


def _write_table(
    trainer: Trainer,
    storage: Storage,
    table: PublishedTable,
    path: Callable[[int], str],
    rows: Callable[[int], int] | None,
) -> list[FileEntry]:
    """Write the owned partitions of a table; returns the entries of all partitions.

    Args:
        trainer: the training.
        storage: where to write.
        table: what to write.
        path: of a partition's file.
        rows: of a partition; None where files have no rows.
    """
    layout, written = trainer.runtime.layout, []
    # As many rounds at every worker: beyond its last partition, a worker has none to write.
    for partition in range(layout.rank, layout.partitions + layout.rank, layout.world):
        tensors = table.tensors(partition)
        with trainer.group.fail_together():
            if partition < layout.partitions:
                written.append(storage.write(path(partition), save_tensors(tensors)))
    return gather_entries(written, layout, trainer.group, path, rows)
