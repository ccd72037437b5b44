"""What every reader yields: a batch of records as columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from embedmill.pipeline.prepare.parse.mixed import Column
from embedmill.pipeline.prepare.parse.rejects import Rejects
from embedmill.pipeline.prepare.parse.values import Ints

__all__ = ["ParsedBatch"]


@dataclass(frozen=True)
class ParsedBatch:
    """Well-formed records of a slice, and the lines that hold none.

    Attributes:
        columns: values by column name, [N] each; in CSV and its like strings, in JSON
            strings and fractions.
        lines: the line that each record starts at, from 1, [N].
        raw: takes positions of records and returns their bytes as they are in the file.
        rejects: lines or records that could not be parsed.
        empty_lists: records whose list of events (`events.explode`) is empty.
    """

    columns: dict[str, Column]
    lines: Ints
    raw: Callable[[Ints], pa.Array]
    rejects: Rejects
    empty_lists: int = 0

    @property
    def rows(self) -> int:
        """Number of well-formed records."""
        return len(self.lines)
