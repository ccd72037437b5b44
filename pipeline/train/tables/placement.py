"""Where tables live: in memory, or in files of a local disk that are mapped into it.

A mapped table is an ordinary tensor: the system reads the pages of rows that are asked for and
writes changed ones back when memory is short. Short of memory it writes all that have changed,
and the most used rows change in every step; so these are held back (`hold`). Rows are ordered
by count: the most used ones are the heads of the partitions, each a range of pages of its own.

The files have no names: a worker that ends, however it ends, leaves nothing behind.

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

__all__ = ["Ahead", "Place", "hold", "in_files", "in_memory"]

_MAP_FIXED = 0x10  # on Linux and macOS
_RANGES = 4096  # of a tensor; Linux gives a process 65,530 by default
_AT_ONCE = 32  # reads that a disk is given together

# Makes a float32 tensor of zeros, [N, D].
Place = Callable[[int, int], Tensor]


def in_memory(rows: int, width: int, device: torch.device | None = None) -> Tensor:
    """Zeros in memory, or in that of a device, float32 [rows, width]."""
    return torch.zeros((rows, width), device=device)


def in_files(folder: Path) -> Place:
    """Zeros in files of a folder on a local disk, which is made where it is missing."""
    return partial(_in_file, folder)


def _in_file(folder: Path, rows: int, width: int) -> Tensor:
    """Zeros in a file of its own, float32 [rows, width].

    Raises:
        MachineError: the folder cannot be used, or the disk has no room.
    """
    size = rows * width * 4
    if not size:
        return in_memory(rows, width)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Without the blocks a full disk would end the worker at some later write (SIGBUS).
            _allocate(file.fileno(), size)
            view = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise _refused(folder, size, error) from None
    with contextlib.suppress(AttributeError, OSError):
        # Rows are read one here, one there: reading ahead would push out what is in use.
        view.madvise(mmap.MADV_RANDOM)
    return torch.frombuffer(view, dtype=torch.float32).view(rows, width)


def hold(table_ND: Tensor, spans: Sequence[slice]) -> int:
    """Take ranges of rows of a mapped table of zeros out of its file, for good.

    The tensor stays one: memory of no file is laid over the whole pages of each range.

    Returns:
        bytes that are held in memory now; 0 where the system cannot do it, or where there are
        more ranges than a process may have.
    """
    if len(spans) > _RANGES:
        return 0
    base, row, held = table_ND.data_ptr(), table_ND.shape[1] * 4, 0
    for span in spans:
        first = -(-(base + span.start * row) // mmap.PAGESIZE) * mmap.PAGESIZE
        size = (base + span.stop * row) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if size > 0 and _overlaid(first, size):
            held += size
    return held


def _overlaid(address: int, size: int) -> bool:
    """Lay new memory over pages that are ours; Python's own mmap cannot say where."""
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return False
    place = ctypes.CDLL(None, use_errno=True).mmap
    place.restype = ctypes.c_void_p
    place.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = _MAP_FIXED | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    there = place(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    return bool(there == address)


class Ahead:
    """Brings rows of mapped tensors into memory before they are needed, many at a time.

    A row that is not there costs a wait for the disk; one after the other they would be most of
    a step. Threads that wait together keep the disk busy while the step before is worked on.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._flat = [(tensor.view(-1), tensor.shape[1]) for tensor in tensors]
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ahead")

    def bring(self, rows_N: Tensor) -> list[Future[None]]:
        """Begin to bring rows; returns what can be waited for."""
        parts = torch.unique(rows_N).chunk(_AT_ONCE)
        return [self._threads.submit(self._touch, part) for part in parts]

    def _touch(self, rows_N: Tensor) -> None:
        for flat, width in self._flat:
            first_N = rows_N * width
            flat[first_N].sum()
            flat[first_N + (width - 1)].sum()  # it may lie on the next page


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:  # macOS
        os.truncate(file, size)


def _refused(folder: Path, size: int, error: OSError) -> MachineError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    what = f"has no room for a table of {size / 1e9:.1f} GB" if full else f"{error.strerror}"
    todo = "Free some space, or set train.scratch to a folder on another local disk"
    return MachineError(what, where=str(folder), todo=todo)
