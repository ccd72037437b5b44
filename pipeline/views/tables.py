"""Trained tables: tensors by partition, read by ranges of rows.

Legend: N rows of a range, P partitions, S rows of a partition.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.train import Training
from embedmill.schemas.train import FILES

__all__ = ["StoredTensor", "TrainedTable", "check_tensors", "open_table", "stored_tensors"]

Floats = NDArray[np.float32]

_FLOAT = 4  # bytes
_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it


@dataclass(frozen=True)
class TrainedTable:
    """A table whose row r is in partition r mod P. Picklable: tasks read their own slices.

    `widths` are the columns of each tensor. Nothing stays in memory, and no file is copied: a call
    reads the bytes of its rows out of each partition. These cannot be compared with the sha256 of
    a whole file; `check` does that, once for each partition, before rows are read.
    """

    train: Artifact
    side: str
    rows: int
    widths: dict[str, int]
    partitions: int

    @staticmethod
    def of(train: Artifact, side: str, rows: int) -> TrainedTable:
        """The table "users" or "items", unchecked; has the tensor "weight", and "bias" if any.

        Args:
            train: a finished training.
            side: the table.
            rows: that it must have.
        """
        model = Training(train).model
        widths = {"weight": model.dim} | ({"bias": 1} if model.bias else {})
        return TrainedTable(train, side, rows, widths, model.partitions)

    def check(self, partition: int) -> None:
        """Compare the file of a partition with its sha256, and its tensors with the table.

        Raises:
            CorruptArtifactError: the file differs from its sha256.
            ContractError: it is no safetensors file, or lacks a tensor of the right shape.
        """
        path = FILES[self.side].path(partition)
        self.train.check(path)
        size = len(range(partition, self.rows, self.partitions))
        with self.train.open(path) as raw:
            check_tensors(raw, size, self.widths, self.train.url(path))

    def read(self, name: str, first: int, last: int) -> Floats:
        """Rows first .. last - 1 of a tensor, float32 [N, width]."""
        width = self.widths[name]
        value_ND = np.empty((last - first, width), np.float32)
        for partition in range(self.partitions):
            start, stop = (-((partition - bound) // self.partitions) for bound in (first, last))
            if start < stop:
                with self.train.open(FILES[self.side].path(partition)) as raw:
                    raw.seek(stored_tensors(raw)[name].offset + start * width * _FLOAT)
                    data = raw.read((stop - start) * width * _FLOAT)
                at = start * self.partitions + partition - first
                value_ND[at :: self.partitions] = np.frombuffer(data, "<f4").reshape(-1, width)
        return value_ND


def open_table(train: Artifact, side: str, rows: int) -> TrainedTable:
    """A table with all its partitions checked. Args and errors as of `TrainedTable`."""
    table = TrainedTable.of(train, side, rows)
    for partition in range(table.partitions):
        table.check(partition)
    return table


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor of a safetensors file begins, and what it is."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


def stored_tensors(raw: BinaryIO) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, by its header: 8 bytes of its length, and JSON.

    The library reads local files alone (format: github.com/huggingface/safetensors).

    Raises:
        struct.error, ValueError, KeyError, TypeError, AttributeError: it is no such file.
    """
    raw.seek(0)
    (length,) = struct.unpack("<Q", raw.read(8))
    if length > _LONGEST_HEADER:
        raise ValueError("header too long")
    header = json.loads(raw.read(length))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        found[name] = StoredTensor(
            entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin
        )
    if raw.seek(0, os.SEEK_END) != max((t.offset + t.bytes for t in found.values()), default=0):
        raise ValueError("cut short, or too long")
    return found


def check_tensors(raw: BinaryIO, rows: int, widths: dict[str, int], where: str) -> None:
    """Raise ContractError unless a file has the tensors, float32 [rows, width].

    Args:
        raw: the file.
        rows: of each tensor.
        widths: columns of each tensor; a tensor of width 1 may have one dimension.
        where: the file, for the error.
    """
    try:
        tensors = stored_tensors(raw)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise ContractError("not a safetensors file", where=where) from None
    for name, width in widths.items():
        tensor = tensors.get(name)
        if tensor is None or not _fits(tensor, rows, width):
            raise ContractError(f"tensor '{name}' is not float32 [{rows}, {width}]", where=where)


def _fits(tensor: StoredTensor, rows: int, width: int) -> bool:
    shape = tensor.shape or (0,)
    return (
        tensor.dtype == "F32"
        and shape[0] == rows
        and math.prod(shape[1:]) == width
        and tensor.bytes == rows * width * _FLOAT
    )
