"""Files by partition: each worker writes those that it owns, and all come to know of all."""

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

__all__ = ["PartWriter", "entries_of"]


class PartWriter(threading.Thread):
    """Writes tensors to their paths, in a thread (`start`) or at once (`run`)."""

    def __init__(
        self, storage: Storage, paths: list[str], parts: Iterable[dict[str, Tensor]]
    ) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self._storage = storage
        self._paths = paths
        self._parts = parts
        self._written: list[HashingFile] = []
        self._error: Exception | None = None

    def run(self) -> None:
        """Write them all, in this thread."""
        try:
            for path, part in zip(self._paths, self._parts, strict=True):
                self._written.append(self._storage.write(path, save_tensors(part)))
        except Exception as error:  # raised where the result is asked for
            self._error = error

    def result(self) -> list[HashingFile]:
        """Wait, and raise or return what came of it."""
        if self.is_alive():
            self.join()
        if self._error is not None:
            raise self._error
        return self._written


def entries_of(
    written: list[HashingFile],
    layout: Layout,
    group: Group,
    path: Callable[[int], str],
    rows: Callable[[int], int] | None,
) -> list[FileEntry]:
    """Entries of the files of all partitions, of which each worker wrote its own.

    Args:
        written: the files of the owned partitions, rising.
        layout: who owns what.
        group: the workers.
        path: a partition's file.
        rows: rows in it, or None.
    """
    digests = [list(bytes.fromhex(one.sha256)) + _octets(one.bytes) for one in written]
    own = torch.tensor(digests, dtype=torch.uint8).reshape(len(written), 40)
    every = group.by_partition(own.to(group.device), layout).cpu()
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
