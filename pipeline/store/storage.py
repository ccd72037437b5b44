"""Bytes on any fsspec URL; the only module that imports fsspec.

Nothing here relies on listing a folder, and nothing a reader sees relies on a rename: a file
is whole or absent under its name (on local disk by a link or a replace of a finished
temporary file, on object stores because a PUT is atomic).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from embedmill.pipeline.errors import ConfigError, EmbedmillError, InputError, MachineError

__all__ = [
    "ExistsError",
    "HashingFile",
    "Source",
    "Storage",
    "find_sources",
    "open_source",
    "stamps",
]

_CHUNK = 4 << 20
_HASHED_BYTES = 256 << 20  # logs up to this size are stamped by their content
_memory_lock = threading.Lock()


class ExistsError(EmbedmillError):
    """Somebody else created the file first."""


class HashingFile:
    """A file opened for writing that counts its bytes and hashes them on the way."""

    def __init__(self, raw: Any, name: str) -> None:
        self._raw = raw
        self._name = name
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Hex digest of what was written so far."""
        return self._sha256.hexdigest()

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        view = memoryview(data).cast("B")
        with _explained(self._name):
            self._raw.write(view)
        self._sha256.update(view)
        self.bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Bytes written."""
        return self.bytes

    def flush(self) -> None:
        """Hand buffered bytes to the system."""
        with _explained(self._name):
            self._raw.flush()

    def close(self) -> None:
        """Left to the context manager that opened the file."""

    @property
    def closed(self) -> bool:
        """Whether the file below is closed."""
        return bool(self._raw.closed)

    def readable(self) -> bool:
        """Never."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Never: the hash follows the bytes in order."""
        return False


@dataclass(frozen=True)
class Storage:
    """A folder on an fsspec URL. Picklable: tasks carry it to other processes.

    Every `path` is relative to `root`, with forward slashes, and may not leave it.
    """

    root: str

    def at(self, folder: str) -> Storage:
        """The storage of a folder below this one."""
        return Storage(self.url(folder))

    def url(self, path: str) -> str:
        """Full URL (or local path) of `path`.

        Raises:
            ConfigError: the path leaves the root.
        """
        parts = path.split("/")
        if path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
            raise ConfigError(f"path '{path}' leaves the folder", where=self.root)
        return f"{self.root.rstrip('/')}/{path}"

    @property
    def is_local(self) -> bool:
        """Whether files can be opened by path on this machine."""
        return isinstance(self._fs(self.root)[0], LocalFileSystem)

    def local_path(self, path: str) -> Path:
        """The path on local disk, for memory maps.

        Raises:
            MachineError: the storage is not a local disk.
        """
        fs, name = self._fs(self.url(path))
        if not isinstance(fs, LocalFileSystem):
            raise MachineError("not on a local disk", where=self.url(path))
        return Path(name)

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        fs, name = self._fs(self.url(path))
        with _explained(self.url(path)):
            return bool(fs.exists(name))

    def read(self, path: str) -> bytes:
        """All bytes of a file; FileNotFoundError where there is none."""
        fs, name = self._fs(self.url(path))
        with _explained(self.url(path)):
            return bytes(fs.cat_file(name))

    def open(self, path: str) -> BinaryIO:
        """A seekable file for reading; FileNotFoundError where there is none."""
        fs, name = self._fs(self.url(path))
        with _explained(self.url(path)):
            return fs.open(name, "rb")  # type: ignore[no-any-return]

    def write(self, path: str, data: bytes) -> HashingFile:
        """Write a whole file, replacing any; returns its hash and size."""
        with self.writer(path) as out:
            out.write(data)
        return out

    @contextlib.contextmanager
    def writer(self, path: str) -> Iterator[HashingFile]:
        """A file for writing in order; under its name only when the block ends well."""
        url = self.url(path)
        fs, name = self._fs(url)
        with _explained(url):
            if isinstance(fs, LocalFileSystem):
                with _temporary(name) as (raw, part):
                    yield HashingFile(raw, url)
                    _flush(raw)
                    os.replace(part, name)
            else:
                # Collected locally first: closing a remote file after an error would upload half.
                with tempfile.TemporaryFile() as raw:
                    yield HashingFile(raw, url)
                    raw.seek(0)
                    with fs.open(name, "wb") as remote:
                        shutil.copyfileobj(raw, remote, _CHUNK)

    def create(self, path: str, data: bytes) -> None:
        """Write a whole file that must not exist yet; one of many racers wins.

        Raises:
            ExistsError: the file was there first.
        """
        url = self.url(path)
        fs, name = self._fs(url)
        with _explained(url):
            try:
                if isinstance(fs, LocalFileSystem):
                    with _temporary(name) as (raw, part):
                        raw.write(data)
                        _flush(raw)
                        os.link(part, name)
                elif isinstance(fs, MemoryFileSystem):
                    with _memory_lock:
                        if fs.exists(name):
                            raise FileExistsError(name)
                        fs.pipe_file(name, data)
                else:
                    with fs.open(name, "xb") as raw:
                        raw.write(data)
            except FileExistsError:
                raise ExistsError("exists already", where=url) from None

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        fs, name = self._fs(self.url(path))
        with _explained(self.url(path)), contextlib.suppress(FileNotFoundError):
            fs.rm_file(name)

    def clear(self) -> None:
        """Remove the folder with all that is in it; for scratch that nobody reads."""
        fs, name = self._fs(self.root)
        with _explained(self.root), contextlib.suppress(FileNotFoundError):
            fs.rm(name, recursive=True)

    @staticmethod
    def _fs(url: str) -> tuple[Any, str]:
        try:
            fs, name = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"cannot be opened: {error}", where=url) from None
        return fs, name


