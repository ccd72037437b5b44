"""Files of an index in shards: what tells of them, the ids beside them, and opening them again.

Legend: N items of a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.measure import Latency, Truth, exact_latency
from embedmill.pipeline.index.memory_map import map_index
from embedmill.pipeline.index.sharded.build import Spread
from embedmill.pipeline.index.sharded.catalogue import Catalogue, live_vectors
from embedmill.pipeline.index.sharded.sharded_index import Sharded
from embedmill.pipeline.store.artifact import Artifact, Writer, entry_of
from embedmill.pipeline.store.cache import checked

__all__ = ["IDS", "exact_by_part", "open_spread", "spread_json", "write_ids"]

IDS = pa.schema(
    [pa.field("row", pa.int64(), nullable=False), pa.field("id", pa.string(), nullable=False)]
)
# Queries that are compared with a part, each twice.
_TIMED = 20


def spread_json(found: Spread) -> dict[str, Any]:
    """`spec.json`, but for what is the same of every index."""
    index, choice = found.index, found.choice
    if not isinstance(index, Sharded):
        raise AssertionError("an index in shards")
    return {
        "kind": found.kind,
        "parameters": index.parameters,
        "knob": index.knob,
        "metric": "inner_product",
        "dim": found.catalogue.dim,
        "items": found.catalogue.items,
        "bytes": found.bytes,
        "estimate": found.estimate,
        "sha256": None,
        "shards": [
            {
                "path": entry.path,
                "items": items,
                "bytes": entry.bytes,
                "sha256": entry.sha256,
            }
            for entry, items in zip(found.entries, index.sizes(), strict=True)
        ],
        "promise": choice.promise.as_json() if choice else None,
        "living": None,
    }


def write_ids(out: Writer, catalogue: Catalogue) -> None:
    """`ids.parquet`: row and raw id of every place, a part at a time."""
    rows = 0
    with (
        out.storage.writer("ids.parquet") as raw,
        pq.ParquetWriter(raw, IDS, compression="zstd") as ids,
    ):
        for part in catalogue.parts:
            table = catalogue.live_ids(part)
            ids.write_table(table.cast(IDS))
            rows += len(table)
    out.add([entry_of("ids.parquet", raw, rows)])
    if rows != catalogue.items:
        raise ContractError(
            f"names {rows:,} items, the index holds {catalogue.items:,}",
            where=out.storage.url("ids.parquet"),
            todo="This is a bug; nothing was committed",
        )


def exact_by_part(catalogue: Catalogue, truth: Truth) -> Latency:
    """Time of comparing a query with one part, for all of them: none holds all vectors."""
    if not catalogue.parts:
        return Latency(0.0, 0.0)
    part = catalogue.parts[0]
    few = Truth(truth.query_BD[:_TIMED], truth.least_B[:_TIMED], min(truth.k, part.items))
    taken = exact_latency(live_vectors(catalogue.vectors, part)[1], few)
    times = catalogue.items / part.items
    return Latency(round(taken.mean * times, 4), round(taken.p99 * times, 4))


def open_spread(artifact: Artifact, spec: Mapping[str, Any], *, again: bool = False) -> Sharded:
    """The index of an artifact in shards, mapped; files that are elsewhere go into the cache.

    Args:
        artifact: a finished index.
        spec: its `spec.json`.
        again: hash files even where they were hashed before and have not been written to.

    Raises:
        CorruptArtifactError: bytes differ from the manifest's sha256.
        ContractError: shards hold other numbers of items than the spec says.
    """
    kind, parameters, told = kind_of(spec["kind"]), spec["parameters"], spec["shards"]
    index = Sharded(
        [map_index(checked(artifact, one["path"], again=again), kind, parameters) for one in told]
    )
    held, said = index.sizes(), [one["items"] for one in told]
    if held != said or sum(held) != spec["items"]:
        raise ContractError(
            f"shards hold {held} items, their spec says {said} and {spec['items']:,} in all",
            where=artifact.url("spec.json"),
        )
    return index
