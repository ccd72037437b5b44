"""What a local disk has after a power cut: the bytes and names that were synced, and no more.

The bytes of a file are durable as they were when the file was last synced, the names in a folder
as they were when the folder was. (Pillai et al., All file systems are not created equal, OSDI
2014, section 2: what file systems may lose, and in which order.)
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Disk", "store_files"]

Files = dict[str, bytes]


@dataclass
class Disk:
    """The durable state of all that is below a root, by inode."""

    root: str
    _bytes: dict[int, bytes] = field(default_factory=dict)
    _names: dict[int, dict[str, int]] = field(default_factory=dict)
    # Of inodes that were synced: none is used again while a descriptor is open.
    _held: list[int] = field(default_factory=list)

    @contextmanager
    def watched(self) -> Iterator[Disk]:
        """Syncs are noticed meanwhile; what lies below the root now is durable."""
        for folder, _, names in os.walk(self.root):
            self._sync(folder)
            for name in names:
                self._sync(os.path.join(folder, name))
        plain = os.fsync

        def fsync(descriptor: Any) -> None:
            plain(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path == self.root or path.startswith(f"{self.root}/"):
                self._sync(path)

        os.fsync = fsync
        try:
            yield self
        finally:
            os.fsync = plain
            for descriptor in self._held:
                os.close(descriptor)

    def after_cut(self, seed: int | None = None) -> Files:
        """Files as they are after a power cut now, by path.

        Args:
            seed: of which names that were not synced the disk keeps; None for none of them.
        """
        draw = random.Random(seed) if seed is not None else None
        return dict(self._below(self.root, "", os.stat(self.root).st_ino, draw))

    def _sync(self, path: str) -> None:
        held = os.open(path, os.O_RDONLY)
        self._held.append(held)
        found = os.fstat(held)
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = _listing(path)
        else:
            self._bytes[found.st_ino] = Path(path).read_bytes()

    def _below(
        self, path: str, place: str, inode: int, draw: random.Random | None
    ) -> Iterator[tuple[str, bytes]]:
        """Files of a folder.

        Args:
            path: where it is now; '' where it is gone.
            place: its path below the root.
            inode: of it.
            draw: decides which changes of names a disk has kept.
        """
        names = dict(self._names.get(inode, {}))
        now = _listing(path) if path else {}
        if draw is not None:
            for name in sorted({*names, *now}):
                if names.get(name) != now.get(name) and draw.random() < 0.5:
                    names.pop(name, None)
                    names |= {name: now[name]} if name in now else {}
        for name, child in sorted(names.items()):
            below = f"{place}/{name}".lstrip("/")
            if child in self._names or (now.get(name) == child and Path(path, name).is_dir()):
                same = path and now.get(name) == child
                yield from self._below(f"{path}/{name}" if same else "", below, child, draw)
            else:
                yield below, self._bytes.get(child, b"")


def store_files(files: Files, root: str) -> None:
    """Write files below a root."""
    Path(root).mkdir()
    for name, data in files.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _listing(folder: str) -> dict[str, int]:
    try:
        return {entry.name: entry.inode() for entry in os.scandir(folder)}
    except FileNotFoundError:
        return {}
