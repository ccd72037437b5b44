"""Table files → vectors with their ids, ready for an inner product.

The model's tables lie by virtual partition (partition p holds rows p, p + P, ...); they come
out as contiguous ranges of rows beside their raw ids and counts. Cosine models come out with
unit length; a model with biases gets one coordinate more, the bias of an item and 1 of a
user. Whoever takes inner products then ranks as the model was trained to.

Legend: N rows of a range, S rows of a partition, D coordinates of the model, E as exported.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError, NotFiniteError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Artifact, Writer, entry_of
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import HashingFile
from embedmill.pipeline.views.vectors import RANGE, Spec, part_path
from embedmill.schemas.export import embeddings

__all__ = ["build", "ready"]

Floats = NDArray[np.float32]

_VOCAB_RANGE = 1 << 20
_IDS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("live", pa.bool_(), nullable=False),
    ]
)
_HEADER_LIMIT = 1 << 20


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write vectors, ids and the spec.

    Raises:
        NotFiniteError: a vector holds NaN or infinity; names its id.
        CorruptArtifactError: a table file differs from its sha256.
        ContractError: tables and vocabulary do not fit together.
    """
    vocab, train = run.artifact("vocab"), run.artifact("train")
    model = train.read_json("model.json")
    spec = _spec(model, vocab)
    total, done = spec.users + spec.items, 0
    for side, count in (("users", spec.users), ("items", spec.items)):
        table = _Table.open(train, side, count, model)
        ids = _Ids(vocab, side)
        with _npy(out, side, count, spec.dim, wanted=run.config.export.npy) as npy:
            for first in range(0, count, RANGE):
                last = min(count, first + RANGE)
                part = _range(table, ids, spec, (first, last))
                out.write_table(part_path(side, first // RANGE), part)
                npy.write(part)
                done += last - first
                progress.update(done, total, "vectors")
    out.write_json("spec.json", spec.as_json())
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


def _spec(model: dict[str, Any], vocab: Artifact) -> Spec:
    for side in ("users", "items"):
        if model[side] != vocab.counters[side]:
            raise ContractError(
                f"the model has {model[side]:,} {side}, the vocabulary {vocab.counters[side]:,}",
                where=vocab.storage.root,
                todo="Run again with --from train --rebuild",
            )
    return Spec(
        objective=model["objective"],
        similarity=model["similarity"],
        dim=model["dim"] + bool(model["bias"]),
        model_dim=model["dim"],
        bias=bool(model["bias"]),
        mean=float(model["mean"]),
        users=model["users"],
        items=model["items"],
        fitted=("train", "valid") if model.get("refit") else ("train",),
    )


def _range(table: _Table, ids: _Ids, spec: Spec, bounds: tuple[int, int]) -> pa.Table:
    """Rows first .. last - 1 as a table of the contract."""
    first, last = bounds
    id_N, count_N, live_N = ids.rows(first, last)
    weight_ND = table.rows("weight", first, last)
    bias_N = table.rows("bias", first, last)[:, 0] if spec.bias else None
    wrong_N = ~np.isfinite(weight_ND).all(axis=1)
    if bias_N is not None:
        wrong_N |= ~np.isfinite(bias_N)
    if wrong_N.any():
        row = int(np.flatnonzero(wrong_N)[0])
        named = json.dumps(id_N[row].as_py(), ensure_ascii=False)
        raise NotFiniteError(
            f"{int(wrong_N.sum()):,} vectors below '{table.side}' are not finite, "
            f"the first is that of {named} (row {first + row:,})",
            where=table.train.storage.root,
            todo="Train again with a smaller train.learning_rate",
        )
    vector_NE = ready(weight_ND, bias_N, table.side, spec.similarity)
    schema = embeddings(spec.dim, bias=spec.bias)
    columns: list[Any] = [
        pa.array(np.arange(first, last)),
        id_N,
        count_N,
        live_N,
        pa.FixedSizeListArray.from_arrays(
            pa.array(vector_NE.reshape(-1)), type=schema.field("vector").type
        ),
    ]
    if bias_N is not None:
        columns.append(pa.array(bias_N))
    return pa.Table.from_arrays(columns, schema=schema)


@dataclass(frozen=True)
class _Tensor:
    """Where a float32 tensor [S, width] lies in a safetensors file."""

    path: str
    offset: int
    rows: int
    width: int


@dataclass(frozen=True)
class _Table:
    """A model table by partition; its files were checked against their sha256."""

    train: Artifact
    side: str
    partitions: int
    tensors: dict[tuple[str, int], _Tensor]

    @staticmethod
    def open(train: Artifact, side: str, count: int, model: dict[str, Any]) -> _Table:
        """Check every file of the table and find its tensors; nothing stays in memory."""
        partitions = int(model["partitions"])
        widths = {"weight": int(model["dim"])} | ({"bias": 1} if model["bias"] else {})
        tensors = {}
        for p in range(partitions):
            path = f"{side}/part-{p:05d}.safetensors"
            train.check(path)
            with train.open(path) as raw:
                found = _tensors(path, raw, train.url(path))
            held = len(range(p, count, partitions))
            for name, width in widths.items():
                tensor = found.get(name)
                if tensor is None or (tensor.rows, tensor.width) != (held, width):
                    raise ContractError(
                        f"tensor '{name}' is not float32 [{held}, {width}]", where=train.url(path)
                    )
                tensors[name, p] = tensor
        return _Table(train, side, partitions, tensors)

    def rows(self, name: str, first: int, last: int) -> Floats:
        """Rows first .. last - 1 of a tensor, float32 [N, width]."""
        width = self.tensors[name, 0].width
        found = np.empty((last - first, width), np.float32)
        for p in range(self.partitions):
            start, stop = (-((p - bound) // self.partitions) for bound in (first, last))
            if start < stop:
                values = self._slots(self.tensors[name, p], start, stop)
                found[start * self.partitions + p - first :: self.partitions] = values
        return found

    def _slots(self, tensor: _Tensor, start: int, stop: int) -> Floats:
        with self.train.open(tensor.path) as raw:
            raw.seek(tensor.offset + start * tensor.width * 4)
            data = raw.read((stop - start) * tensor.width * 4)
        return np.frombuffer(data, "<f4").reshape(stop - start, tensor.width)


def _tensors(path: str, raw: BinaryIO, where: str) -> dict[str, _Tensor]:
    """Float32 tensors of a safetensors file (format: length, JSON header, bytes)."""
    found = {}
    size = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    first = raw.read(8)
    (length,) = struct.unpack("<Q", first) if len(first) == 8 else (_HEADER_LIMIT,)
    if length >= _HEADER_LIMIT or 8 + length > size:
        raise ContractError("not a safetensors file", where=where)
    header = json.loads(raw.read(length))
    header.pop("__metadata__", None)
    for name, about in header.items():
        rows, *rest = about["shape"] or [0]
        width = int(np.prod(rest, dtype=np.int64))
        begin, end = about["data_offsets"]
        if about["dtype"] != "F32" or end - begin != rows * width * 4:
            continue
        if 8 + length + end <= size:
            found[name] = _Tensor(path, 8 + length + begin, rows, width)
    return found


class _Ids:
    """Ids, counts and flags by range of rows; holds one file of the vocabulary at a time."""

    def __init__(self, vocab: Artifact, side: str) -> None:
        self._vocab = vocab
        self._side = side
        self._number = -1
        self._table: pa.Table | None = None

    def rows(self, first: int, last: int) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Columns id, count, live of rows first .. last - 1, which lie in one file."""
        number = first // _VOCAB_RANGE
        path = f"{self._side}/part-{number:05d}.parquet"
        if self._table is None or number != self._number:
            self._table, self._number = self._vocab.read_table(path), number
        part = self._table.slice(first - number * _VOCAB_RANGE, last - first)
        if not np.array_equal(part["row"].to_numpy(), np.arange(first, last)):
            raise ContractError("rows are not dense and in order", where=self._vocab.url(path))
        return tuple(part[name].combine_chunks() for name in ("id", "count", "live"))


class _Npy:
    """A matrix as .npy with its ids beside it, written in order of rows."""

    def __init__(self, matrix: HashingFile | None, ids: pq.ParquetWriter | None) -> None:
        self._matrix = matrix
        self._ids = ids

    def write(self, part: pa.Table) -> None:
        """Append a range."""
        if self._matrix is None or self._ids is None:
            return
        vector = part["vector"].combine_chunks().flatten().to_numpy()
        self._matrix.write(np.ascontiguousarray(vector, "<f4"))
        self._ids.write_table(part.select(_IDS.names))


@contextlib.contextmanager
def _npy(out: Writer, side: str, count: int, dim: int, *, wanted: bool) -> Iterator[_Npy]:
    if not wanted:
        yield _Npy(None, None)
        return
    with (
        out.file(f"{side}.npy", rows=count) as matrix,
        out.storage.writer(f"{side}.ids.parquet") as raw,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
        np.lib.format.write_array_header_1_0(matrix, header)
        with pq.ParquetWriter(raw, _IDS, compression="zstd") as ids:
            yield _Npy(matrix, ids)
    out.add([entry_of(f"{side}.ids.parquet", raw, count)])
