"""Files with one partition each: every worker writes those that it owns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from embedmill.pipeline.store.storage import HashingFile, Storage
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout
from embedmill.schemas.manifest import FileEntry

__all__ = ["PartitionWriter", "gather_entries"]


class PartitionWriter(threading.Thread):
    """Writes partitions to files: in a thread of its own (`start`) or in the caller's (`run`)."""

    def __init__(
        self, storage: Storage, paths: list[str], partitions: Iterable[dict[str, Tensor]]
    ) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self._storage = storage
        self._paths = paths
        self._partitions = partitions
        self._written: list[HashingFile] = []
        self._error: Exception | None = None

    def run(self) -> None:
        """Write all partitions, in this thread."""
        try:
            for path, tensors in zip(self._paths, self._partitions, strict=True):
                self._written.append(self._storage.write(path, save_tensors(tensors)))
        except Exception as error:  # `result` raises it
            self._error = error

    def result(self) -> list[HashingFile]:
        """Wait until all are written; returns the files, or raises what went wrong."""
        if self.is_alive():
            self.join()
        if self._error is not None:
            raise self._error
        return self._written


def gather_entries(
    written: list[HashingFile],
    layout: Layout,
    group: Group,
    path: Callable[[int], str],
    rows: Callable[[int], int] | None,
) -> list[FileEntry]:
    """Manifest entries of the files of all partitions, from their owners to all; a collective.

    Args:
        written: the files of the owned partitions, ascending.
        layout: which worker owns which partition.
        group: the workers.
        path: of a partition's file.
        rows: of a partition; None where files have no rows.
    """
    digests = [list(bytes.fromhex(file.sha256)) + _octets(file.bytes) for file in written]
    own = torch.tensor(digests, dtype=torch.uint8).reshape(len(written), 40)
    every = group.gather_partitions(own.to(group.device), layout).cpu()
    return [
        FileEntry(
            path=path(partition),
            bytes=int.from_bytes(bytes(row[32:]), "big"),
            sha256=bytes(row[:32]).hex(),
            rows=rows(partition) if rows else None,
        )
        for partition, row in enumerate(every.tolist())
    ]


def _octets(number: int) -> list[int]:
    return list(number.to_bytes(8, "big"))
