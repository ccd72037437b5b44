"""An earlier run that a run goes on from: where it is, and which of its rows are the same ids.

Legend: N rows of the run, R rows of the earlier one.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedmill.pipeline.errors import MissingArtifactError
from embedmill.pipeline.store.run import Run, published
from embedmill.pipeline.views.vocab import Vocab
from embedmill.pipeline.views.vocabulary import WIDE, Vocabulary

__all__ = ["PUBLISHED", "earlier_folder", "earlier_rows"]

PUBLISHED = "published"  # the value of a key that names the published run

Rows = NDArray[np.int64]


def earlier_folder(run: Run, name: str) -> str:
    """Folder or URL of the run that a key names; empty for none.

    "published" is the run whose vocabulary this one continues, where that was named in the same
    way, so that all stages of a night go on from the same run, whatever is published meanwhile;
    else the run that is published now, and if that is this run, the one that it continued.
    """
    root = run.config.run.root.rstrip("/")
    if not name or name != PUBLISHED:
        return name.rstrip("/") if "/" in name or not name else f"{root}/{name}"
    if run.config.vocab.previous == PUBLISHED and run.manifest("vocab") is not None:
        base = _base(run)
        return base if base.rstrip("/") != run.storage.root.rstrip("/") else ""
    pointer = published(run.config.run.root)
    if pointer is None:
        return ""
    own = pointer.run == run.config.run.name
    return (pointer.base_run or "") if own else f"{root}/{pointer.run}"


def _base(run: Run) -> str:
    try:
        base = Vocab(run.artifact("vocab")).base_run()
    except MissingArtifactError:
        return ""
    return base.continues if base is not None else ""


def earlier_rows(now: Vocabulary, before: Vocabulary) -> Rows:
    """For each row its row in the earlier run, int64 [N]; -1 unless its id is in use in both.

    A continued vocabulary keeps the rows of its ids; any other is joined by id.
    """
    row_N = np.full(now.count, -1, np.int64)
    if _continues(now, before):
        row_N[: before.count] = np.arange(before.count)
    else:
        # All ids of a side may have more bytes than offsets of 32 bits reach.
        ids = [now.id_column(n).combine_chunks().cast(WIDE) for n in range(len(now.files))]
        every = pa.concat_arrays(ids) if ids else pa.array([], WIDE)
        named = np.flatnonzero(every.is_valid().to_numpy(zero_copy_only=False))
        row_N[named] = before.rows_of(every.take(pa.array(named)))
    live_R = before.live()
    known_N = (row_N >= 0) & now.live()
    known_N[known_N] = live_R[row_N[known_N]]
    return np.where(known_N, row_N, -1)


def _continues(now: Vocabulary, before: Vocabulary) -> bool:
    """Whether all rows of the earlier run have the same ids now."""
    if now.count < before.count or len(now.files) < len(before.files):
        return False
    for number in range(len(before.files)):
        ids = before.id_column(number)
        if not now.id_column(number).slice(0, len(ids)).equals(ids):
            return False
    return True
