"""Object stores: calls that end in time, and files in few requests.

A store takes tens of milliseconds for each request and has it paid. So nothing asks for the size
of a file first: manifests know it, or the first request tells it by what it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any, BinaryIO

from embedmill.pipeline.errors import EmbedmillError, MachineError
from embedmill.pipeline.store.store_errors import (
    codes_of,
    kind_of,
    no_answer,
    no_bucket,
    store_error,
)

__all__ = [
    "BLOCK",
    "DEADLINE",
    "RECENT",
    "ObjectStore",
    "default_deadline",
    "is_object_store",
    "set_deadline",
]

BLOCK = 8 << 20  # bytes of one ranged read; a file up to this size is one request
DEADLINE = 60.0  # seconds

# What fsspec calls the stores whose clients read ranges and create a file only if it is not there.
_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
_PARALLEL = 4  # blocks of one file that are read at once
_PART = 16 << 20  # bytes of a part of a large file that is written
_UPLOADS: dict[str, dict[str, Any]] = {
    "s3": {"chunksize": _PART, "max_concurrency": _PARALLEL},
    "s3a": {"chunksize": _PART, "max_concurrency": _PARALLEL},
    "gs": {"chunksize": _PART},
    "gcs": {"chunksize": _PART},
}
_LISTINGS = {"exists", "find", "info", "isdir", "ls"}
_PAUSE, _LONGEST_PAUSE = 0.5, 8.0  # seconds between two attempts
_TICK = 1.0  # seconds between two looks at the progress of an upload

_deadline = DEADLINE


def set_deadline(seconds: float) -> None:
    """Set the deadline of calls that this process makes from now on."""
    global _deadline
    _deadline = seconds


def default_deadline() -> float:
    """Seconds that a call may take with all attempts, unless its caller says otherwise."""
    return _deadline


class ObjectStore:
    """Files on an asynchronous file system of fsspec, by their names there.

    All methods raise MachineError where the store fails, and FileNotFoundError and
    FileExistsError as files do.

    Args:
        fs: the file system.
        url: of the folder, for errors.
        deadline: seconds that a call may take, all attempts together; of a large file this holds
            for each piece.
    """

    def __init__(self, fs: Any, url: str, deadline: float) -> None:
        self.fs = fs
        self.url = url
        self.deadline = deadline

    def call(
        self, method: Any, *args: Any, progress: _Progress | None = None, **options: Any
    ) -> Any:
        """What a coroutine function returns, called again while the store is busy.

        Args:
            method: it, or the name of one of the file system.
            args: its arguments.
            progress: counts what has been done; the deadline begins anew when it changes.
            options: more arguments.
        """
        function = getattr(self.fs, method) if isinstance(method, str) else method
        end, pause = time.monotonic() + self.deadline, _PAUSE
        while True:
            try:
                return self._once(function(*args, **options), progress, end)
            except (EmbedmillError, FileExistsError, IsADirectoryError, NotADirectoryError):
                raise
            except Exception as error:
                kind = kind_of(error)
                if isinstance(error, FileNotFoundError) and kind != "bucket":
                    raise
                if kind != "busy" or time.monotonic() + pause > end:
                    raise self._explained(error) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _once(self, coroutine: Any, progress: _Progress | None, end: float) -> Any:
        future, done = asyncio.run_coroutine_threadsafe(coroutine, self.fs.loop), 0
        try:
            while wait([future], timeout=max(0.0, min(_TICK, end - time.monotonic()))).not_done:
                if progress is not None and progress.done != done:
                    done, end = progress.done, time.monotonic() + self.deadline
                if time.monotonic() >= end:
                    raise no_answer(self.url, self.deadline)
            return future.result()
        finally:
            future.cancel()

    def _explained(self, error: Exception) -> MachineError:
        what = f"{type(error).__name__}: {error}"
        return store_error(error, self.url) or MachineError(what, where=self.url)

    def read(self, name: str, size: int | None = None) -> bytes:
        """All bytes of a file.

        Args:
            name: of the file.
            size: its bytes, where known.
        """
        if size is not None:
            return self.range(name, 0, size)
        head = self._head(name)
        if len(head) < BLOCK:
            return head
        return head + self.range(name, BLOCK, self.size(name))

    def open(self, name: str, size: int | None = None) -> BinaryIO:
        """A file for reading, seekable; a small one is read at once."""
        if size is None:
            head = self._head(name)
            if len(head) < BLOCK:
                return io.BytesIO(head)
            size = self.size(name)
        if size <= BLOCK:
            return io.BytesIO(self.range(name, 0, size))
        return io.BufferedReader(_RangedFile(self, name, size), BLOCK)

    def size(self, name: str) -> int:
        """Bytes of a file, in a request of its own."""
        return int(self.call("_info", name)["size"])

    def range(self, name: str, start: int, end: int) -> bytes:
        """Bytes of a file from `start` up to `end`, several blocks at once."""
        pieces = []
        for first in range(start, end, _PARALLEL * BLOCK):
            last = min(end, first + _PARALLEL * BLOCK)
            pieces += self.call(self._blocks, name, first, last)
        if not pieces and not self.has(name):
            raise FileNotFoundError(name)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _blocks(self, name: str, start: int, end: int) -> list[bytes]:
        starts = range(start, end, BLOCK)
        reads = (self.fs._cat_file(name, start=s, end=min(end, s + BLOCK)) for s in starts)
        return list(await asyncio.gather(*reads))

    def _head(self, name: str) -> bytes:
        """The first block of a file."""
        return bytes(self.call(self._first, name, BLOCK))

    async def _first(self, name: str, size: int) -> bytes:
        try:
            return bytes(await self.fs._cat_file(name, start=0, end=size))
        except FileNotFoundError:
            raise
        except Exception as error:
            if not _out_of_range(error):
                raise
            return b""  # no range of an empty file can be had

    def has(self, name: str) -> bool:
        """Whether a file is there, in one request; `exists` is true of folders, too."""
        try:
            self.call(self._first, name, 1)
        except FileNotFoundError:
            return False
        return True

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, replacing any."""
        self._put("_pipe_file", name, data)

    def upload(self, path: str, name: str) -> None:
        """Write a file from a local disk, replacing any."""
        protocol = self.url.partition("://")[0]
        progress, options = _Progress(), _UPLOADS.get(protocol, {})
        self._put("_put_file", path, name, callback=progress, progress=progress, **options)

    def create(self, name: str, data: bytes) -> None:
        """Write a small file; FileExistsError where one is there already."""
        self._put(self._created, name, data)

    async def _created(self, name: str, data: bytes) -> None:
        try:
            await self.fs._pipe_file(name, data, mode="create")
        except OSError as error:
            if not _is_refused(error):
                raise
            raise FileExistsError(name) from error

    def _put(self, method: Any, *args: Any, **options: Any) -> None:
        try:
            self.call(method, *args, **options)
        except FileNotFoundError:  # of what is written only the bucket can be missing
            raise no_bucket(self.url) from None

    def rm_file(self, name: str) -> None:
        """Remove a file; FileNotFoundError where there is none, or nothing."""
        self.call("_rm_file", name)

    def rm_files(self, names: list[str]) -> None:
        """Remove files in one request for up to a thousand; those that are gone do not matter."""
        with self._or_one_by_one(lambda: names):
            self.call("_rm", names)

    def rm(self, folder: str, recursive: bool = True) -> None:
        """Remove all files below a folder."""
        with self._or_one_by_one(lambda: self.call("_find", folder)):
            self.call("_rm", folder, recursive=recursive)

    @contextlib.contextmanager
    def _or_one_by_one(self, names: Callable[[], list[str]]) -> Iterator[None]:
        """Remove files in a request for each where the store refuses one for many.

        Older servers want a header for that which clients send no more.
        """
        try:
            yield
        except MachineError as error:
            if "MissingContentMD5" not in codes_of(error):
                raise
            for name in names():
                with contextlib.suppress(FileNotFoundError):
                    self.rm_file(name)

    def __getattr__(self, name: str) -> Any:
        """Listings and what else is read of a file system."""
        if name in _LISTINGS:
            return lambda *args, **options: self.call(f"_{name}", *args, **options)
        return getattr(self.fs, name)


