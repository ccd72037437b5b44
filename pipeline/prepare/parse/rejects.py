"""Rejected lines and records: all are counted, the first of each reason are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.prepare.parse.values import Ints
from embedmill.schemas.events import CODES, REASONS, REJECTS

__all__ = ["MAX_RAW", "RejectCollector", "Rejects", "first_per_reason", "truncated"]

MAX_RAW = 4096  # bytes kept of a rejected line
_REASONS = np.array(list(REASONS))
_REASON_NAMES = pa.array(list(REASONS))


@dataclass(frozen=True)
class Rejects:
    """Rejected lines or records of a batch, in no order.

    Attributes:
        lines: line number of each, [N].
        codes: the reason, as its position in REASONS, [N].
        raw: the first MAX_RAW bytes of each, [N]; null where `events.keep_rejects` records were
            rejected before it for the same reason, so that it will not be kept.
    """

    lines: Ints
    codes: npt.NDArray[np.int8]
    raw: pa.Array

    @classmethod
    def empty(cls) -> Rejects:
        """No rejects."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int8), pa.array([], pa.binary()))

    @classmethod
    def for_reason(cls, reason: str, lines: Ints, raw: pa.Array) -> Rejects:
        """Rejects that all have one reason."""
        return cls(lines, np.full(len(lines), CODES[reason], np.int8), truncated(raw))

    @classmethod
    def concat(cls, parts: Sequence[Rejects]) -> Rejects:
        """The rejects of all parts."""
        parts = [part for part in parts if len(part.lines)]
        if len(parts) < 2:
            return parts[0] if parts else cls.empty()
        return cls(
            np.concatenate([part.lines for part in parts]),
            np.concatenate([part.codes for part in parts]),
            pa.concat_arrays([part.raw for part in parts]),
        )

    @property
    def reasons(self) -> list[str]:
        """The reason of each."""
        return _REASONS[self.codes].tolist()  # type: ignore[no-any-return]


class RejectCollector:
    """Counts the rejects of one read task and keeps the first of each reason.

    Which ones are kept depends on files and lines only, never on timing.

    Args:
        most: how many to keep of each reason.
    """

    def __init__(self, most: int) -> None:
        self.counts: Counter[str] = Counter()
        self._most = most
        self._kept = np.zeros(len(REASONS), np.int64)
        self._tables: list[pa.Table] = []

    def add(self, name: str, rejects: Rejects) -> None:
        """Add the rejects of a batch of the file called `name`; batches come in order of lines."""
        if not len(rejects.lines):
            return
        by_code = np.bincount(rejects.codes, minlength=len(REASONS))
        self.counts["rejected"] += len(rejects.lines)
        for reason, code in CODES.items():
            if by_code[code]:
                self.counts[f"rejected.{reason}"] += int(by_code[code])
        rows = first_per_reason(rejects.lines, rejects.codes, self._most - self._kept)
        self._kept += np.bincount(rejects.codes[rows], minlength=len(REASONS))
        columns = [
            pa.array([name]).take(pa.array(np.zeros(len(rows), np.int64))),
            pa.array(rejects.lines[rows]),
            _REASON_NAMES.take(pa.array(rejects.codes[rows])),
            rejects.raw.take(pa.array(rows)),
        ]
        if len(rows):
            self._tables.append(pa.Table.from_arrays(columns, schema=REJECTS))

    def table(self) -> pa.Table | None:
        """The kept rejects (schema REJECTS), or None where there are none."""
        if not self._tables:
            return None
        self.counts["rejects_kept"] = int(self._kept.sum())
        return pa.concat_tables(self._tables).combine_chunks()


def first_per_reason(lines: Ints, codes: npt.NDArray[np.int8], most: Ints | int) -> Ints:
    """Positions of the first rejects of each reason, in order of lines.

    Args:
        lines: line number of each reject, [N].
        codes: reason of each reject, [N].
        most: how many of each reason: one number for all, or an array by code.
    """
    order = np.argsort(lines, kind="stable")
    most_of, keep = np.broadcast_to(most, len(REASONS)), np.zeros(len(order), bool)
    for code in np.unique(codes):
        keep[np.flatnonzero(codes[order] == code)[: max(0, int(most_of[code]))]] = True
    return order[keep]


def truncated(raw: pa.Array) -> pa.Array:
    """Binary values cut to MAX_RAW bytes."""
    return pc.binary_slice(raw.cast(pa.binary()), 0, MAX_RAW)
