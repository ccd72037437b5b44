"""The index of the run that this one continues, and which of its items have not changed.

Legend: R rows of the previous run, S slots of its base, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run, open_run
from embedmill.pipeline.views.vectors import Vectors
from embedmill.pipeline.views.vocab import Vocab

__all__ = ["PreviousIndex", "find_previous_index", "near_slots", "sources", "unchanged_rows"]

_SOURCE = "index.previous"
_SLOTS = 1 << 17  # compared at once


@dataclass(frozen=True)
class PreviousIndex:
    """Artifacts of the previous run: its index, and the vectors that it was built from."""

    index: Artifact
    export: Artifact


def find_previous_index(run: Run) -> PreviousIndex | None:
    """The index of the run whose vocabulary this run continues.

    None, so that a new index is built, where the config asks for none, where there is no previous
    run, where it has not finished its index, or where another version of this program wrote it.

    Raises:
        MissingArtifactError: the previous run is no longer there.
    """
    if not run.config.index.carry_over:
        return None
    base_run = Vocab(run.artifact("vocab")).base_run()
    if base_run is None:
        return None
    previous = open_run(base_run.continues)
    index, export = previous.find("index"), previous.find("export")
    if index is None or export is None or not (index.readable and export.readable):
        return None
    return PreviousIndex(index, export)


def sources(run: Run) -> Mapping[str, Any]:
    """The content hash of the previous index, for the fingerprint of the stage.

    A finished stage keeps those that it was built from: it is not stale because a previous index
    has appeared since.
    """
    manifest = run.manifest("index")
    if manifest is not None:
        return manifest.sources
    previous = find_previous_index(run)
    return {} if previous is None else {_SOURCE: previous.index.manifest.content}


def near_slots(
    now: Vectors, row_S: NDArray[np.int64], slot_SD: NDArray[np.float32], epsilon: float
) -> NDArray[np.bool_]:
    """Which slots of a base have nearly the vector of today, bool [S]; false for tombstones.

    Args:
        now: today's vectors.
        row_S: row of each slot, -1 for tombstones.
        slot_SD: the vectors that the base was built with, float32 [S, D].
        epsilon: distance, relative to their mean length, up to which a vector may stay.
    """
    live_S = (row_S >= 0) & (row_S < now.count)
    slots, near_S = np.flatnonzero(live_S), np.zeros(len(row_S), bool)
    length = float(np.linalg.norm(slot_SD[slots], axis=1).mean()) if len(slots) else 0.0
    for start in range(0, len(slots), _SLOTS):
        part = slots[start : start + _SLOTS]
        moved = np.linalg.norm(now.gather(row_S[part]) - slot_SD[part], axis=1)
        near_S[part] = moved <= epsilon * length
    return near_S


def unchanged_rows(now: Vectors, before: Vectors, *, any_bits: bool = False) -> NDArray[np.bool_]:
    """Which rows of the previous run are live in both runs with the same vector, bit by bit.

    Reads both a range of rows at a time.

    Args:
        now: vectors of this run.
        before: those of the previous run.
        any_bits: take every vector for the same, and compare ids alone.

    Returns:
        bool [R].

    Raises:
        ContractError: a row has another id than before.
    """
    same_R = np.zeros(before.count, bool)
    if now.dim != before.dim:
        return same_R
    blocks = zip(before.blocks(), now.blocks(), strict=False)
    for number, ((first, old_ND), (_, new_ND)) in enumerate(blocks):
        rows = min(len(old_ND), len(new_ND))
        ids, ids_before = (one.vocabulary.id_column(number).slice(0, rows) for one in (now, before))
        if not ids.equals(ids_before):
            raise ContractError(
                f"of rows from {first:,} on, some have another id than in {before.export.url('')}",
                where=now.export.storage.root,
                todo="This is a bug of the incremental vocabulary; set index.carry_over = 0",
            )
        same_ND = old_ND[:rows].view(np.uint32) == new_ND[:rows].view(np.uint32)
        same_R[first : first + rows] = True if any_bits else same_ND.all(axis=1)
    live_now_R = np.zeros(before.count, bool)
    both = min(now.count, before.count)
    live_now_R[:both] = now.live()[:both]
    return same_R & live_now_R & before.live()
