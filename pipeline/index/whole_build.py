"""Building an index in one file, with all vectors in memory.

Legend: N live items, D coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embedmill.pipeline.index.built_index import BuildTask, BuiltIndex
from embedmill.pipeline.index.incremental.carry_over import CarriedIndex, Rebuild, carry_over
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.measure import GroundTruth, exact_latency, ground_truth
from embedmill.pipeline.index.searchable import FaissIndex, Floats, Rows, Searchable
from embedmill.pipeline.index.selection.choose import choose
from embedmill.pipeline.index.selection.selector import Selection
from embedmill.pipeline.index.vector_checks import check_vectors
from embedmill.pipeline.store.run import Run
from embedmill.schemas.index import IDS, IDS_FILE, INDEX_FILE

__all__ = ["build_whole"]


@dataclass(frozen=True)
class _Result:
    """An index and its bytes, before they are written."""

    kind: str
    index: Searchable
    data: bytes
    selection: Selection[FaissIndex] | None = None
    carried: CarriedIndex | None = None


def build_whole(task: BuildTask, run: Run) -> BuiltIndex:
    """Carry over the index of the previous run, or select or build one, and write its files.

    Raises:
        ConfigError: no such kind, or parameters that do not fit the vectors.
        InputError: no items, or numbers that are not finite.
        IndexTargetError: nothing meets the targets.
    """
    items, progress = task.items, task.progress
    row_N = np.flatnonzero(items.live())
    item_ND = items.load() if len(row_N) == items.count else items.gather(row_N)
    progress.update(0, len(row_N), "items")
    check_vectors(items=item_ND, users=task.verifying_BD)
    truth = ground_truth(task.verifying_BD, item_ND)
    result = _carried(task, run, row_N, truth) or _built(task, item_ND)
    progress.update(len(row_N), len(row_N), "items")
    return _written(task, result, row_N, truth)


def _carried(task: BuildTask, run: Run, row_N: Rows, truth: GroundTruth) -> _Result | None:
    """The index of the previous run with changed items in a delta; None if it is not kept."""
    if not task.config.carry_over:
        return None
    carried = carry_over(run, row_N, truth.item_ND.__getitem__, truth)
    if isinstance(carried, Rebuild):
        task.progress.note(f"built anew: {carried.reason}")
        return None
    return _Result(carried.kind, carried.index, carried.data, carried=carried)


def _built(task: BuildTask, item_ND: Floats) -> _Result:
    """An index of the configured kind, or the one selected to meet the targets."""
    config, seed = task.config, task.seed
    if config.has_targets:
        tuning_BD, verifying_BD = task.tuning_BD, task.verifying_BD
        selection = choose(item_ND, tuning_BD, verifying_BD, config, seed, task.progress)
        return _Result(selection.kind, selection.index, selection.index.to_bytes(), selection)
    kind, (items, dim) = kind_of(config.kind), item_ND.shape
    index = kind.build(item_ND, kind.plan(items, dim, config), seed)
    return _Result(config.kind, index, index.to_bytes())


def _written(task: BuildTask, result: _Result, row_N: Rows, truth: GroundTruth) -> BuiltIndex:
    """Write the index and its ids."""
    items, out, carried = task.items, task.out, result.carried
    out.write(INDEX_FILE, result.data)
    incremental = carried.write(out, row_N) if carried is not None else None
    delta_bytes = incremental.delta_bytes if incremental is not None else 0
    ids = pa.table([pa.array(row_N), pa.array(items.vocabulary.ids(row_N))], schema=IDS)
    out.write_table(IDS_FILE, ids)
    parameters = result.index.parameters
    sha256 = next(entry.sha256 for entry in out.entries if entry.path == INDEX_FILE)
    return BuiltIndex(
        kind=result.kind,
        index=result.index,
        bytes=len(result.data) + delta_bytes,
        estimate=kind_of(result.kind).estimate_bytes(len(row_N), items.dim, parameters),
        truth=truth,
        exact=exact_latency(truth.item_ND, truth.query_BD, truth.k),
        sha256=sha256,
        selection=result.selection,
        carried=carried,
        incremental=incremental,
    )
