"""Ranges of rows of trained tables as files of vectors with ids: a task for each range.

Vectors of cosine models have unit length; those of a model with biases have one coordinate more:
the bias of an item, and 1 of a user. An inner product then ranks items as the model was trained to.

Legend: N rows of a range, D coordinates of the model, E as exported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedmill.pipeline.errors import NotFiniteError
from embedmill.pipeline.export.alignment import Alignment
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.tables import TrainedTable
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.export import FILES, VectorSpec, embeddings
from embedmill.schemas.files import PartFiles
from embedmill.schemas.manifest import FileEntry

__all__ = ["RangeTask", "check_partition", "ready", "write_range"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RangeTask:
    """Write the vectors of the rows of one file of the vocabulary.

    That is 1,048,576 rows; a task holds those of one file of vectors, 131,072, at a time.

    Attributes:
        table: of the model; its partitions have been checked.
        vocabulary: ids of the same rows.
        spec: what the vectors are.
        storage: the folder of the artifact's files.
        files: of vectors.
        alignment: the rotation, if any.
        number: of the vocabulary's file.
    """

    table: TrainedTable
    vocabulary: Vocabulary
    spec: VectorSpec
    storage: Storage
    files: PartFiles
    alignment: Alignment | None = None
    number: int = 0

    @staticmethod
    def of(
        run: Run, storage: Storage, spec: VectorSpec, side: str, alignment: Alignment | None
    ) -> RangeTask:
        """The first task of a side. Args as the attributes."""
        table = TrainedTable.of(run.artifact("train"), side, spec.count(side))
        vocabulary = Vocabulary.of(run.artifact("vocab"), side)
        return RangeTask(table, vocabulary, spec, storage, FILES[side], alignment)

    def every(self) -> Iterator[RangeTask]:
        """All tasks of the side, in order of rows."""
        return (replace(self, number=number) for number in range(len(self.vocabulary.files)))


def check_partition(task: tuple[TrainedTable, int]) -> None:
    """Compare a partition of a table with its sha256 and its shape; errors as of its `check`."""
    table, partition = task
    table.check(partition)


def write_range(task: RangeTask) -> list[FileEntry]:
    """Write the files of a task; returns their entries, in order of rows.

    Raises:
        NotFiniteError: a vector holds NaN or infinity; names its id.
        ContractError: rows of the vocabulary are not dense and in order.
    """
    files, entries = task.files, []
    for first, ids in task.vocabulary.blocks_of(task.number, files.rows_per_file):
        part = _range(task.table, ids, task.spec, first, task.alignment)
        path = files.path(files.file_of(first))
        entries.append(write_parquet(task.storage, "export", path, part))
    return entries


def ready(weight_ND: Floats, bias_N: Floats | None, side: str, similarity: str) -> Floats:
    """Vectors whose inner products are the model's scores.

    A zero vector has no direction and stays zero under cosine: it scores 0 with everything.

    Args:
        weight_ND: float32 [N, D], rows of the model's table.
        bias_N: float32 [N], where the model has biases.
        side: "users" or "items".
        similarity: "cosine" or "dot".

    Returns:
        float32 [N, E], E = D or, with biases, D + 1.
    """
    if similarity == "cosine":
        wide_ND = weight_ND.astype(np.float64)
        length_N1 = np.sqrt(np.square(wide_ND).sum(axis=1, keepdims=True))
        weight_ND = (wide_ND / np.where(length_N1 > 0, length_N1, 1)).astype(np.float32)
    if bias_N is None:
        return weight_ND
    last_N = bias_N if side == "items" else np.ones_like(bias_N)
    return np.concatenate((weight_ND, last_N[:, None]), axis=1)


def _range(
    table: TrainedTable,
    ids: pa.Table,
    spec: VectorSpec,
    first: int,
    alignment: Alignment | None = None,
) -> pa.Table:
    """Some rows as a table of the contract.

    Args:
        table: of the model.
        ids: the rows, as the vocabulary has them.
        spec: what the vectors are.
        first: the first of the rows.
        alignment: the rotation, if any.
    """
    last = first + ids.num_rows
    weight_ND = table.read("weight", first, last)
    bias_N = table.read("bias", first, last)[:, 0] if spec.bias else None
    _check_finite(table, ids["id"], first, weight_ND, bias_N)
    vector_NE = ready(weight_ND, bias_N, table.side, spec.similarity)
    if alignment is not None:
        vector_NE = alignment.apply(vector_NE)
    schema = embeddings(spec.dim, bias=spec.bias)
    columns: list[Any] = [
        pa.array(np.arange(first, last)),
        *(ids[name].combine_chunks() for name in ("id", "count", "live")),
        pa.FixedSizeListArray.from_arrays(
            pa.array(vector_NE.reshape(-1)), type=schema.field("vector").type
        ),
    ]
    if bias_N is not None:
        columns.append(pa.array(bias_N))
    return pa.Table.from_arrays(columns, schema=schema)


def _check_finite(
    table: TrainedTable,
    ids: pa.ChunkedArray,
    first: int,
    weight_ND: Floats,
    bias_N: Floats | None,
) -> None:
    """Raise NotFiniteError where a vector or bias is NaN or infinite."""
    wrong_N = ~np.isfinite(weight_ND).all(axis=1)
    if bias_N is not None:
        wrong_N |= ~np.isfinite(bias_N)
    if wrong_N.any():
        row = int(np.flatnonzero(wrong_N)[0])
        named = json.dumps(ids[row].as_py(), ensure_ascii=False)
        raise NotFiniteError(
            f"{int(wrong_N.sum()):,} vectors below '{table.side}' are not finite, "
            f"the first is that of {named} (row {first + row:,})",
            where=table.train.storage.root,
            todo="Train again with a smaller train.learning_rate",
        )
