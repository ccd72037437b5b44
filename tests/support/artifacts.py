"""Writers of synthetic artifacts, one for each stage, through `Run.writer` and the schemas.

Legend: N rows of a table, D coordinates.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import safetensors.numpy

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run
from embedmill.schemas import events, export, shards, train, vocab
from embedmill.schemas.manifest import Manifest
from embedmill.schemas.run import MANIFEST

__all__ = [
    "Floats",
    "Splits",
    "arrays_of",
    "counted",
    "reseal",
    "vocabulary",
    "write_events",
    "write_export",
    "write_shards",
    "write_train",
    "write_vocab",
]

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
# By split: rows of users and of items, and weights, of each event.
Splits = Mapping[str, tuple[Rows, Rows, npt.NDArray[np.float64]]]


def arrays_of(
    events: Sequence[tuple[int, int, float]],
) -> tuple[Rows, Rows, npt.NDArray[np.float64]]:
    """(user row, item row, weight) of events as three arrays."""
    users, items, weights = zip(*events, strict=True) if events else ((), (), ())
    return (
        np.array(users, dtype=np.int64),
        np.array(items, dtype=np.int64),
        np.array(weights, dtype=np.float64),
    )


def write_events(
    run: Run,
    count: int,
    *,
    items: Mapping[str, Sequence[Any]] | None = None,
    rejects: Sequence[tuple[str, int, str, bytes]] = (),
    merged: int = 0,
    days: Sequence[tuple[str, int]] = (),
) -> Artifact:
    """Stage events.

    Args:
        run: gets it.
        count: of events; all are of one user with one item, for no later stage reads them again.
        items: metadata of items by column; None for none.
        rejects: columns of the rejected rows; all of them are kept.
        merged: rows of the log that were merged.
        days: histogram of days; none for a log without times.
    """
    out = run.writer("events")
    columns = {
        "user": ["u"] * count, "item": ["i"] * count, "time": pa.nulls(count, pa.int64()),
        "weight": [1.0] * count, "split": pa.nulls(count, pa.string()),
    }  # fmt: skip
    out.write_table(events.DATA.path(0), pa.table(columns, schema=events.EVENTS))
    if items is not None:
        out.write_table(events.ITEMS, pa.table(dict(items), schema=events.ITEMS_META))
    if rejects:
        table = pa.table(dict(zip(events.REJECTS.names, zip(*rejects, strict=True), strict=True)),
                         schema=events.REJECTS)  # fmt: skip
        out.write_table(events.REJECTED.path(0), table)
    if days:
        out.write_json(events.DAYS, list(days))
    reasons = Counter(f"rejected.{reason}" for _, _, reason, _ in rejects)
    kept = len(rejects)
    return out.commit({
        "rows_in": count + kept + merged, "events": count, "rejected": kept, "merged": merged,
        "rejects_kept": kept, **reasons,
    })  # fmt: skip


def reseal(artifact: Artifact, path: str) -> Artifact:
    """The artifact with a manifest that names the bytes that a file has now."""
    data, manifest = artifact.storage.read(path), artifact.manifest
    now = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files = [f.model_copy(update=now) if f.path == path else f for f in manifest.files]
    content = Manifest.content_hash(manifest.contract, manifest.version, files, manifest.counters)
    manifest = manifest.model_copy(update={"files": files, "content": content})
    artifact.storage.write(MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
    return replace(artifact, manifest=manifest)


def vocabulary(
    ids: Sequence[str | None], counts: Sequence[int], live: Sequence[bool] = ()
) -> pa.Table:
    """A side of a vocabulary; every row is live unless `live` says otherwise."""
    flags = list(live) or [True] * len(ids)
    columns = [range(len(ids)), ids, counts, [int(not flag) for flag in flags], flags]
    return pa.table(dict(zip(vocab.VOCAB.names, columns, strict=True)), schema=vocab.VOCAB)


def counted(users: pa.Table, items: pa.Table) -> dict[str, int]:
    """The counters of a vocabulary's rows."""
    found = {}
    for name, table in (("users", users), ("items", items)):
        live = sum(table["live"].to_pylist())
        found |= {name: table.num_rows, f"{name}_live": live, f"{name}_shared": 0}
        found[f"{name}_retired"] = table.num_rows - live
    return found


