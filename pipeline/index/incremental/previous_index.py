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

__all__ = ["PreviousIndex", "find_previous_index", "sources", "unchanged_rows"]

_SOURCE = "index.previous"


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


def unchanged_rows(now: Vectors, before: Vectors) -> NDArray[np.bool_]:
    """Which rows of the previous run are live in both runs with the same vector, bit by bit.

    Reads both a range of rows at a time.

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
        same_R[first : first + rows] = same_ND.all(axis=1)
    live_now_R = np.zeros(before.count, bool)
    both = min(now.count, before.count)
    live_now_R[:both] = now.live()[:both]
    return same_R & live_now_R & before.live()
