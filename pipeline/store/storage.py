"""Bytes on any fsspec URL; the only module that imports fsspec.

Nothing here relies on listing a folder, and nothing a reader sees relies on a rename: a file
is whole or absent under its name (on local disk by a link or a replace of a finished
temporary file, on object stores because a PUT is atomic).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import get_filesystem_class, url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from embedmill.pipeline.errors import ArtifactError, ConfigError, EmbedmillError, MachineError
from embedmill.pipeline.store.object_store import (
    BLOCK,
    RECENT,
    ObjectStore,
    default_deadline,
    is_object_store,
)
from embedmill.pipeline.store.store_errors import store_error

__all__ = [
    "ExistsError",
    "HashingFile",
    "Storage",
    "explained",
    "file_system",
    "opened",
]

_CHUNK = 4 << 20
# Protocols of URLs such as "zip://a.csv::s3://bucket/logs.zip", in which "::" joins two URLs.
_WRAPPERS = ("blockcache", "dir", "filecache", "libarchive", "simplecache", "tar", "zip")
_memory_lock = threading.Lock()
# The name of a file in the making, beside that of the whole one.
_PART = re.compile(r"\.[0-9a-f]{32}\.part$")


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

    Every `path` is relative to `root`, with forward slashes, and may not leave it. On a local disk
    nothing is written or removed where links lead out of the folder in which `at` was first called.

    Attributes:
        root: the folder.
        deadline: seconds that a call of an object store may take, all attempts together.
    """

    root: str
    deadline: float = field(default_factory=default_deadline, compare=False, repr=False)
    _outermost: str = field(default="", compare=False, repr=False)

    def at(self, folder: str) -> Storage:
        """The storage of a folder below this one."""
        return replace(self, root=self.url(folder), _outermost=self._outermost or self.root)

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

    @property
    def is_object_store(self) -> bool:
        """Whether each read is a request to a server."""
        return isinstance(file_system(self.root)[0], ObjectStore)

    def local_path(self, path: str) -> Path:
        """The path on local disk, for memory maps.

        Raises:
            MachineError: the storage is not a local disk.
        """
        fs, name = file_system(self.url(path))
        if not isinstance(fs, LocalFileSystem):
            raise MachineError("not on a local disk", where=self.url(path))
        return Path(name)

    def refuse_links(self, path: str) -> None:
        """Raise ArtifactError where links lead from the outermost folder to a folder outside of it.

        Args:
            path: of a file that is to be written or removed. It may be a link itself, which is
                then replaced or removed.
        """
        fs, name = file_system(self.url(path))
        if not isinstance(fs, LocalFileSystem):
            return
        allowed = os.path.realpath(file_system(self._outermost or self.root)[1])
        folder = os.path.realpath(os.path.dirname(name.rstrip("/")) if path else name)
        if folder != allowed and not folder.startswith(f"{allowed.rstrip('/')}/"):
            raise ArtifactError(
                f"a link leads out of the run, to {folder}; nothing is written or removed there",
                where=self.url(path),
                todo="Remove the link, or put what it leads to in its place",
            )

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        fs, name = self._find(path)
        with explained(self.url(path)):
            return bool(fs.has(name) if isinstance(fs, ObjectStore) else fs.exists(name))

    def read(self, path: str, size: int | None = None, sha256: str = "") -> bytes:
        """All bytes of a file; FileNotFoundError where there is none.

        Args:
            path: of the file.
            size: its bytes where they are known, which saves an object store a request.
            sha256: its digest where known: a small file of an object store that this process has
                met before is not asked for again.
        """
        fs, name = self._find(path)
        with explained(self.url(path)):
            if not isinstance(fs, ObjectStore):
                return bytes(fs.cat_file(name))
            return _recent(fs, name, size, sha256) or fs.read(name, size)

    def open(self, path: str, size: int | None = None, sha256: str = "") -> BinaryIO:
        """A seekable file for reading; FileNotFoundError where there is none. Args as of `read`."""
        fs, name = self._find(path)
        with explained(self.url(path)):
            known = _recent(fs, name, size, sha256) if isinstance(fs, ObjectStore) else None
            return opened(fs, name, size) if known is None else io.BytesIO(known)

    def _find(self, path: str) -> tuple[Any, str]:
        return file_system(self.url(path), self.deadline)

    def write(self, path: str, data: bytes) -> HashingFile:
        """Write a whole file, replacing any; returns its hash and size."""
        with self.writer(path) as out:
            out.write(data)
        return out

    @contextlib.contextmanager
    def writer(self, path: str) -> Iterator[HashingFile]:
        """A file for writing in order; under its name only when the block ends well."""
        url = self.url(path)
        fs, name = self._find(path)
        with explained(url):
            if isinstance(fs, LocalFileSystem):
                self.refuse_links(path)
                with _temporary(name) as (raw, part):
                    yield HashingFile(raw, url)
                    _flush(raw)
                    os.replace(part, name)
            elif isinstance(fs, ObjectStore):
                with tempfile.NamedTemporaryFile() as raw:
                    out = HashingFile(raw, url)
                    yield out
                    raw.flush()
                    _store(fs, name, raw.name, out)
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
        fs, name = self._find(path)
        with explained(url):
            try:
                if isinstance(fs, LocalFileSystem):
                    self.refuse_links(path)
                    with _temporary(name) as (raw, part):
                        raw.write(data)
                        _flush(raw)
                        os.link(part, name)
                elif isinstance(fs, MemoryFileSystem):
                    with _memory_lock:
                        if fs.exists(name):
                            raise FileExistsError(name)
                        fs.pipe_file(name, data)
                elif isinstance(fs, ObjectStore):
                    fs.create(name, data)
                else:
                    with fs.open(name, "xb") as raw:
                        raw.write(data)
            except FileExistsError:
                raise ExistsError("exists already", where=url) from None

    def sync_folders(self, paths: Iterable[str]) -> None:
        """Make the names of files durable on a local disk, as their bytes are when they are closed.

        Without it a power cut may leave a file without a name: of some file systems, a folder is
        written later than the files in it.

        Args:
            paths: of files. Their folders are synced, and all above them up to the outermost one.
        """
        if not self.is_local:
            return
        top = file_system(self._outermost or self.root)[1].rstrip("/")
        folders = {os.path.dirname(str(self.local_path(path))) for path in paths}
        for folder in list(folders):
            while folder != top and folder.startswith(f"{top}/"):
                folder = os.path.dirname(folder)
                folders.add(folder)
        for folder in sorted(folders, key=len, reverse=True):
            with explained(folder):
                _sync_folder(folder)

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        self.refuse_links(path)
        fs, name = self._find(path)
        with explained(self.url(path)), contextlib.suppress(FileNotFoundError):
            fs.rm_file(name)

    def remove_all(self, paths: list[str]) -> None:
        """Remove files that nobody reads any more; on an object store in few requests."""
        fs, _ = self._find("")
        if not isinstance(fs, ObjectStore):
            for path in paths:
                self.remove(path)
            return
        with explained(self.root), contextlib.suppress(FileNotFoundError):
            fs.rm_files([self._find(path)[1] for path in paths])

    def take(self, path: str, other: Storage, entry_bytes: int) -> None:
        """Have a file of another folder here, too: on a local disk as the same file (a link).

        Args:
            path: of the file in both folders; it is not here yet, or is replaced.
            other: the folder that has it.
            entry_bytes: its size.
        """
        url = self.url(path)
        fs, name = self._find(path)
        if isinstance(fs, LocalFileSystem) and other.is_local:
            self.refuse_links(path)
            os.makedirs(os.path.dirname(name), exist_ok=True)
            with explained(url), contextlib.suppress(FileExistsError):
                os.link(other.local_path(path), name)
            return
        with other.open(path, entry_bytes) as raw, self.writer(path) as out:
            while data := raw.read(_CHUNK):
                out.write(data)

    def files(self) -> list[str]:
        """Paths of all files below, in order; for what may remove or look at any of them."""
        fs, name = file_system(self.root, self.deadline)
        with explained(self.root):
            try:
                found = fs.find(name)
            except (FileNotFoundError, NotADirectoryError):
                return []
        start = f"{name.rstrip('/')}/"
        return sorted(path.removeprefix(start) for path in found if path.startswith(start))

    def remove_parts(self) -> None:
        """Remove, on a local disk, files that were never finished: their writers were killed."""
        if not self.is_local:
            return
        for path in self.files():
            if _PART.search(path):
                with contextlib.suppress(ArtifactError):  # a link leads elsewhere: not ours
                    self.remove(path)

    def folders(self) -> list[str]:
        """Names of the folders directly below, for people to look at; none where there is none."""
        fs, name = file_system(self.root)
        with explained(self.root):
            try:
                found = fs.ls(name, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        paths = (one["name"].rstrip("/") for one in found if one["type"] == "directory")
        return sorted(path.rpartition("/")[2] for path in paths)

    def clear(self) -> None:
        """Remove the folder with all that is in it; for scratch that nobody reads."""
        self.refuse_links("")
        fs, name = file_system(self.root, self.deadline)
        with explained(self.root), contextlib.suppress(FileNotFoundError):
            fs.rm(name, recursive=True)


def file_system(url: str, deadline: float | None = None) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the URL's name there; an `ObjectStore` where it is one.

    Args:
        url: of a file or folder.
        deadline: seconds that a call of an object store may take; None for the process's own.

    Raises:
        ConfigError: there is no such protocol.
    """
    try:
        if "::" in url and not url.startswith(_WRAPPERS):  # fsspec would take it for two URLs
            protocol, separator, _ = url.partition("://")
            kind = get_filesystem_class(protocol if separator else "file")
            fs, name = kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)
        else:
            fs, name = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"cannot be opened: {error}", where=url) from None
    except Exception as error:
        raise store_error(error, url) or error from error
    if is_object_store(fs):
        fs = ObjectStore(fs, url, default_deadline() if deadline is None else deadline)
    return fs, name


def opened(fs: Any, name: str, size: int | None = None) -> BinaryIO:
    """A file of a file system for reading.

    Args:
        fs: the file system, of `file_system`.
        name: the file's name there.
        size: its bytes, where known.
    """
    return fs.open(name, size) if isinstance(fs, ObjectStore) else fs.open(name, "rb")


def _recent(store: ObjectStore, name: str, size: int | None, sha256: str) -> bytes | None:
    """A small file of an object store, from memory where it was met before; None if large."""
    if not sha256 or size is None or size > BLOCK:
        return None
    data = RECENT.find(sha256)
    if data is None:
        data = store.read(name, size)
        if hashlib.sha256(data).hexdigest() == sha256:
            RECENT.keep(sha256, data)
    return data


def _store(store: ObjectStore, name: str, path: str, out: HashingFile) -> None:
    """Write what was collected at a path into an object store."""
    if out.bytes > BLOCK:
        store.upload(path, name)
        return
    data = Path(path).read_bytes()
    store.write(name, data)
    RECENT.keep(out.sha256, data)


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


def _sync_folder(folder: str) -> None:
    """Write a folder's names to the disk, where its file system can sync folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.ENOENT):
            raise


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
        found = store_error(error, where) if error.errno not in _SENTENCES else None
        what, todo = _SENTENCES.get(error.errno or 0, (str(error), ""))
        raise found or MachineError(what, where=where, todo=todo) from error
    except EmbedmillError:
        raise
    except Exception as error:
        found = store_error(error, where)
        if found is None:
            raise
        raise found from error
