"""Files of a local disk are hashed once for each change, by whatever reads them.

Pages of a Parquet file have checksums, but not their headers: a flipped bit there may give other
rows without a word. So a file is compared with the sha256 of its manifest before it is read. It is
not hashed again as long as its device, inode, size, and the times of the last change to its bytes
and its inode are the same: the kernel sets the time of the inode, and no program can. What was
hashed is remembered by the process, and of large files in a note in the cache folder. A disk that
loses bytes by itself is not noticed a second time this way; `embedmill verify` reads every byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.manifest import FileEntry

__all__ = ["cache_folder", "has_bytes_of"]

# A file that was changed within so many seconds may change again with the same times: by the
# clock of any file system in a note, by that of the kernel in the memory of a process.
_SETTLED, _TICK = 2.0, 0.05
_NOTED_BYTES = 64 << 20  # smaller files are hashed faster than a note is worth

_hashed: dict[str, list[int | str]] = {}


def cache_folder() -> Path:
    """The folder of downloads and notes: `EMBEDMILL_CACHE`, or `~/.cache/embedmill`."""
    named = os.environ.get("EMBEDMILL_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "embedmill"


def has_bytes_of(
    local: Path, entry: FileEntry, *, again: bool = False, noted: bool = False
) -> bool:
    """Whether a file has the bytes of its entry in a manifest.

    Args:
        local: the file.
        entry: of it.
        again: hash it even where it was hashed before and has not been written to.
        noted: keep a note of it whatever its size.

    Raises:
        FileNotFoundError: it is not there.
    """
    stamp, key = _stamp(local, entry), str(local)
    if stamp[2] != entry.bytes:
        return False
    noted |= entry.bytes >= _NOTED_BYTES
    note = cache_folder() / "checked" / hashlib.sha256(bytes(local.resolve())).hexdigest()
    if not again and (_hashed.get(key) == stamp or (noted and _read(note) == stamp)):
        return True
    with local.open("rb") as raw:
        if hashlib.file_digest(raw, "sha256").hexdigest() != entry.sha256:
            return False
    settled = time.time() - max(int(stamp[3]), int(stamp[4])) / 1e9
    if _stamp(local, entry) != stamp:
        return True
    if settled > _TICK:
        _hashed[key] = stamp
    if noted and settled > _SETTLED:
        with suppress(MachineError):  # a cache that cannot be written costs time, no more
            Storage(str(note.parent)).write(note.name, json.dumps(stamp).encode())
    return True


def _stamp(local: Path, entry: FileEntry) -> list[int | str]:
    found = local.stat()
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return [found.st_dev, found.st_ino, found.st_size, *times, entry.sha256]


def _read(note: Path) -> object:
    try:
        return json.loads(note.read_bytes())
    except (OSError, *UNREADABLE):
        return None
