"""Formats that hold numbers alone: files that are mapped or read whole, with ids in Parquet."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import pyarrow as pa

from embedmill.pipeline.formats.vector_table import (
    DTYPES,
    IDS,
    NumberBlock,
    VectorTable,
    ids_writer,
)

__all__ = ["faiss_file", "npy", "safetensors"]

_SAFETENSORS_DTYPES = {"float32": "F32", "float16": "F16", "int8": "I8"}


def npy(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.npy`, for `numpy.load(path, mmap_mode="r")`, and `SIDE.ids.parquet`."""
    with (folder / f"{table.side}.npy").open("wb") as raw:
        shape = (table.count, table.dim)
        descr = np.lib.format.dtype_to_descr(DTYPES[table.dtype])
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(raw, header)
        _write_numbers(table, folder, raw)


def safetensors(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.safetensors` with the tensor "vectors", and `SIDE.ids.parquet`.

    The file is the length of a JSON header, the header, and the numbers (the format's
    documentation, "Format").
    """
    itemsize, shape = DTYPES[table.dtype].itemsize, [table.count, table.dim]
    tensors = {
        "__metadata__": {"scale": repr(table.scale)},
        "vectors": {
            "dtype": _SAFETENSORS_DTYPES[table.dtype],
            "shape": shape,
            "data_offsets": [0, table.count * table.dim * itemsize],
        },
    }
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    with (folder / f"{table.side}.safetensors").open("wb") as raw:
        raw.write(struct.pack("<Q", len(header)) + header)
        _write_numbers(table, folder, raw)


def faiss_file(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.faiss` and `SIDE.ids.parquet`.

    The index searches exactly by inner product; it is an IndexIDMap2 whose ids are rows. FAISS
    writes an index whole: all vectors are in memory once.
    """
    dim, inner_product = table.dim, faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.ScalarQuantizer
    flat: dict[str, Callable[[], Any]] = {
        "float32": lambda: faiss.IndexFlatIP(dim),
        "float16": lambda: faiss.IndexScalarQuantizer(dim, quantizer.QT_fp16, inner_product),
        "int8": lambda: faiss.IndexScalarQuantizer(
            dim, quantizer.QT_8bit_direct_signed, inner_product
        ),
    }
    index = faiss.IndexIDMap2(flat[table.dtype]())
    with ids_writer(folder / f"{table.side}.ids.parquet") as ids:
        for block in table.blocks():
            vector_ND = np.ascontiguousarray(block.vector_ND, np.float32)
            index.add_with_ids(vector_ND, block.row_N)
            ids.write_table(_ids(block))
    faiss.write_index(index, str(folder / f"{table.side}.faiss"))


def _write_numbers(table: VectorTable, folder: Path, raw: BinaryIO) -> None:
    """Write vectors one after another, and their ids beside."""
    with ids_writer(folder / f"{table.side}.ids.parquet") as ids:
        for block in table.blocks():
            raw.write(np.ascontiguousarray(block.vector_ND).data)
            ids.write_table(_ids(block))


def _ids(block: NumberBlock) -> pa.Table:
    columns = [pa.array(block.row_N), block.ids, pa.array(block.count_N)]
    return pa.Table.from_arrays(columns, schema=IDS)
