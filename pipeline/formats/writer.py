"""A folder in a format: written beside its place, moved there when it is whole.

`manifest.json` is written last. On a local disk the folder gets its name by a rename, so a
kill leaves at most a folder whose name ends in `.part`; elsewhere files go first and the
manifest after them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedmill import __version__
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.formats.contract import Table, scale_of
from embedmill.pipeline.formats.dtype_recall import kept
from embedmill.pipeline.formats.formats import FORMATS, format_of
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import MANIFEST
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["SIDES", "Wanted", "write"]

SIDES = ("users", "items")
_CHUNK = 4 << 20


@dataclass(frozen=True)
class Wanted:
    """A name in FORMATS, the number type, and the sides."""

    format: str
    dtype: str = "float32"
    sides: Sequence[str] = SIDES


def write(
    run: Run, wanted: Wanted, output: str, progress: Progress, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write vectors of a run in a format to the folder `output`.

    Args:
        run: a run whose `export` has finished.
        wanted: what.
        output: folder or fsspec URL; it must not be there yet.
        progress: hears of sides done.
        overwrite: replace what an earlier call wrote there.

    Returns:
        the manifest: format, dtype, how many vectors and which scale each side has, how ids are
        stored, recall@10 against float32, and bytes and sha256 of every file.

    Raises:
        ConfigError: no such format, or not with these numbers.
        MachineError: what it needs is not installed.
        InputError: the folder is there, or an id that the format cannot hold.
    """
    kind = format_of(wanted.format, wanted.dtype)
    export, target = run.artifact("export"), Storage(output.rstrip("/"))
    _check_free(target, overwrite)
    scales = {side: scale_of(Vectors.of(export, side), wanted.dtype) for side in SIDES}
    events = run.find("events")
    tables = [Table(export, s, wanted.dtype, scales[s], events) for s in wanted.sides]
    with _scratch(target) as folder:
        for done, table in enumerate(tables, 1):
            kind.write(table, folder)
            progress.update(done, len(tables), "sides")
        manifest = {
            "format": wanted.format,
            "version": 1,
            "embedmill": __version__,
            "run": run.config.run.name,
            "export": export.manifest.content,
            "metric": "inner_product",
            "dtype": wanted.dtype,
            "dim": tables[0].dim,
            **{table.side: _about(table) for table in tables},
            "ids": FORMATS[wanted.format].ids,
            **kept(run, wanted.dtype, scales),
            "files": _files(folder),
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n"
        _seal(folder, target, text)
    return manifest


def _about(table: Table) -> dict[str, float | int]:
    return {"count": table.count, "left_out": table.left_out, "scale": table.scale}


def _check_free(target: Storage, overwrite: bool) -> None:
    """Raise InputError where something is at `target` that may not be replaced."""
    ours = target.exists(MANIFEST)
    there = ours or (target.is_local and os.path.lexists(target.local_path("")))
    if there and not (ours and overwrite):
        raise InputError(
            "is there already",
            where=target.root,
            todo="Give another --output, or --overwrite to replace it"
            if ours
            else "Give another --output: it was not written by this command",
        )


@contextlib.contextmanager
def _scratch(target: Storage) -> Iterator[Path]:
    """A new folder, beside a local target, that is gone afterwards."""
    if target.is_local:
        place = target.local_path("")
        folder = place.with_name(f"{place.name}.{uuid.uuid4().hex}.part")
        folder.mkdir(parents=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="embedmill-export-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> list[dict[str, Any]]:
    """Bytes and sha256 of every file, which are on the disk from here on."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        sha256, size = hashlib.sha256(), 0
        with path.open("rb") as raw:
            while chunk := raw.read(_CHUNK):
                sha256.update(chunk)
                size += len(chunk)
            os.fsync(raw.fileno())
        name = path.relative_to(folder).as_posix()
        found.append({"path": name, "bytes": size, "sha256": sha256.hexdigest()})
    return found


def _seal(folder: Path, target: Storage, manifest: bytes) -> None:
    """Give a whole folder its name."""
    if target.is_local:
        Storage(str(folder)).write(MANIFEST, manifest)
        place = target.local_path("")
        if place.exists():
            old = place.with_name(f"{place.name}.{uuid.uuid4().hex}.part")
            place.rename(old)
            folder.rename(place)
            shutil.rmtree(old)
        else:
            folder.rename(place)
        return
    target.remove(MANIFEST)
    for path in (p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as raw, target.writer(path.relative_to(folder).as_posix()) as out:
            while chunk := raw.read(_CHUNK):
                out.write(chunk)
    target.write(MANIFEST, manifest)
