"""Files of this machine's user, outside any run: `EMBEDMILL_CACHE`, or `~/.cache/embedmill`.

A file is checked before it is mapped into memory; see `checksums`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from embedmill.pipeline.errors import ArtifactError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.checksums import cache_folder, has_bytes_of
from embedmill.pipeline.store.parquet import damaged, missing
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry

__all__ = ["cache_folder", "checked", "fetch"]

_CHUNK = 4 << 20
_KEPT = 30 * 86_400.0


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
            good = has_bytes_of(local, entry, again=again, noted=True)
        if not good:
            raise damaged(artifact.url(path))
        return local
    local = cache_folder() / "fetched" / entry.sha256
    if not (local.exists() and has_bytes_of(local, entry, again=again, noted=True)):
        fetch(artifact, entry, local)
        _forget(local.parent)
    return local


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
