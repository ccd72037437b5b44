"""Records of forgotten users and items are dropped before anything else is done with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.prepare.parse.ids import id_text
from embedmill.pipeline.prepare.parse.rejects import Rejects
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.rules.row_rules import select_records
from embedmill.pipeline.store.forgotten_ids import ForgottenIds
from embedmill.schemas.events import FORGOTTEN

__all__ = ["drop_forgotten"]


def drop_forgotten(
    batch: ParsedBatch, config: EventsConfig, forgotten: ForgottenIds, counts: Counter[str]
) -> ParsedBatch:
    """The records whose user and item are not forgotten.

    Lines that could not be parsed stay, as rejects; of one that names a forgotten id, as a field or
    a word, no byte is kept.

    Args:
        batch: as it was parsed.
        config: names the columns of ids.
        forgotten: forgotten ids.
        counts: gets the number of records that are dropped.
    """
    if not forgotten:
        return batch
    keep = np.ones(batch.rows, bool)
    for side, name in (("users", config.user), ("items", config.item)):
        keep &= ~forgotten.mask(side, id_text(batch.columns[name], name).text)
    counts[FORGOTTEN] += batch.rows - int(keep.sum())
    batch = replace(batch, rejects=_blanked(batch.rejects, forgotten))
    return batch if keep.all() else select_records(batch, keep)


def _blanked(rejects: Rejects, forgotten: ForgottenIds) -> Rejects:
    lines = [
        b"" if line is not None and forgotten.names_any(line) else line
        for line in rejects.raw.to_pylist()
    ]
    return replace(rejects, raw=pa.array(lines, pa.binary()))
