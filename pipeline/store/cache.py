"""Files of this machine's user, outside any run: `EMBEDMILL_CACHE`, or `~/.cache/embedmill`.

A file must be checked before it is mapped into memory, and hashing it takes longer than mapping
it. So it is hashed once, and a note is kept of its device, inode, size, and the times of the last
change to its bytes and its inode. If all of these are the same, the file has not been written to
since: the kernel sets the time of the inode, and no program can. A disk that loses bytes by itself
is not noticed this way; `embedmill verify` reads every byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from embedmill.pipeline.errors import ArtifactError, MachineError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.parquet import damaged, missing
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry

__all__ = ["cache_folder", "checked", "fetch"]

_CHUNK = 4 << 20
# A file that was changed within so many seconds may change again with the same times.
_SETTLED = 2.0
_KEPT = 30 * 86_400.0


def cache_folder() -> Path:
    """The folder of downloads and notes."""
    named = os.environ.get("EMBEDMILL_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "embedmill"


def checked(artifact: Artifact, path: str, *, again: bool = False) -> Path:
    """The local path of an artifact's file whose bytes are those of the manifest.

    A file that lies elsewhere is fetched into the cache, under its sha256.

    Args:
        artifact: a finished stage.
        path: a file that its manifest names.
        again: hash it even where it was hashed before and has not been written to.

    Raises:
        CorruptArtifactError: it is missing, or its bytes are others.
    """
    entry = next((f for f in artifact.manifest.files if f.path == path), None)
    if entry is None:
        raise ArtifactError(f"has no file '{path}'", where=artifact.storage.root)
    if artifact.storage.is_local:
        local = artifact.storage.local_path(path)
        with missing(artifact.url(path)):
            good = _is(local, entry, again=again)
        if not good:
            raise damaged(artifact.url(path))
        return local
    local = cache_folder() / "fetched" / entry.sha256
    if not (local.exists() and _is(local, entry, again=again)):
        fetch(artifact, entry, local)
        _forget(local.parent)
    return local


def _is(local: Path, entry: FileEntry, *, again: bool) -> bool:
    """Whether a file has the bytes of its entry."""
    stamp = _stamp(local, entry)
    if stamp[2] != entry.bytes:
        return False
    note = cache_folder() / "checked" / hashlib.sha256(bytes(local.resolve())).hexdigest()
    if not again and _noted(note) == stamp:
        return True
    sha256 = hashlib.sha256()
    with local.open("rb") as raw:
        while chunk := raw.read(_CHUNK):
            sha256.update(chunk)
    if sha256.hexdigest() != entry.sha256:
        return False
    changed = max(int(stamp[3]), int(stamp[4])) / 1e9
    if _stamp(local, entry) == stamp and time.time() - changed > _SETTLED:
        with suppress(MachineError):  # a cache that cannot be written costs time, no more
            Storage(str(note.parent)).write(note.name, json.dumps(stamp).encode())
    return True


def _stamp(local: Path, entry: FileEntry) -> list[int | str]:
    found = local.stat()
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return [found.st_dev, found.st_ino, found.st_size, *times, entry.sha256]


def _noted(note: Path) -> object:
    try:
        return json.loads(note.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def fetch(artifact: Artifact, entry: FileEntry, local: Path) -> None:
    """Copy a remote file to `local`; under that name only with the right bytes.

    Raises:
        CorruptArtifactError: it is missing, or its bytes are not those of the manifest.
        MachineError: the local disk refuses.
    """
    cached = Storage(str(local.parent))
    with artifact.open(entry.path) as remote, cached.writer(local.name) as out:
        while out.bytes <= entry.bytes and (chunk := remote.read(_CHUNK)):
            out.write(chunk)
        if (out.bytes, out.sha256) != (entry.bytes, entry.sha256):
            raise damaged(artifact.url(entry.path))


def _forget(folder: Path) -> None:
    """Remove files fetched 30 days ago or earlier: every night may bring a new index."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _KEPT:
                path.unlink()
