"""Rejected records on disk: all are counted, the first of each reason kept."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from embedmill.pipeline.prepare.readers.parsed_batch import Rejects, first_of_each
from embedmill.schemas.events import CODES, REASONS, REJECTS

__all__ = ["Kept"]

_NAMES = pa.array(list(REASONS))


class Kept:
    """Rejects of the splits that a task reads together.

    Which are kept depends on files and lines alone: the first `most` of each reason.
    """

    def __init__(self, most: int) -> None:
        self.counts: Counter[str] = Counter()
        self._most = most
        self._kept = np.zeros(len(REASONS), np.int64)
        self._tables: list[pa.Table] = []

    def add(self, name: str, rejects: Rejects) -> None:
        """Rejects of a block of the file called `name`; blocks come in order of lines."""
        if not len(rejects.lines):
            return
        found = np.bincount(rejects.codes, minlength=len(REASONS))
        self.counts["rejected"] += len(rejects.lines)
        for reason, code in CODES.items():
            if found[code]:
                self.counts[f"rejected.{reason}"] += int(found[code])
        rows = first_of_each(rejects.lines, rejects.codes, self._most - self._kept)
        self._kept += np.bincount(rejects.codes[rows], minlength=len(REASONS))
        columns = [
            pa.array([name]).take(pa.array(np.zeros(len(rows), np.int64))),
            pa.array(rejects.lines[rows]),
            _NAMES.take(pa.array(rejects.codes[rows])),
            rejects.raw.take(pa.array(rows)),
        ]
        if len(rows):
            self._tables.append(pa.Table.from_arrays(columns, schema=REJECTS))

    def table(self) -> pa.Table | None:
        """What was kept (schema REJECTS), or None."""
        if not self._tables:
            return None
        self.counts["rejects_kept"] = int(self._kept.sum())
        return pa.concat_tables(self._tables).combine_chunks()
