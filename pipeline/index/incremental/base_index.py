"""The index of the run that this one continues, and which of its items have not changed.

Legend: N items of this run, R rows of the run before, P places of its base, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.contract import Rows
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import CONTINUES, Run, open_run
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["BASE", "Previous", "find_previous", "sources", "unchanged"]

# Of an index that is carried over: the row of each place of `items.faiss`, null for tombstones.
BASE = "base.parquet"
STAMP = "index.previous"


@dataclass(frozen=True)
class Previous:
    """The artifacts of the run before that are read again."""

    index: Artifact
    export: Artifact

    def base_P(self) -> Rows:  # noqa: N802 (a shape)
        """The row of each place of its base, -1 for tombstones."""
        path = BASE if self.index.has(BASE) else "ids.parquet"
        column = self.index.read_table(path, ["row"])["row"]
        return np.asarray(column.fill_null(-1).to_numpy(), np.int64)


def find_previous(run: Run) -> Previous | None:
    """The run whose rows of ids this one keeps, where it has an index that can be read.

    None where nothing is to be carried over: there is no run before, it has not finished its
    index, or another version of this program wrote it. A new index is then built.

    Raises:
        MissingArtifactError: the run before is no longer there.
    """
    if not run.config.index.carry_over:
        return None
    vocab = run.artifact("vocab")
    if not vocab.has("previous.json"):
        return None
    before = open_run(vocab.read_json("previous.json")[CONTINUES])
    index, export = before.find("index"), before.find("export")
    if index is None or export is None or not (index.readable and export.readable):
        return None
    return Previous(index, export)


def sources(run: Run) -> Mapping[str, Any]:
    """The content of the previous index, for the fingerprint.

    A finished stage is not stale because another index was built before it since.
    """
    done = run.manifest("index")
    if done is not None:
        return done.sources
    previous = find_previous(run)
    return {} if previous is None else {STAMP: previous.index.manifest.content}


def unchanged(now: Vectors, before: Vectors) -> NDArray[np.bool_]:
    """Which rows of the run before are live in both and have the same vector, byte by byte.

    Reads both a range at a time.

    Returns:
        bool [R].

    Raises:
        ContractError: a row has another id than it had.
    """
    same_R = np.zeros(before.count, bool)
    if now.dim != before.dim:
        return same_R
    for (first, old_ND), (_, new_ND) in zip(before.blocks(), now.blocks(), strict=False):
        held = min(len(old_ND), len(new_ND))
        if not now.range_ids(first).slice(0, held).equals(before.range_ids(first).slice(0, held)):
            raise ContractError(
                f"of rows from {first:,} on, some have another id than in {before.export.url('')}",
                where=now.export.storage.root,
                todo="This is a bug of the vocabulary that continues it; set index.carry_over = 0",
            )
        alike = old_ND[:held].view(np.uint32) == new_ND[:held].view(np.uint32)
        same_R[first : first + held] = alike.all(axis=1)
    live = np.zeros(before.count, bool)
    both = min(now.count, before.count)
    live[:both] = now.live()[:both]
    return same_R & live & before.live()
