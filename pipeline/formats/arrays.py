"""Numbers alone, in files that are mapped or read whole, with their ids in Parquet beside."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import pyarrow as pa

from embedmill.pipeline.formats.contract import DTYPES, IDS, Block, Table, write_ids

__all__ = ["faiss_file", "npy", "safetensors"]

_NAMES = {"float32": "F32", "float16": "F16", "int8": "I8"}


def npy(table: Table, folder: Path) -> None:
    """`SIDE.npy`, for `numpy.load(path, mmap_mode="r")`."""
    with (folder / f"{table.side}.npy").open("wb") as raw:
        shape = (table.count, table.dim)
        descr = np.lib.format.dtype_to_descr(DTYPES[table.dtype])
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(raw, header)
        _numbers(table, folder, raw)


def safetensors(table: Table, folder: Path) -> None:
    """`SIDE.safetensors`, tensor "vectors": the length of a JSON header, the header, the bytes."""
    kind, shape = DTYPES[table.dtype], [table.count, table.dim]
    about = {
        "__metadata__": {"scale": repr(table.scale)},
        "vectors": {
            "dtype": _NAMES[table.dtype],
            "shape": shape,
            "data_offsets": [0, table.count * table.dim * kind.itemsize],
        },
    }
    header = json.dumps(about).encode()
    header += b" " * (-len(header) % 8)
    with (folder / f"{table.side}.safetensors").open("wb") as raw:
        raw.write(struct.pack("<Q", len(header)) + header)
        _numbers(table, folder, raw)


def faiss_file(table: Table, folder: Path) -> None:
    """`SIDE.faiss`: exact search by inner product, in an IndexIDMap2 whose ids are rows.

    FAISS writes an index whole, so the table is in memory once.
    """
    dim, inner = table.dim, faiss.METRIC_INNER_PRODUCT
    kinds = faiss.ScalarQuantizer
    flat: dict[str, Callable[[], Any]] = {
        "float32": lambda: faiss.IndexFlatIP(dim),
        "float16": lambda: faiss.IndexScalarQuantizer(dim, kinds.QT_fp16, inner),
        "int8": lambda: faiss.IndexScalarQuantizer(dim, kinds.QT_8bit_direct_signed, inner),
    }
    engine = faiss.IndexIDMap2(flat[table.dtype]())
    with write_ids(folder / f"{table.side}.ids.parquet") as ids:
        for block in table.blocks():
            vector_ND = np.ascontiguousarray(block.vector_ND, np.float32)
            engine.add_with_ids(vector_ND, block.row_N)
            ids.write_table(_ids(block))
    faiss.write_index(engine, str(folder / f"{table.side}.faiss"))


def _numbers(table: Table, folder: Path, raw: BinaryIO) -> None:
    """Vectors one after another, and their ids."""
    with write_ids(folder / f"{table.side}.ids.parquet") as ids:
        for block in table.blocks():
            raw.write(np.ascontiguousarray(block.vector_ND).data)
            ids.write_table(_ids(block))


def _ids(block: Block) -> pa.Table:
    columns = [pa.array(block.row_N), block.ids, pa.array(block.count_N)]
    return pa.Table.from_arrays(columns, schema=IDS)
