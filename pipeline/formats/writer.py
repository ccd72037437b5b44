"""Writes a folder in a format so that it is there completely or not at all.

The manifest is written last. On a local disk the folder is written beside its final name and then
renamed, so that a kill leaves at most a folder whose name ends in `.part`. Elsewhere the files are
uploaded first and the manifest after them.
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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedmill import __version__
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.formats.dtype_recall import dtype_recall
from embedmill.pipeline.formats.file_tasks import file_tasks, write_files
from embedmill.pipeline.formats.formats import find_format
from embedmill.pipeline.formats.vector_table import VectorTable, int8_scale
from embedmill.pipeline.log import Progress
from embedmill.pipeline.memory import free_memory
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.task_pool import LAUNCHERS, TaskPool, TaskRequest, usable_cores
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.export import ROWS_PER_FILE
from embedmill.schemas.run import MANIFEST

__all__ = ["SIDES", "ExportOptions", "write"]

SIDES = ("users", "items")
_BUFFER = 4 << 20  # bytes
# More bytes of vectors than this take longer to write than processes take to start.
_LARGE = 1 << 26
_PROCESS = 400 << 20  # bytes of a process with its libraries


@dataclass(frozen=True)
class ExportOptions:
    """What to write, and how.

    Attributes:
        format: its name.
        dtype: number type.
        sides: "users", "items" or both.
        workers: processes that write a format of several files; 1: this one; 0: one for each core
            where there is memory, or this one for few vectors. Any number writes the same files.
    """

    format: str
    dtype: str = "float32"
    sides: Sequence[str] = SIDES
    workers: int = 0


def write(
    run: Run, options: ExportOptions, output: str, progress: Progress, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write vectors of a run in a format to the folder `output`.

    Args:
        run: a run whose `export` has finished.
        options: what to write.
        output: folder or fsspec URL; it must not exist yet.
        progress: updated after each side; for a format of several files after each task.
        overwrite: replace a folder that an earlier call wrote there.

    Returns:
        the manifest: format, dtype, number of vectors and scale of each side, how ids are stored,
        recall@10 against float32, and bytes and sha256 of every file.

    Raises:
        ConfigError: there is no such format, or it does not have the number type.
        MachineError: a package that it needs is not installed, or a process was ended.
        InputError: the folder exists, or the format cannot hold one of the ids.
    """
    format_ = find_format(options.format, options.dtype)
    export, target = run.artifact("export"), Storage(output.rstrip("/"))
    _check_free(target, overwrite)
    scales = {side: _scale(Vectors.of(export, side), options.dtype) for side in SIDES}
    events = run.find("events")
    tables = [VectorTable(export, s, options.dtype, scales[s], events) for s in options.sides]
    with _scratch(target) as folder:
        for done, table in enumerate(tables, 1):
            if format_.write is not None:
                format_.write(table, folder)
            if format_.files is None:
                progress.update(done, len(tables), "sides")
        if format_.files is not None:
            with _pool(run, options.workers, tables) as pool:
                _write_files(options.format, tables, folder, pool, progress)
        manifest = {
            "format": options.format,
            "version": 1,
            "embedmill": __version__,
            "run": run.config.run.name,
            "export": export.manifest.content,
            "metric": "inner_product",
            "dtype": options.dtype,
            "dim": tables[0].dim,
            **{table.side: _summary(table) for table in tables},
            "ids": format_.ids,
            **dtype_recall(run, options.dtype, scales),
            "files": _files(folder),
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n"
        _publish(folder, target, text)
    return manifest


def _pool(
    run: Run, workers: int, tables: Sequence[VectorTable]
) -> AbstractContextManager[TaskPool]:
    """Where files are written. Never on Ray: the folder is one of this machine."""
    number = workers or _workers(tables)
    here = number == 1 or run.config.run.root.startswith("memory:")  # which one process can read
    request = TaskRequest("export", number, of_command=True)
    return LAUNCHERS["inline" if here else "processes"](request)


def _workers(tables: Sequence[VectorTable]) -> int:
    """Processes where the user names no number: for each the vectors of a task, and their text."""
    if sum(table.count * table.dim * 4 for table in tables) <= _LARGE:
        return 1
    tasks = sum(len(table.live_by_file) for table in tables)
    each = _PROCESS + 4 * ROWS_PER_FILE * tables[0].dim * 4
    return max(1, min(tasks, usable_cores(), free_memory() // each))


def _write_files(
    name: str, tables: Sequence[VectorTable], folder: Path, pool: TaskPool, progress: Progress
) -> None:
    """Write the numbered files of all sides by tasks."""
    done, total = 0, sum(table.count for table in tables)
    tasks = (task for table in tables for task in file_tasks(name, table, folder))
    for vectors in pool.map(write_files, tasks):
        done += vectors
        progress.update(done, total, "vectors")


def _scale(vectors: Vectors, dtype: str) -> float:
    return int8_scale(vectors) if dtype == "int8" else 1.0


def _summary(table: VectorTable) -> dict[str, float | int]:
    return {"count": table.count, "left_out": table.left_out, "scale": table.scale}


def _check_free(target: Storage, overwrite: bool) -> None:
    """Raise InputError where something is at `target` that may not be replaced."""
    has_manifest = target.exists(MANIFEST)
    exists = has_manifest or (target.is_local and os.path.lexists(target.local_path("")))
    if exists and not (has_manifest and overwrite):
        raise InputError(
            "is there already",
            where=target.root,
            todo="Give another --output, or --overwrite to replace it"
            if has_manifest
            else "Give another --output: it was not written by this command",
        )


@contextlib.contextmanager
def _scratch(target: Storage) -> Iterator[Path]:
    """A new folder, beside the target if that is local; removed when the block ends."""
    if target.is_local:
        final = target.local_path("")
        folder = final.with_name(f"{final.name}.{uuid.uuid4().hex}.part")
        folder.mkdir(parents=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="embedmill-export-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> list[dict[str, Any]]:
    """Path, bytes and sha256 of every file; all are synced to the disk."""
    entries = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        sha256, size = hashlib.sha256(), 0
        with path.open("rb") as raw:
            while data := raw.read(_BUFFER):
                sha256.update(data)
                size += len(data)
            os.fsync(raw.fileno())
        name = path.relative_to(folder).as_posix()
        entries.append({"path": name, "bytes": size, "sha256": sha256.hexdigest()})
    return entries


def _publish(folder: Path, target: Storage, manifest: bytes) -> None:
    """Move the files to the target, with the manifest last."""
    if target.is_local:
        Storage(str(folder)).write(MANIFEST, manifest)
        final = target.local_path("")
        if final.exists():
            replaced = final.with_name(f"{final.name}.{uuid.uuid4().hex}.part")
            final.rename(replaced)
            folder.rename(final)
            shutil.rmtree(replaced)
        else:
            folder.rename(final)
        return
    target.remove(MANIFEST)
    for path in (p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as raw, target.writer(path.relative_to(folder).as_posix()) as out:
            while data := raw.read(_BUFFER):
                out.write(data)
    target.write(MANIFEST, manifest)
