"""Where tables live: in memory, or in files of a local disk that are mapped into memory.

A memory-mapped table is an ordinary tensor: the system reads the pages of the rows that are
accessed, and writes changed pages back when memory is short. The most used rows change in every
step, so their pages would be written again and again; `keep_in_memory` takes them out of the
file. Rows are ordered by count, so the most used ones are at the head of each partition.

The files have no names: whichever way a worker ends, the system removes them.

Legend: N rows, D columns.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from embedmill.pipeline.errors import MachineError

__all__ = ["Allocator", "RowPrefetcher", "keep_in_memory", "zeros_in_files", "zeros_in_memory"]

_MAP_FIXED = 0x10  # on Linux and macOS
_MAX_RANGES = 4096  # of a tensor; Linux gives a process 65,530 mappings by default
_PARALLEL_READS = 32

# Makes a float32 tensor of zeros, [rows, columns].
Allocator = Callable[[int, int], Tensor]


def zeros_in_memory(rows: int, width: int, device: torch.device | None = None) -> Tensor:
    """Zeros in host memory, or in that of a device, float32 [rows, width]."""
    return torch.zeros((rows, width), device=device)


def zeros_in_files(folder: Path) -> Allocator:
    """An allocator of zeros in files of a local folder, which is created if missing."""
    return partial(_zeros_in_file, folder)


def _zeros_in_file(folder: Path, rows: int, width: int) -> Tensor:
    """Zeros in a file of their own, float32 [rows, width].

    Raises:
        MachineError: the folder cannot be used, or the disk is full.
    """
    size = rows * width * 4
    if not size:
        return zeros_in_memory(rows, width)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Without reserved blocks, a full disk would end the worker at a later write (SIGBUS).
            _reserve(file.fileno(), size)
            view = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise _cannot_allocate(folder, size, error) from None
    with contextlib.suppress(AttributeError, OSError):
        # Rows are accessed at random: reading ahead would evict pages that are in use.
        view.madvise(mmap.MADV_RANDOM)
    return torch.frombuffer(view, dtype=torch.float32).view(rows, width)


def keep_in_memory(table_ND: Tensor, spans: Sequence[slice]) -> int:
    """Keep ranges of rows of a memory-mapped table of zeros in memory from now on.

    The tensor stays one: anonymous memory is mapped over the whole pages of each range.

    Returns:
        bytes that are now in memory; 0 where the system cannot do it, or where there are more
        ranges than a process may map.
    """
    if len(spans) > _MAX_RANGES:
        return 0
    base, row_bytes, kept = table_ND.data_ptr(), table_ND.shape[1] * 4, 0
    for span in spans:
        first = -(-(base + span.start * row_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        size = (base + span.stop * row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if size > 0 and _map_anonymous(first, size):
            kept += size
    return kept


def _map_anonymous(address: int, size: int) -> bool:
    """Replace pages of this process by new memory; Python's mmap takes no address."""
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return False
    system_mmap = ctypes.CDLL(None, use_errno=True).mmap
    system_mmap.restype = ctypes.c_void_p
    system_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = _MAP_FIXED | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    mapped_at = system_mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    return bool(mapped_at == address)


class RowPrefetcher:
    """Reads rows of memory-mapped tensors into memory before they are needed.

    A row that is not in memory costs a disk access; one after the other they would take most
    of a step. Many threads wait for the disk at the same time, while the step before runs.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._flat = [(tensor.view(-1), tensor.shape[1]) for tensor in tensors]
        self._threads = ThreadPoolExecutor(_PARALLEL_READS, thread_name_prefix="prefetch")

    def prefetch(self, rows_N: Tensor) -> list[Future[None]]:
        """Start to read rows; returns futures to wait for."""
        parts = torch.unique(rows_N).chunk(_PARALLEL_READS)
        return [self._threads.submit(self._touch, part) for part in parts]

    def _touch(self, rows_N: Tensor) -> None:
        for flat, width in self._flat:
            first_N = rows_N * width
            flat[first_N].sum()
            flat[first_N + (width - 1)].sum()  # a row may continue on the next page


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:  # macOS
        os.truncate(file, size)


def _cannot_allocate(folder: Path, size: int, error: OSError) -> MachineError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    what = f"has no room for a table of {size / 1e9:.1f} GB" if full else f"{error.strerror}"
    todo = "Free some space, or set train.scratch to a folder on another local disk"
    return MachineError(what, where=str(folder), todo=todo)
