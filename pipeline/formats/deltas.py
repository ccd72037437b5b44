"""Deltas: what a reader of exported vectors needs to follow from night to night.

A delta is a folder with the rows that came, went or moved since what the reader has: a base export
and the deltas after it. Its manifest names the base, its number, and the hash of the delta before
it, so that one that is missing, given twice or out of order is refused, as is one of another space.
Base and deltas are the full export byte for byte with epsilon 0; otherwise each vector is within
epsilon times the mean length, for a delta is made against what the reader has.

    SIDE.parquet         rows, as the export has them; one that is not live is to be deleted
    SIDE.counts.parquet  events of rows that are otherwise as before
    manifest.json        written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.errors import ContractError, CorruptArtifactError, InputError
from embedmill.pipeline.formats.delta_state import COUNTS, SideDelta, schema_of, state_of
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.parquet import write_parquet, write_table
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vectors import space_of, spec_of
from embedmill.schemas.export import FILES, embeddings
from embedmill.schemas.manifest import digest
from embedmill.schemas.run import MANIFEST

__all__ = ["apply_deltas", "read_delta", "write_delta"]

_FORMAT = 1
Manifest = dict[str, Any]


def write_delta(
    run: Run, base: Run, deltas: Sequence[str], output: str, *, epsilon: float = 0.0
) -> Manifest:
    """Write the delta that leads from a base and the deltas after it to a run.

    Args:
        run: the run whose vectors a reader is to have.
        base: the run whose full export it once got.
        deltas: folders of the deltas it has applied since, in order.
        output: folder or URL, which must not have another delta yet.
        epsilon: distance, relative to the vectors' mean length, up to which a vector may stay.

    Returns:
        the manifest.

    Raises:
        InputError: the vectors have two spaces, rows have other ids, or `output` has another delta.
        ContractError: `deltas` are not those after the base, in order.
        CorruptArtifactError: a file of a delta is damaged.
    """
    target, storage = run.artifact("export"), Storage(output.rstrip("/"))
    before = base.artifact("export")
    _check_space(before, target)
    state, last = _followed(before, deltas)
    begun: Manifest = {
        "format": _FORMAT,
        "base": before.manifest.content,
        "number": last["number"] + 1,
        "previous": last["hash"],
        "target": target.manifest.content,
        "space": space_of(target),
        "epsilon": epsilon,
    }
    if storage.exists(MANIFEST):
        return _same(output, begun)
    now = state_of(target)
    entries, sides = [], {}
    for side in FILES:
        _check_rows(state[side], now[side], side, target)
        delta = SideDelta.between(state[side], now[side], epsilon)
        sides[side] = dict(delta.kinds)
        entries.append(write_table(storage, f"{side}.parquet", delta.rows))
        entries.append(write_table(storage, f"{side}.counts.parquet", delta.counts))
    manifest: Manifest = {
        **begun,
        "spec": json.loads(spec_of(target).model_dump_json(by_alias=True)),
        **sides,
        "files": [
            entry.model_dump(include={"path", "bytes", "sha256", "rows"}) for entry in entries
        ],
    }
    manifest["hash"] = digest(manifest)
    storage.sync_folders(entry.path for entry in entries)
    storage.write(MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
    storage.sync_folders([MANIFEST])
    return manifest


def _same(output: str, begun: Manifest) -> Manifest:
    """The manifest of a delta that is there, if it is the one that was to be written."""
    manifest, _ = read_delta(output)
    if any(manifest.get(key) != value for key, value in begun.items()):
        raise InputError(
            "has another delta already", where=output.rstrip("/"), todo="Give another --output"
        )
    return manifest


def apply_deltas(base: Run, deltas: Sequence[str], output: str) -> Manifest:
    """Write the vectors that a base and its deltas come to, in the files of an export.

    Args:
        base: the run whose export the first delta follows.
        deltas: their folders, in order.
        output: folder or URL; gets `users/` and `items/`.

    Returns:
        the manifest of the last delta; of none, one of number 0.

    Raises:
        ContractError: they are not the deltas after the base, each once and in order.
        CorruptArtifactError: a file is damaged.
    """
    state, last = _followed(base.artifact("export"), deltas)
    storage = Storage(output.rstrip("/"))
    for side, files in FILES.items():
        for number in range(files.count(state[side].num_rows)):
            part = state[side].slice(number * files.rows_per_file, files.rows_per_file)
            write_parquet(storage, "export", files.path(number), part)
    return last


def read_delta(folder: str) -> tuple[Manifest, Mapping[str, SideDelta]]:
    """The manifest of a delta and its tables by side, for whoever has no base export.

    Args:
        folder: folder or URL.

    Raises:
        InputError: there is no delta.
        CorruptArtifactError: a file is damaged.
    """
    return _read(folder, None)


def _followed(base: Artifact, deltas: Sequence[str]) -> tuple[dict[str, pa.Table], Manifest]:
    """The state after the deltas, and the last manifest."""
    content, state = base.manifest.content, state_of(base)
    last: Manifest = {"number": 0, "hash": content, "space": space_of(base)}
    for folder in deltas:
        manifest, sides = _read(folder, schema_of(base))
        wanted = (content, last["number"] + 1, last["hash"], last["space"])
        got = tuple(manifest[key] for key in ("base", "number", "previous", "space"))
        if got != wanted:
            raise ContractError(
                f"is delta {manifest['number']} of another chain, or not the one after delta "
                f"{last['number']}",
                where=folder,
                todo="Give all deltas after the base, each once, in order",
            )
        state = {side: sides[side].applied(table) for side, table in state.items()}
        last = manifest
    return state, last


def _read(folder: str, schema: pa.Schema | None) -> tuple[Manifest, Mapping[str, SideDelta]]:
    """The manifest and the tables of a delta, checked against their hashes."""
    storage = Storage(folder.rstrip("/"))
    try:
        manifest: Manifest = json.loads(storage.read(MANIFEST))
        own = {key: value for key, value in manifest.items() if key != "hash"}
        intact = manifest["hash"] == digest(own) and manifest["format"] == _FORMAT
    except FileNotFoundError:
        raise InputError("there is no delta", where=folder) from None
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise CorruptArtifactError("its manifest is damaged", where=folder)
    spec = manifest["spec"]
    schema = schema or embeddings(spec["dim"], bias=spec["bias"])
    tables = {}
    for entry in manifest["files"]:
        data = storage.read(entry["path"])
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise CorruptArtifactError(
                "differs from its manifest", where=f"{folder}/{entry['path']}"
            )
        tables[entry["path"]] = pq.ParquetFile(pa.BufferReader(data)).read()
    sides = {
        side: SideDelta(
            tables[f"{side}.parquet"].cast(schema),
            tables[f"{side}.counts.parquet"].cast(COUNTS),
            manifest[side],
        )
        for side in FILES
    }
    return manifest, sides


def _check_space(before: Artifact, now: Artifact) -> None:
    if space_of(before) != space_of(now):
        raise InputError(
            "the vectors have another space than those of the base",
            where=now.storage.root,
            todo="Give readers a full export, and deltas from then on",
        )


def _check_rows(before: pa.Table, now: pa.Table, side: str, export: Artifact) -> None:
    """Raise InputError unless every row has the id that it had."""
    known = before.num_rows
    if now.num_rows < known or not now["id"].slice(0, known).equals(before["id"]):
        raise InputError(
            f"rows of {side} have other ids than before: the vocabulary was not continued",
            where=export.storage.root,
            todo="Set vocab.previous, or give readers a full export",
        )
