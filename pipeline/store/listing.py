"""Listing folders of raw files, on a local disk through links, and on any other fsspec store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.store.object_store import ObjectStore
from embedmill.pipeline.store.table_folders import refuse_tables_among

__all__ = ["Entry", "Lister", "is_hidden"]

_THREADS = 16  # each lists one folder of an object store at a time
_STAMPS = ("ETag", "etag", "mtime", "last_modified", "created")
# Written beside data: checksums, files that are being copied, folders of object stores.
_MARKERS = (".crc", "._COPYING_", "_$folder$")


@dataclass(frozen=True)
class Entry:
    """A file or folder: its path on the file system, size and stamp.

    Attributes:
        path: of the file.
        is_folder: whether it is a folder, or a link to one.
        bytes: size of a file.
        stamp: changes when the file does.
        linked: whether a link leads to it.
    """

    path: str
    is_folder: bool
    bytes: int = 0
    stamp: str = ""
    linked: bool = False

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of a log's: hidden, or a marker.

    These are names that begin with `.` or `_` (`_SUCCESS`, `_temporary`, `._SUCCESS.crc`), but
    not a Hive folder such as `_day=2026-11-24`, as Spark has it; and checksums.
    """
    return (
        name.startswith(".")
        or (name.startswith("_") and "=" not in name)
        or (name.endswith(_MARKERS))
    )


class Lister:
    """Lists folders of a file system."""

    def __init__(self, fs: Any) -> None:
        self.fs = fs
        self._is_local = "file" in (
            fs.protocol if isinstance(fs.protocol, tuple) else [fs.protocol]
        )

    def find(self, path: str) -> Entry | None:
        """The file or folder at a path; None where there is none."""
        if isinstance(self.fs, ObjectStore):  # one request tells what three would
            try:
                info = self.fs.info(path)
            except FileNotFoundError:
                return None
            return _remote_entry({**info, "name": path})
        if not self.fs.exists(path):
            return None
        if self.fs.isdir(path):
            return Entry(path, is_folder=True)
        if self._is_local:
            return _local_entry(path, os.stat(path), is_folder=False, linked=False)
        return _remote_entry({**self.fs.info(path), "name": path, "type": "file"})

    def walk(self, folder: str, linked: bool = False) -> list[Entry]:
        """The files below a folder.

        Raises:
            InputError: a link is broken or a loop, or the folder is a table or holds one.
        """
        if self._is_local:
            folders = self._folders_below(folder, linked, ())
            return [e for _, entries in folders for e in entries if not e.is_folder]
        # What one listing tells is enough: to ask for each of thousands of folders takes minutes.
        listed = self.fs.find(folder, detail=True)
        refuse_tables_among(self.fs, listed)
        below = {path: path[len(folder) :].strip("/").split("/") for path in listed}
        return [
            _remote_entry(info)
            for path, info in listed.items()
            if info["type"] == "file" and not any(is_hidden(part) for part in below[path])
        ]

    def match(self, folder: str, parts: Sequence[str]) -> Iterator[Entry]:
        """The files and folders whose path below a folder has parts like these."""
        entries = [Entry(folder, is_folder=True)]
        for number, part in enumerate(parts):
            folders = [entry for entry in entries if entry.is_folder]
            if part == "**":
                if number + 1 == len(parts):
                    break
                entries = [below for one in folders for below in self._folders_of(one)]
            elif part:
                entries = [e for listed in self._list_all(folders) for e in _like(listed, part)]
        yield from entries

    def _folders_of(self, folder: Entry) -> Iterator[Entry]:
        """A folder and those below it."""
        for path, entries in self._folders_below(folder.path, folder.linked, ()):
            if path == folder.path:
                yield folder
            yield from (entry for entry in entries if entry.is_folder)

    def _folders_below(
        self, folder: str, linked: bool, above: tuple[str, ...]
    ) -> Iterator[tuple[str, list[Entry]]]:
        """A folder and those below it, each with what it holds."""
        place = os.path.realpath(folder) if self._is_local else folder
        if place in above:
            raise InputError(
                "a link leads to a folder that holds it",
                where=folder,
                todo="Remove the link, or name paths without it",
            )
        entries = [entry for entry in self._list(folder) if not is_hidden(entry.name)]
        entries = [replace(entry, linked=linked or entry.linked) for entry in entries]
        yield folder, entries
        for entry in entries:
            if entry.is_folder:
                yield from self._folders_below(entry.path, entry.linked, (*above, place))

    def _list_all(self, folders: list[Entry]) -> Iterable[list[Entry]]:
        """What each of the folders holds."""

        def listed(folder: Entry) -> list[Entry]:
            entries = self._list(folder.path)
            return [replace(entry, linked=folder.linked or entry.linked) for entry in entries]

        if self._is_local:
            return map(listed, folders)
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(listed, folders))

    def _list(self, folder: str) -> list[Entry]:
        """What a folder holds, by name; nothing where there is no such folder."""
        try:
            entries = _local_entries(folder) if self._is_local else self._remote_entries(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        refuse_tables_among(self.fs, [e.path for e in entries])
        return sorted(entries, key=lambda entry: entry.name)

    def _remote_entries(self, folder: str) -> list[Entry]:
        listed = [_remote_entry(info) for info in self.fs.ls(folder, detail=True)]
        return [one for one in listed if one.path.rstrip("/") != folder.rstrip("/")]


def _like(entries: list[Entry], part: str) -> list[Entry]:
    """The entries whose name is the part of a pattern, else those that are like it."""
    same = [entry for entry in entries if entry.name == part]
    return same or [
        entry
        for entry in entries
        if fnmatchcase(entry.name, part)
        and (not is_hidden(entry.name) or _spells(part, entry.name))
    ]


def _spells(part: str, name: str) -> bool:
    """Whether a part of a pattern spells what makes a name hidden."""
    ending = next((marker for marker in _MARKERS if name.endswith(marker)), "")
    start = name[0] if name[0] in "._" else ""
    return part.startswith(start) and part.endswith(ending)


def _local_entries(folder: str) -> list[Entry]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            linked = entry.is_symlink()
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                is_folder = is_file = False
            if is_folder or is_file:
                found.append(
                    _local_entry(entry.path, entry.stat(), is_folder=is_folder, linked=linked)
                )
            elif linked and not os.path.exists(entry.path) and not is_hidden(entry.name):
                raise InputError(
                    "a link leads to nothing",
                    where=entry.path,
                    todo="Remove the link, or name paths without it",
                )
    return found


def _local_entry(path: str, stat: os.stat_result, *, is_folder: bool, linked: bool) -> Entry:
    return Entry(path, is_folder, stat.st_size, str(stat.st_mtime), linked)


def _remote_entry(info: dict[str, Any]) -> Entry:
    stamp = next((str(info[key]) for key in _STAMPS if key in info), "")
    is_folder = info["type"] == "directory" or info["name"].endswith("/")
    return Entry(info["name"], is_folder, int(info["size"] or 0), stamp)