def write_vocab(
    run: Run,
    users: pa.Table,
    items: pa.Table,
    events_kept: int,
    *,
    dropped: Mapping[str, int] | None = None,
    base: str = "",
    counts: vocab.Counts | None = None,
    file_rows: int = vocab.ROWS_PER_FILE,
) -> Artifact:
    """Stage vocab.

    Args:
        run: gets it.
        users: of `vocabulary`.
        items: of `vocabulary`.
        events_kept: events of the ids.
        dropped: counters of what was dropped: "events_dropped" and others.
        base: folder of the run whose rows it keeps.
        counts: histograms of events by id.
        file_rows: rows of a file.
    """
    out = run.writer("vocab")
    for side, table in (("users", users), ("items", items)):
        for first in range(0, table.num_rows, file_rows):
            path = vocab.FILES[side].path(first // file_rows)
            out.write_table(path, table.slice(first, file_rows))
    if base:
        out.write_json(vocab.BASE, vocab.BaseRun(continues=base))
    if counts is not None:
        out.write_json(vocab.COUNTS, counts)
    found = {"events_dropped": 0, **(dropped or {})}
    return out.commit({
        "events_in": events_kept + found["events_dropped"], "events_kept": events_kept, **found,
        **counted(users, items),
    })  # fmt: skip


def write_shards(run: Run, splits: Splits, counters: Mapping[str, int] | None = None) -> Artifact:
    """Stage shards: events by split, and pairs where the config has [shards.pairs].

    Args:
        run: gets it.
        splits: events; a split that is missing is empty.
        counters: further ones, such as "cold_items_test".
    """
    out, every = run.writer("shards"), {n: splits.get(n, arrays_of([])) for n in shards.SPLITS}
    for name, columns in every.items():
        _write_split(out, name, run.config.run.partitions, *columns)
    sizes = {name: len(columns[0]) for name, columns in every.items()}
    total = sum(sizes.values())
    if run.config.shards.pairs is not None:
        sizes |= _write_pairs(run, out, every)
    return out.commit({"events_in": total, "dropped": 0, **sizes, **(counters or {})})


def _write_split(
    out: Writer,
    name: str,
    partitions: int,
    users: Rows,
    items: Rows,
    weights: npt.NDArray[np.float64],
) -> None:
    hashes = (users * 1_000_003 + items) * 2_654_435_761 % (1 << 40)
    for partition in range(partitions):
        mine = np.flatnonzero(users % partitions == partition)
        mine = mine[np.argsort(hashes[mine], kind="stable")]
        columns = {
            "user_row": users[mine],
            "item_row": items[mine],
            "time": mine,
            "weight": weights[mine].astype(np.float32),
            "hash": hashes[mine],
        }
        table = pa.table(columns, schema=shards.SHARD)
        out.write_table(shards.FILES[name].path(partition), table)


def _write_pairs(run: Run, out: Writer, splits: Splits) -> dict[str, int]:
    """All pairs of different items of a user, as of one session each."""
    counters: dict[str, int] = {}
    for folder, names in (("pairs", ("train",)), ("pairs_with_valid", ("train", "valid"))):
        had: dict[int, list[int]] = {}
        for name in names:
            for user, item in zip(*(c.tolist() for c in splits[name][:2]), strict=True):
                had.setdefault(user, []).append(item)
        met = Counter((a, b) for items in had.values() for a in items for b in items if a != b)
        for partition in range(run.config.run.partitions):
            mine = sorted(p for p in met if p[0] % run.config.run.partitions == partition)
            rows = [(a, b, met[a, b], at) for at, (a, b) in enumerate(mine)]
            columns = [list(c) for c in zip(*rows, strict=True)] if rows else [[]] * 4
            table = dict(zip(shards.PAIR.names, columns, strict=True))
            path = shards.FILES[folder].path(partition)
            out.write_table(path, pa.table(table, schema=shards.PAIR))
        events = sum(len(splits[name][0]) for name in names)
        said = {"": len(met), "_found": met.total(), "_counted": met.total(), "_events": events}
        counters |= {
            f"{folder}{k}": v for k, v in {**said, "_thinned_out": 0, "_shared_out": 0}.items()
        }
    return counters


def write_train(
    run: Run,
    tables: Mapping[str, Floats],
    model: Mapping[str, Any],
    biases: Mapping[str, Floats] | None = None,
    *,
    history: Sequence[train.Epoch] = (),
    log: bytes = b"",
    counters: Mapping[str, int] | None = None,
    search: train.Search | None = None,
) -> Artifact:
    """Stage train.

    Args:
        run: gets it.
        tables: float32 [N, D] by name: "users", "items".
        model: fields of `schemas.train.Model` other than those of a softmax model of these tables.
        biases: float32 [N, 1] by table; none for a model without.
        history: figures of the epochs.
        log: lines of JSON; none where empty.
        counters: those of the stage beside "users" and "items".
        search: trials of objective auto; None for none.
    """
    out, partitions, biases = run.writer("train"), run.config.run.partitions, biases or {}
    for name, table_ND in tables.items():
        for p in range(partitions):
            tensors = {"weight": np.ascontiguousarray(table_ND[p::partitions])}
            if name in biases:
                tensors["bias"] = np.ascontiguousarray(biases[name][p::partitions])
            out.write(train.FILES[name].path(p), safetensors.numpy.save(tensors))
    sizes = {"users": len(tables["users"]), "items": len(tables["items"])}
    fields = {
        "objective": "softmax", "similarity": "cosine", "dim": tables["items"].shape[1],
        "bias": "items" in biases, "mean": 0.0, **sizes, "partitions": partitions, "best_epoch": 1,
        "metric": "",
    }  # fmt: skip
    out.write_json(train.MODEL, train.Model.model_validate({**fields, **model}))
    out.write_json(train.HISTORY, list(history))
    if search is not None:
        out.write_json(train.TRIALS, search)
    if log:
        out.write(train.LOG, log, volatile=True)
    return out.commit({**sizes, **(counters or {})})


def write_export(
    run: Run,
    items: pa.Table,
    item_ND: Floats,
    spec: Mapping[str, Any],
    item_bias_N: Floats | None = None,
    *,
    file_rows: int = export.ROWS_PER_FILE,
) -> Artifact:
    """Stage export with vectors of items only, and no matrices.

    Args:
        run: gets it.
        items: of `vocabulary`.
        item_ND: float32 [N, D], without biases.
        spec: fields of `schemas.export.VectorSpec` other than sizes.
        item_bias_N: float32 [N]; None for a model without.
        file_rows: rows of a file.
    """
    out, biased = run.writer("export"), item_bias_N is not None
    vector_ND = np.concatenate([item_ND, item_bias_N[:, None]], 1) if biased else item_ND
    schema = export.embeddings(vector_ND.shape[1], bias=biased)
    flat = pa.array(np.ascontiguousarray(vector_ND, np.float32).reshape(-1))
    columns = [items[name].combine_chunks() for name in ("row", "id", "count", "live")]
    columns.append(pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type))
    table = pa.table([*columns, *([pa.array(item_bias_N)] if biased else [])], schema=schema)
    for first in range(0, table.num_rows, file_rows):
        path = export.FILES["items"].path(first // file_rows)
        out.write_table(path, table.slice(first, file_rows))
    sizes = {"users": 0, "items": table.num_rows}
    dims = {"dim": vector_ND.shape[1], "model_dim": item_ND.shape[1], "bias": biased}
    out.write_json(export.SPEC, export.VectorSpec.model_validate({**dims, **sizes, **spec}))
    return out.commit({"users_in": 0, "items_in": table.num_rows, **sizes})
