"""Bytes on any fsspec URL; the only module that imports fsspec.

Nothing here relies on listing a folder, and nothing a reader sees relies on a rename: a file
is whole or absent under its name (on local disk by a link or a replace of a finished
temporary file, on object stores because a PUT is atomic).
"""

from __future__ import annotations

import contextlib
import errno
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

from fsspec.core import get_filesystem_class, url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from embedmill.pipeline.errors import ConfigError, EmbedmillError, MachineError

__all__ = [
    "ExistsError",
    "HashingFile",
    "Storage",
    "explained",
    "file_system",
]

_CHUNK = 4 << 20
# Protocols of URLs such as "zip://a.csv::s3://bucket/logs.zip", in which "::" joins two URLs.
_WRAPPERS = ("blockcache", "dir", "filecache", "libarchive", "simplecache", "tar", "zip")
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
        with explained(self._name):
            self._raw.write(view)
        self._sha256.update(view)
        self.bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Bytes written."""
        return self.bytes

    def flush(self) -> None:
        """Hand buffered bytes to the system."""
        with explained(self._name):
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

    def below(self, folder: str) -> Storage:
        """As `at`, and this storage itself where `folder` is empty."""
        return self.at(folder) if folder else self

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
        return isinstance(file_system(self.root)[0], LocalFileSystem)

    def local_path(self, path: str) -> Path:
        """The path on local disk, for memory maps.

        Raises:
            MachineError: the storage is not a local disk.
        """
        fs, name = file_system(self.url(path))
        if not isinstance(fs, LocalFileSystem):
            raise MachineError("not on a local disk", where=self.url(path))
        return Path(name)

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        fs, name = file_system(self.url(path))
        with explained(self.url(path)):
            return bool(fs.exists(name))

    def read(self, path: str) -> bytes:
        """All bytes of a file; FileNotFoundError where there is none."""
        fs, name = file_system(self.url(path))
        with explained(self.url(path)):
            return bytes(fs.cat_file(name))

    def open(self, path: str) -> BinaryIO:
        """A seekable file for reading; FileNotFoundError where there is none."""
        fs, name = file_system(self.url(path))
        with explained(self.url(path)):
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
        fs, name = file_system(url)
        with explained(url):
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
        fs, name = file_system(url)
        with explained(url):
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
        fs, name = file_system(self.url(path))
        with explained(self.url(path)), contextlib.suppress(FileNotFoundError):
            fs.rm_file(name)

    def clear(self) -> None:
        """Remove the folder with all that is in it; for scratch that nobody reads."""
        fs, name = file_system(self.root)
        with explained(self.root), contextlib.suppress(FileNotFoundError):
            fs.rm(name, recursive=True)


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the URL's name there.

    Raises:
        ConfigError: there is no such protocol.
    """
    try:
        if "::" in url and not url.startswith(_WRAPPERS):  # fsspec would take it for two URLs
            protocol, separator, _ = url.partition("://")
            kind = get_filesystem_class(protocol if separator else "file")
            return kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)
        fs, name = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"cannot be opened: {error}", where=url) from None
    return fs, name


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
def explained(where: str) -> Iterator[None]:
    """Turn what the system says into one sentence for a person, as a MachineError."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        what, todo = _SENTENCES.get(error.errno or 0, (str(error), ""))
        raise MachineError(what, where=where, todo=todo) from error
