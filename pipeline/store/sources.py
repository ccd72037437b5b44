"""Raw files of users: found by path, folder, glob or URL, opened, and stamped."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.store.listing import Entry, Lister
from embedmill.pipeline.store.storage import explained, file_system, opened
from embedmill.pipeline.store.table_folders import refuse_tables_above

__all__ = ["Source", "find_sources", "open_source", "real_url", "stamps"]

_READ_BYTES = 4 << 20
_HASHED_BYTES = 256 << 20  # logs up to this size are stamped by their content
_MAGIC = re.compile(r"[*?\[{]")
_ALTERNATIVES = re.compile(r"\{([^{}]*,[^{}]*)\}")


@dataclass(frozen=True)
class Source:
    """A raw file: its URL, size in bytes, and a stamp that changes when the file does."""

    url: str
    bytes: int
    stamp: str


def find_sources(pattern: str) -> list[Source]:
    """Raw files that a file, folder, glob or URL names, sorted by URL.

    Folders are walked, also those that a glob names, and links to folders are followed. A file
    that is found under several names is read once. Hidden and marker files are left out, as
    `listing.is_hidden` tells, unless the pattern spells their name's first character.

    Args:
        pattern: beside `*`, `?`, `[a-z]` and `**` a glob may hold `{a,b}`. A file whose name is
            the pattern itself comes first.

    Raises:
        InputError: nothing is there; a link leads to nothing or into a folder that holds it; or
            a file belongs to a Delta, Iceberg or Hudi table.
    """
    pattern = os.path.expanduser(pattern)
    fs, name = file_system(pattern)
    with explained(pattern):
        fs.invalidate_cache()  # files may have come since this process listed the folder
        lister = Lister(fs)
        there = lister.find(name)
        if there is not None:
            lacking = "no files in this folder" if there.is_folder else "no such file"
            found = lister.walk(name) if there.is_folder else [there]
            refuse_tables_above(fs, [name if there.is_folder else name.rpartition("/")[0]])
        elif _MAGIC.search(name):
            lacking = "no file is named like this"
            found = _matching(lister, name)
        else:
            lacking, found = "no such file", []
    sources = [Source(fs.unstrip_protocol(e.path), e.bytes, e.stamp) for e in _each_once(found)]
    if not sources:
        raise InputError(
            lacking, where=f"events.paths '{pattern}'", todo="Check the path in the config"
        )
    return sorted(sources, key=lambda s: s.url)


def _matching(lister: Lister, name: str) -> list[Entry]:
    """The files that a glob names, and those in the folders that it names."""
    found: list[Entry] = []
    for one in dict.fromkeys([name, *_alternatives(name)]):
        parts = one.split("/")
        magic = (n for n, part in enumerate(parts) if _MAGIC.search(part))
        first = next(magic, len(parts) - 1)
        base = "/".join(parts[:first]) or "/"
        refuse_tables_above(lister.fs, [base])
        for entry in lister.match(base, parts[first:]):
            found += lister.walk(entry.path, entry.linked) if entry.is_folder else [entry]
    return found


def _alternatives(name: str) -> list[str]:
    """The names that a pattern with `{a,b}` stands for."""
    group = _ALTERNATIVES.search(name)
    if group is None:
        return [name]
    before, after = name[: group.start()], name[group.end() :]
    several = [_alternatives(f"{before}{one}{after}") for one in group[1].split(",")]
    return list(dict.fromkeys(itertools.chain.from_iterable(several)))


def _each_once(found: Iterable[Entry]) -> Iterable[Entry]:
    """The files without those that a link gives a second name."""
    files = {entry.path: entry for entry in found}
    if not any(entry.linked for entry in files.values()):
        return files.values()
    by_place: dict[str, Entry] = {}
    for entry in sorted(files.values(), key=lambda e: (e.linked, e.path)):
        by_place.setdefault(os.path.realpath(entry.path), entry)
    return by_place.values()


def real_url(url: str) -> str:
    """The URL of the file itself, where links of a local disk lead to it."""
    local = url.removeprefix("file://")
    return os.path.realpath(local) if local != url else url


def open_source(url: str, size: int | None = None) -> BinaryIO:
    """A raw file for reading in bytes, as stored (not decompressed).

    Args:
        url: of the file.
        size: its bytes where they are known, which saves an object store a request.
    """
    fs, name = file_system(url)
    with explained(url):
        return opened(fs, name, size)


def stamps(sources: list[Source]) -> dict[str, str]:
    """A stamp per raw file, for fingerprints: its sha256, or size and stamp where it is large.

    Reading the bytes of small logs makes a copy or a fresh checkout of the same file equal.
    """
    small = sum(s.bytes for s in sources) <= _HASHED_BYTES
    return {s.url: _sha256(s) if small else f"{s.bytes} bytes, {s.stamp}" for s in sources}


def _sha256(source: Source) -> str:
    sha256: Any = hashlib.sha256()
    with open_source(source.url, source.bytes) as raw, explained(source.url):
        while data := raw.read(_READ_BYTES):
            sha256.update(data)
    return str(sha256.hexdigest())
