"""Table files → vectors with their ids, ready for an inner product.

The model's tables are stored by partition (partition p of P holds rows p, p + P, ...); they
are exported as contiguous ranges of rows with their raw ids and counts, see `vector_ranges`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.export.alignment import Alignment, align, find_earlier, why_unaligned
from embedmill.pipeline.export.vector_ranges import RangeTask, check_partition, ready, write_range
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.artifact_writer import Writer, entry_of
from embedmill.pipeline.store.parquet import parquet_batches
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import HashingFile, Storage
from embedmill.pipeline.task_pool import (
    LAUNCHERS,
    Launchers,
    TaskPool,
    TaskRequest,
    choose_launcher,
)
from embedmill.pipeline.views.tables import open_table
from embedmill.pipeline.views.train import Training
from embedmill.pipeline.views.vectors import new_space
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.export import (
    FILES,
    MATRIX_IDS,
    SPEC,
    Space,
    VectorSpec,
    matrix_file,
    matrix_ids_file,
)
from embedmill.schemas.manifest import FileEntry
from embedmill.schemas.train import Model

__all__ = ["build"]

Floats = NDArray[np.float32]

# More bytes of vectors than this take longer to write than processes take to start.
_LARGE = 1 << 29


def build(run: Run, out: Writer, progress: Progress, launchers: Launchers = LAUNCHERS) -> None:
    """Write vectors, ids and the spec; ranges of rows are written by tasks.

    The files do not depend on how many tasks there are, nor where they run.

    Args:
        run: its trained tables and its vocabulary.
        out: the export artifact.
        progress: is told of vectors.
        launchers: start the workers that write many vectors.

    Raises:
        NotFiniteError: a vector holds NaN or infinity; names its id.
        CorruptArtifactError: a table file differs from its sha256.
        ContractError: tables and vocabulary do not fit together.
        MachineError: a worker ended.
    """
    config, vocab = run.config.export, run.artifact("vocab")
    spec = _spec(Training(run.artifact("train")).model, vocab)
    alignment = _alignment(run, spec, progress)
    large = (spec.users + spec.items) * spec.dim * 4 > _LARGE
    launcher = choose_launcher(config.launcher, run.config.run.root, large=large)
    with launchers[launcher](TaskRequest("export", config.workers)) as pool:
        for side in FILES:
            _write_side(
                run, out, progress, RangeTask.of(run, out.storage, spec, side, alignment), pool
            )
    if alignment is not None:
        spec = spec.model_copy(update={"space": alignment.space})
    out.write_json(SPEC, spec)
    out.commit(
        {
            "users_in": vocab.counters["users"],
            "users": spec.users,
            "items_in": vocab.counters["items"],
            "items": spec.items,
        }
    )


def _write_side(run: Run, out: Writer, progress: Progress, task: RangeTask, pool: TaskPool) -> None:
    """Check the tables of a side, then write its files, and its matrix behind them.

    Args:
        run: the run.
        out: the export artifact.
        progress: is told of vectors.
        task: of the side.
        pool: runs the tasks.
    """
    side, spec = task.table.side, task.spec
    partitions = range(task.table.partitions)
    for _ in pool.map(check_partition, ((task.table, partition) for partition in partitions)):
        pass
    done, total = (0 if side == "users" else spec.users), spec.users + spec.items
    with _matrix(out, side, spec, wanted=run.config.export.npy) as matrix:
        for entries in pool.map(write_range, task.every()):
            out.add(entries)
            for entry in entries:
                matrix.append(entry)
                done += entry.rows or 0
            progress.update(done, total, "vectors")


def _spec(model: Model, vocab: Artifact) -> VectorSpec:
    for side, count in (("users", model.users), ("items", model.items)):
        if count != vocab.counters[side]:
            raise ContractError(
                f"the model has {count:,} {side}, the vocabulary {vocab.counters[side]:,}",
                where=vocab.storage.root,
                todo="Run again with --from train --rebuild",
            )
    return VectorSpec(
        objective=model.objective,
        similarity=model.similarity,
        dim=model.dim + model.bias,
        model_dim=model.dim,
        bias=model.bias,
        mean=float(model.mean),
        users=model.users,
        items=model.items,
        fitted=("train", "valid") if model.refit else ("train",),
    )


def _alignment(run: Run, spec: VectorSpec, progress: Progress) -> Alignment | None:
    """The rotation onto the vectors of an earlier run; None where none is asked for."""
    earlier = find_earlier(run)
    vocab, train = run.artifact("vocab"), run.artifact("train")
    if earlier is None:
        reason = why_unaligned(run)
        if reason:
            progress.note(f"the vectors have a new space: {reason}")
        return Alignment(Space(id=new_space(train), reason=reason)) if reason else None

    def blocks(side: str) -> Iterator[tuple[int, Floats, NDArray[np.int64]]]:
        table = open_table(train, side, spec.count(side))
        for first, ids in Vocabulary.of(vocab, side).blocks(FILES[side].rows_per_file):
            weight_ND = table.read("weight", first, first + ids.num_rows)
            yield first, ready(weight_ND, None, side, spec.similarity), ids["count"].to_numpy()

    found = align(run, spec, earlier, blocks)
    if found.rotation_DD is None:
        progress.note(f"the vectors have a new space: {found.space.reason}")
    return found


class _Matrix:
    """All vectors of a side as one NumPy array with its ids beside it, written in order of rows.

    Such a file has one hash over all its bytes, so one process writes it: it reads the files that
    the tasks have written, one at a time.
    """

    def __init__(
        self, storage: Storage, matrix: HashingFile | None, ids: pq.ParquetWriter | None
    ) -> None:
        self._storage = storage
        self._matrix = matrix
        self._ids = ids

    def append(self, entry: FileEntry) -> None:
        """Append a file of vectors."""
        if self._matrix is None or self._ids is None:
            return
        columns = [*MATRIX_IDS.names, "vector"]
        for batch in parquet_batches(self._storage, entry.path, columns=columns, entry=entry):
            vector = batch["vector"].flatten().to_numpy()
            self._matrix.write(np.ascontiguousarray(vector, "<f4"))
            part = pa.Table.from_batches([batch]).select(MATRIX_IDS.names)
            self._ids.write_table(part.cast(MATRIX_IDS))


@contextlib.contextmanager
def _matrix(out: Writer, side: str, spec: VectorSpec, *, wanted: bool) -> Iterator[_Matrix]:
    if not wanted:
        yield _Matrix(out.storage, None, None)
        return
    ids_path, count = matrix_ids_file(side), spec.count(side)
    with (
        out.file(matrix_file(side), rows=count) as matrix,
        out.storage.writer(ids_path) as raw,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, spec.dim)}
        np.lib.format.write_array_header_1_0(matrix, header)
        with pq.ParquetWriter(raw, MATRIX_IDS, compression="zstd") as ids:
            yield _Matrix(out.storage, matrix, ids)
    out.add([entry_of(ids_path, raw, count)])
