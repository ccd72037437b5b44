"""Trained tables: tensors by partition, read by ranges of rows.

Legend: N rows of a range, P partitions, S rows of a partition.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.cache import fetch
from embedmill.pipeline.views.train import Training
from embedmill.schemas.train import FILES

__all__ = ["TrainedTable", "check_tensors", "open_table"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TrainedTable:
    """A table whose row r is in partition r mod P; its files were checked against their sha256.

    `widths` are the columns of each tensor. `paths` are the local files by partition: a call reads
    slices of them, nothing stays in memory.
    """

    train: Artifact
    side: str
    rows: int
    widths: dict[str, int]
    paths: list[Path] = field(repr=False)

    def read(self, name: str, first: int, last: int) -> Floats:
        """Rows first .. last - 1 of a tensor, float32 [N, width]."""
        partitions = len(self.paths)
        value_ND = np.empty((last - first, self.widths[name]), np.float32)
        for partition, path in enumerate(self.paths):
            start, stop = (-((partition - bound) // partitions) for bound in (first, last))
            if start < stop:
                with safe_open(path, framework="numpy") as tensors:
                    value_SD = tensors.get_slice(name)[start:stop]
                at = start * partitions + partition - first
                value_ND[at::partitions] = value_SD.reshape(stop - start, -1)
        return value_ND


@contextlib.contextmanager
def open_table(train: Artifact, side: str, rows: int) -> Iterator[TrainedTable]:
    """The table "users" or "items", with the tensor "weight" and, where there are any, "bias".

    Files that are not on a local disk are copied to a temporary folder, which is removed at the
    end of the block.

    Args:
        train: a finished training.
        side: the table.
        rows: that it must have.

    Raises:
        CorruptArtifactError: a file differs from its sha256.
        ContractError: a file is no safetensors file, or lacks a tensor of the right shape.
    """
    model = Training(train).model
    widths = {"weight": model.dim} | ({"bias": 1} if model.bias else {})
    with tempfile.TemporaryDirectory(prefix="embedmill-tables-") as scratch:
        paths = []
        for partition in range(model.partitions):
            path = FILES[side].path(partition)
            local = _local(train, path, Path(scratch))
            size = len(range(partition, rows, model.partitions))
            check_tensors(local, size, widths, train.url(path))
            paths.append(local)
        yield TrainedTable(train, side, rows, widths, paths)


def _local(train: Artifact, path: str, scratch: Path) -> Path:
    """A local file with the bytes that the manifest names."""
    if train.storage.is_local:
        train.check(path)
        return train.storage.local_path(path)
    (entry,) = train.files(path)
    fetch(train, entry, scratch / path)
    return scratch / path


def check_tensors(path: Path, rows: int, widths: dict[str, int], where: str) -> None:
    """Raise ContractError unless a file has the tensors, float32 [rows, width].

    Args:
        path: a local file.
        rows: of each tensor.
        widths: columns of each tensor; a tensor of width 1 may have one dimension.
        where: the file, for the error.
    """
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = set(tensors.keys())
            for name, width in widths.items():
                if name not in names or not _fits(tensors.get_slice(name), rows, width):
                    raise ContractError(
                        f"tensor '{name}' is not float32 [{rows}, {width}]", where=where
                    )
    except SafetensorError:
        raise ContractError("not a safetensors file", where=where) from None


def _fits(tensor: Any, rows: int, width: int) -> bool:
    shape = tensor.get_shape() or [0]
    return bool(
        tensor.get_dtype() == "F32"
        and shape[0] == rows
        and int(np.prod(shape[1:], dtype=np.int64)) == width
    )