@dataclass(frozen=True)
class Source:
    """A raw file: its URL, size in bytes, and a stamp that changes when the file does."""

    url: str
    bytes: int
    stamp: str


def find_sources(pattern: str) -> list[Source]:
    """Raw files that a file, folder, glob or URL names, sorted by URL.

    Folders are walked; names that start with `_` or `.` are left out, as Spark does.

    Raises:
        InputError: nothing is there.
    """
    pattern = os.path.expanduser(pattern)
    fs, name = Storage._fs(pattern)
    with _explained(pattern):
        lacking = "no such file"
        if glob.has_magic(pattern) and not fs.exists(name):
            lacking = "no file is named like this"
            named = fs.glob(name, detail=True)
        elif fs.isdir(name):
            lacking = "no files in this folder"
            named = {n: i for n, i in fs.find(name, detail=True).items() if not _hidden(n, name)}
        else:
            named = {name: fs.info(name)} if fs.exists(name) else {}
        # What the listing tells is enough: to ask for each of thousands of files takes minutes.
        found = [_source(fs, n, i) for n, i in named.items() if _is_file(fs, n, i)]
    if not found:
        raise InputError(
            lacking, where=f"events.paths '{pattern}'", todo="Check the path in the config"
        )
    return sorted(found, key=lambda s: s.url)


def open_source(url: str) -> BinaryIO:
    """A raw file for reading in bytes, as stored (not decompressed)."""
    fs, name = Storage._fs(url)
    with _explained(url):
        return fs.open(name, "rb")  # type: ignore[no-any-return]


def _source(fs: Any, name: str, info: dict[str, Any]) -> Source:
    stamp = next(
        (str(info[k]) for k in ("ETag", "etag", "mtime", "last_modified", "created") if k in info),
        "",
    )
    return Source(fs.unstrip_protocol(name), int(info["size"] or 0), stamp)


def _is_file(fs: Any, name: str, info: dict[str, Any]) -> bool:
    if info["type"] in ("file", "directory"):
        return bool(info["type"] == "file")
    return bool(fs.isfile(name))  # a link


def _hidden(name: str, folder: str) -> bool:
    below = name[len(folder) :].strip("/")
    return any(part.startswith(("_", ".")) for part in below.split("/"))


@contextlib.contextmanager
def _temporary(name: str) -> Iterator[tuple[BinaryIO, str]]:
    """A new file beside `name`, gone afterwards unless it was moved."""
    try:
        os.makedirs(os.path.dirname(name), exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", error.filename) from None
    part = f"{name}.{uuid.uuid4().hex}.part"
    try:
        with open(part, "xb", buffering=1 << 20) as raw:
            yield raw, part
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _flush(raw: BinaryIO) -> None:
    raw.flush()
    os.fsync(raw.fileno())


_SENTENCES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "Free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space and run the same command again"),
    errno.EROFS: ("the file system is read-only", "Choose another run.root"),
    errno.EACCES: ("permission denied", "Choose another run.root or change its permissions"),
    errno.EPERM: ("permission denied", "Choose another run.root or change its permissions"),
    errno.ENOTDIR: ("a file stands where a folder should be", "Move it or choose another run.root"),
}


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn what the system says into one sentence for a person."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        what, todo = _SENTENCES.get(error.errno or 0, (str(error), ""))
        raise MachineError(what, where=where, todo=todo) from error


def stamps(sources: list[Source]) -> dict[str, str]:
    """A stamp per raw file, for fingerprints: its sha256, or size and stamp where it is large.

    Reading the bytes of small logs makes a copy or a fresh checkout of the same file equal.
    """
    small = sum(s.bytes for s in sources) <= _HASHED_BYTES
    return {s.url: _sha256(s) if small else f"{s.bytes} bytes, {s.stamp}" for s in sources}


def _sha256(source: Source) -> str:
    sha256 = hashlib.sha256()
    with open_source(source.url) as raw, _explained(source.url):
        while chunk := raw.read(_CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()