class _RangedFile(io.RawIOBase):
    """A large file, read in ranges as it is asked for."""

    def __init__(self, store: ObjectStore, name: str, size: int) -> None:
        self._store = store
        self._name = name
        self._size = size
        self._at = 0

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or as much of it as there is left."""
        end = min(self._size, self._at + len(buffer))
        if end <= self._at:
            return 0
        data = self._store.range(self._name, self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        """All that is left, which would otherwise be read in many small pieces."""
        if self._at >= self._size:
            return b""
        data = self._store.range(self._name, self._at, self._size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place in the file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Where the next byte is read from."""
        return self._at

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True


class _Progress:
    """A callback of fsspec that counts the bytes which were written."""

    def __init__(self) -> None:
        self.done = 0

    def set_size(self, size: int) -> None:
        """Nothing: the size is known."""

    def relative_update(self, more: int = 1) -> None:
        """So many bytes more."""
        self.done += more

    def absolute_update(self, done: int) -> None:
        """So many bytes in all."""
        self.done = done


class _RecentFiles:
    """Small files of object stores that this process has read or written, by sha256."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, sha256: str) -> bytes | None:
        """A file's bytes, or None."""
        with self._lock:
            data = self._files.get(sha256)
            if data is not None:
                self._files.move_to_end(sha256)
            return data

    def keep(self, sha256: str, data: bytes) -> None:
        """Keep a file, unless it is large, in place of those that were not used for longest."""
        if len(data) > self._limit // 16:
            return
        with self._lock:
            if sha256 not in self._files:
                self._files[sha256] = data
                self._bytes += len(data)
            while self._bytes > self._limit:
                self._bytes -= len(self._files.popitem(last=False)[1])


RECENT = _RecentFiles(64 << 20)


def is_object_store(fs: Any) -> bool:
    """Whether an fsspec file system is an object store that `ObjectStore` can use."""
    protocols = fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
    return bool(_PROTOCOLS & set(protocols)) and bool(getattr(fs, "async_impl", False))


def _out_of_range(error: BaseException) -> bool:
    """Whether a range was asked for of a file that does not reach so far."""
    return bool({"InvalidRange", "416"} & set(codes_of(error)))


def _is_refused(error: BaseException) -> bool:
    """Whether a store has refused a write for its condition, which is that there is no such file.

    s3fs says so itself only where the answer names the condition, as that of AWS does and those
    of other stores do not.
    """
    return bool({"PreconditionFailed", "412"} & set(codes_of(error)))
