"""Table files → vectors with their ids, ready for an inner product.

The model's tables are stored by partition (partition p of P holds rows p, p + P, ...); they
are exported as contiguous ranges of rows with their raw ids and counts. Vectors of cosine models
have unit length; those of a model with biases have one coordinate more: the bias of an item, and
1 of a user. An inner product then ranks items as the model was trained to.

Legend: N rows of a range, D coordinates of the model, E as exported.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError, NotFiniteError
from embedmill.pipeline.export.alignment import Alignment, align, find_earlier
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Artifact, Writer, entry_of
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import HashingFile
from embedmill.pipeline.views.tables import TrainedTable, open_table
from embedmill.pipeline.views.train import Training
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.export import (
    FILES,
    MATRIX_IDS,
    SPEC,
    VectorSpec,
    embeddings,
    matrix_file,
    matrix_ids_file,
)
from embedmill.schemas.train import Model

__all__ = ["build", "ready"]

Floats = NDArray[np.float32]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write vectors, ids and the spec.

    Raises:
        NotFiniteError: a vector holds NaN or infinity; names its id.
        CorruptArtifactError: a table file differs from its sha256.
        ContractError: tables and vocabulary do not fit together.
    """
    vocab, train = run.artifact("vocab"), run.artifact("train")
    spec = _spec(Training(train).model, vocab)
    alignment = _alignment(run, spec, progress)
    total, done = spec.users + spec.items, 0
    for side, files in FILES.items():
        count = spec.count(side)
        with (
            open_table(train, side, count) as table,
            _matrix(out, side, count, spec.dim, wanted=run.config.export.npy) as matrix,
        ):
            for first, ids in Vocabulary.of(vocab, side).blocks(files.rows_per_file):
                part = _range(table, ids, spec, first, alignment)
                out.write_table(files.path(files.file_of(first)), part)
                matrix.write(part)
                done += ids.num_rows
                progress.update(done, total, "vectors")
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
    if earlier is None:
        return None
    vocab, train = run.artifact("vocab"), run.artifact("train")

    def blocks(side: str) -> Iterator[tuple[int, Floats, NDArray[np.int64]]]:
        with open_table(train, side, spec.count(side)) as table:
            for first, ids in Vocabulary.of(vocab, side).blocks(FILES[side].rows_per_file):
                weight_ND = table.read("weight", first, first + ids.num_rows)
                yield first, ready(weight_ND, None, side, spec.similarity), ids["count"].to_numpy()

    found = align(run, spec, earlier, blocks)
    if found.rotation_DD is None:
        progress.note(f"the vectors have a new space: {found.space.reason}")
    return found


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


class _Matrix:
    """All vectors of a side as one NumPy array with its ids beside it, written in order of rows."""

    def __init__(self, matrix: HashingFile | None, ids: pq.ParquetWriter | None) -> None:
        self._matrix = matrix
        self._ids = ids

    def write(self, part: pa.Table) -> None:
        """Append a range."""
        if self._matrix is None or self._ids is None:
            return
        vector = part["vector"].combine_chunks().flatten().to_numpy()
        self._matrix.write(np.ascontiguousarray(vector, "<f4"))
        self._ids.write_table(part.select(MATRIX_IDS.names))


@contextlib.contextmanager
def _matrix(out: Writer, side: str, count: int, dim: int, *, wanted: bool) -> Iterator[_Matrix]:
    if not wanted:
        yield _Matrix(None, None)
        return
    ids_path = matrix_ids_file(side)
    with (
        out.file(matrix_file(side), rows=count) as matrix,
        out.storage.writer(ids_path) as raw,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
        np.lib.format.write_array_header_1_0(matrix, header)
        with pq.ParquetWriter(raw, MATRIX_IDS, compression="zstd") as ids:
            yield _Matrix(matrix, ids)
    out.add([entry_of(ids_path, raw, count)])
