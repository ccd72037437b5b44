"""Folders of `embedmill export` and `embedmill delta`: found, and written anew without ids.

An export is written again from its run. A delta is changed in place, with all that follow it: its
manifest names the hash of the one before it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.errors import CorruptArtifactError, EmbedmillError
from embedmill.pipeline.forget.erase_vectors import zeroed_rows
from embedmill.pipeline.forget.pending import PendingFile
from embedmill.pipeline.formats import ExportOptions, write
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.forgotten_ids import SIDES, ForgottenIds
from embedmill.pipeline.store.parquet import parquet_bytes
from embedmill.pipeline.store.run import open_run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.manifest import digest
from embedmill.schemas.run import MANIFEST

__all__ = ["Folders", "find_folders", "write_deltas", "write_exports"]

Tree = dict[str, Any]
# What is left of an export that was being replaced when its command was killed.
_LEFT_OVER = re.compile(r"(^|.*/)[^/]*\.[0-9a-f]{32}\.part(/|$)")


class Folders:
    """Manifests of exports and of deltas by folder, and files that a killed command left."""

    def __init__(self) -> None:
        self.exports: dict[str, Tree] = {}
        self.deltas: dict[str, Tree] = {}
        self.left_over: list[tuple[Storage, str]] = []


def find_folders(places: Iterable[str]) -> Folders:
    """Folders of exports and deltas at or below some places.

    Args:
        places: folders or URLs.
    """
    found = Folders()
    for place in places:
        storage = Storage(place.rstrip("/"))
        for path in storage.files():
            if _LEFT_OVER.match(path):
                found.left_over.append((storage, path))
            elif path.rpartition("/")[2] == MANIFEST:
                folder = storage.url(path).removesuffix(f"/{MANIFEST}")
                tree = _tree(storage.read(path))
                if {"export", "format", "dtype", "run"} <= tree.keys():
                    found.exports[folder] = tree
                elif {"base", "number", "previous", "hash", "target"} <= tree.keys():
                    found.deltas[folder] = tree
    return found


def write_exports(root: str, folders: Folders, pending: PendingFile) -> Iterator[str]:
    """Write exports of runs that have changed again; yields their folders.

    Args:
        root: of the runs.
        folders: what was found.
        pending: remembers them, as a folder is away for a moment while it is replaced.

    Raises:
        CorruptArtifactError: the run of an export is gone, or is another one by now.
    """
    references, stale = pending.references, {}
    for folder, tree in folders.exports.items():
        if references.newest(tree["export"]) != tree["export"]:
            sides = [side for side in SIDES if side in tree]
            stale[folder] = {
                "run": tree["run"], "format": tree["format"], "dtype": tree["dtype"],
                "sides": sides, "export": tree["export"],
            }  # fmt: skip
    pending.add_exports(stale)
    for folder, options in pending.state.exports.items():
        wanted = references.newest(options["export"])
        if folder in folders.exports and folders.exports[folder]["export"] == wanted:
            continue
        try:
            run = open_run(f"{root.rstrip('/')}/{options['run']}")
            export = run.artifact("export")
        except EmbedmillError:
            export = None
        if export is None or export.manifest.content != wanted:
            raise CorruptArtifactError(
                f"was exported from run '{options['run']}' as it no longer is, and cannot be "
                "written again without the forgotten ids",
                where=folder,
                todo="Remove the folder, and give the same command again",
            )
        chosen = ExportOptions(options["format"], options["dtype"], tuple(options["sides"]))
        write(run, chosen, folder, Quiet(), overwrite=True)
        yield folder
    for storage, path in folders.left_over:
        storage.remove(path)


def write_deltas(folders: Folders, forgotten: ForgottenIds, pending: PendingFile) -> Iterator[str]:
    """Take forgotten ids out of deltas, and name in them what was written anew; yields folders.

    Args:
        folders: what was found.
        forgotten: forgotten ids.
        pending: remembers hashes.

    Raises:
        CorruptArtifactError: a file is damaged.
    """
    rows = _rows_by_export(pending)
    for folder, tree in sorted(folders.deltas.items(), key=lambda pair: pair[1]["number"]):
        references = pending.references
        own = rows.get(references.newest(tree["target"]), {})
        files = dict(_changed_files(folder, tree, forgotten, own, pending))
        entries = []
        for entry in tree["files"]:
            data = files.get(entry["path"])
            new = {} if data is None else {"bytes": len(data), "sha256": _sha256(data)}
            entries.append({**entry, **new})
        now = {**references.replaced(tree), "files": entries}
        now.pop("hash")
        now["hash"] = digest(now)
        if now == tree:
            continue
        pending.add_contents({tree["hash"]: now["hash"]})
        storage = Storage(folder)
        pending.add_files({f"{folder}/{path}": _sha256(data) for path, data in files.items()})
        for path, data in files.items():
            storage.write(path, data)
        storage.write(MANIFEST, json.dumps(now, indent=1).encode() + b"\n")
        yield folder


def _rows_by_export(pending: PendingFile) -> dict[str, dict[str, set[int]]]:
    """Rows of forgotten ids by side, by the content hash of the export as it is now."""
    found = {}
    for known in pending.state.runs.values():
        if "export" in known.before:
            content = pending.references.newest(known.before["export"])
            found[content] = {
                side: {one.row for one in getattr(known, side).values()} for side in SIDES
            }
    return found


def _changed_files(
    folder: str,
    tree: Tree,
    forgotten: ForgottenIds,
    rows: Mapping[str, set[int]],
    pending: PendingFile,
) -> Iterator[tuple[str, bytes]]:
    """Files of a delta that have a forgotten id, without it, and those that were changed before."""
    storage = Storage(folder)
    for entry in tree["files"]:
        path = entry["path"]
        side = path.partition(".")[0]
        data = storage.read(path)
        known = pending.state.files.get(f"{folder}/{path}")
        if _sha256(data) not in (entry["sha256"], known):
            raise CorruptArtifactError("differs from its manifest", where=f"{folder}/{path}")
        table = pq.ParquetFile(pa.BufferReader(data)).read()
        bad = pa.array([row in rows.get(side, ()) for row in table["row"].to_pylist()], pa.bool_())
        if "id" in table.column_names:
            named = forgotten.mask(side, table["id"])
            if named.any():
                yield path, parquet_bytes(zeroed_rows(table, named))
                continue
        elif bad.true_count:
            yield path, parquet_bytes(table.filter(pa.compute.invert(bad)))
            continue
        if _sha256(data) != entry["sha256"]:
            yield path, data


def _tree(data: bytes) -> Tree:
    try:
        tree = json.loads(data)
    except UNREADABLE:
        return {}
    return tree if isinstance(tree, dict) else {}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
