"""Rows of forgotten ids become zeros in trained tables and in exported vectors.

Legend: E rows of a file, R rows of forgotten ids.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedmill.pipeline.forget.find_ids import rows_of
from embedmill.pipeline.forget.rewrite import Changed, References
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.forgotten_ids import SIDES, ForgottenIds
from embedmill.pipeline.store.parquet import parquet_bytes
from embedmill.pipeline.views.tables import stored_tensors
from embedmill.pipeline.views.train import Training
from embedmill.schemas import export as export_schema
from embedmill.schemas import train as train_schema
from embedmill.schemas.erasure import PendingRun

__all__ = ["erase_export", "erase_train", "zeroed_rows"]

Rows = NDArray[np.int64]


def erase_train(train: Artifact, known: PendingRun) -> Iterator[Changed]:
    """Files of tables, and of rows with their optimizer state, with zeros in some rows.

    Args:
        train: the artifact.
        known: what the run knew of the ids.
    """
    partitions = Training(train).model.partitions
    of_pairs = bool(train.files(train_schema.FILES["contexts"].folder))
    rows = {side: rows_of(known, side) for side in SIDES}
    tables = {
        "users": {"": rows["users"]},
        "items": {"": rows["items"]},
        "contexts": {"": rows["items"]},
    }
    # In a model of item pairs both sides are items: centers and contexts.
    state = {"users.": rows["items"] if of_pairs else rows["users"], "items.": rows["items"]}
    every = [*((train_schema.FILES[name], of_name) for name, of_name in tables.items())]
    for files, of_tensor in [*every, (train_schema.STATE, state)]:
        for entry in train.files(files.folder):
            partition = files.number(entry.path)
            local = {
                prefix: row_R[row_R % partitions == partition] // partitions
                for prefix, row_R in of_tensor.items()
            }
            if any(len(one) for one in local.values()):
                data = train.read(entry.path)
                new = _zeroed_tensors(data, local)
                if new != data:
                    yield Changed(entry.path, new)


def erase_export(
    export: Artifact, forgotten: ForgottenIds, known: PendingRun, references: References
) -> Iterator[Changed]:
    """Files of vectors in which the rows of forgotten ids have no id, no events, and zeros.

    Args:
        export: the artifact.
        forgotten: forgotten ids.
        known: what the run knew of them.
        references: new content hashes, which the spec may name.
    """
    for side, files in export_schema.FILES.items():
        for entry in export.files(files.folder):
            table = export.read_table(entry.path)
            bad_E = forgotten.mask(side, table["id"])
            if bad_E.any():
                yield Changed(entry.path, parquet_bytes(zeroed_rows(table, bad_E)))
        yield from _erase_matrix(export, side, forgotten, rows_of(known, side))
    spec = export.read_json(export_schema.SPEC)
    if spec.space is not None:
        space = export_schema.Space(**references.replaced(spec.space.model_dump()))
        if space != spec.space:
            changed = spec.model_copy(update={"space": space})
            yield Changed(export_schema.SPEC.path, export_schema.SPEC.encode(changed))


def zeroed_rows(table: pa.Table, bad_E: NDArray[np.bool_]) -> pa.Table:
    """A table of exported vectors (`schemas.export.embeddings`) in which some rows are retired.

    Args:
        table: the rows.
        bad_E: which of them.
    """
    bad = pa.array(bad_E)
    values: Mapping[str, Any] = {
        "id": pa.scalar(None, pa.string()),
        "count": pa.scalar(0, pa.int64()),
        "live": pa.scalar(value=False),
        "bias": pa.scalar(0.0, pa.float32()),
    }
    columns = []
    for field in table.schema:
        column = table[field.name]
        if field.name == "vector":
            dim = field.type.list_size
            vector_ED = column.combine_chunks().flatten().to_numpy().reshape(-1, dim).copy()
            vector_ED[bad_E] = 0
            flat = pa.array(vector_ED.reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        elif field.name in values:
            columns.append(pc.if_else(bad, values[field.name], column))
        else:
            columns.append(column)
    return pa.Table.from_arrays(columns, schema=table.schema).combine_chunks()


def _erase_matrix(
    export: Artifact, side: str, forgotten: ForgottenIds, row_R: Rows
) -> Iterator[Changed]:
    """The NumPy file of a side and the ids beside it, where the run has them."""
    ids_path, path = export_schema.matrix_ids_file(side), export_schema.matrix_file(side)
    if export.has(ids_path):
        table = export.read_table(ids_path)
        bad_E = forgotten.mask(side, table["id"])
        if bad_E.any():
            bad = pa.array(bad_E)
            ids = pc.if_else(bad, pa.scalar(None, pa.string()), table["id"])
            live = pc.if_else(bad, pa.scalar(value=False), table["live"])
            columns = {"row": table["row"], "id": ids, "live": live}
            new = pa.table(columns, schema=export_schema.MATRIX_IDS)
            yield Changed(ids_path, parquet_bytes(new.combine_chunks()))
    if export.has(path) and len(row_R):
        data = export.read(path)
        vector_ND = np.load(io.BytesIO(data), allow_pickle=False)
        if vector_ND[row_R].any():
            vector_ND[row_R] = 0
            out = io.BytesIO()
            np.save(out, vector_ND, allow_pickle=False)
            yield Changed(path, out.getvalue())


def _zeroed_tensors(data: bytes, rows: Mapping[str, Rows]) -> bytes:
    """A safetensors file with zeros in some rows of the tensors whose names have a prefix.

    Bytes outside of these rows stay as they are.
    """
    new = bytearray(data)
    for name, tensor in stored_tensors(io.BytesIO(data)).items():
        prefix = next((one for one in rows if name.startswith(one)), None)
        if prefix is None or not tensor.shape:
            continue
        start, count = tensor.offset, tensor.shape[0]
        width = tensor.bytes // max(1, count)
        for row in rows[prefix].tolist():
            if row < count:
                new[start + row * width : start + (row + 1) * width] = bytes(width)
    return bytes(new)
