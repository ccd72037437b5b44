"""Raw ids and their rows: id → row → id.

Legend: R ids or rows asked for.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError, InputError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.number_columns import numbers
from embedmill.pipeline.views.row_files import RowFiles, Rows
from embedmill.schemas import export as export_schema
from embedmill.schemas import vocab as vocab_schema

__all__ = ["WIDE", "Side", "Vocabulary"]

Side = Literal["users", "items"]

# Text of more than 2 GiB in one array.
WIDE = pa.large_string()

_FOLDERS = {
    "vocab": {side: files.folder for side, files in vocab_schema.FILES.items()},
    "export": {side: files.folder for side, files in export_schema.FILES.items()},
}
_ROW_COLUMNS = ["row", "id", "count", "live"]
# Ids of one file that are compared with an unknown one.
_COMPARED = 1000


@dataclass(frozen=True)
class Vocabulary:
    """The ids of one side, read from `vocab`, or from `export`, which has the same rows.

    Files are read when they are needed, one at a time.
    """

    files: RowFiles
    side: str

    @staticmethod
    def of(artifact: Artifact, side: str) -> Vocabulary:
        """The vocabulary of "users" or "items" in a `vocab` or `export` artifact."""
        return Vocabulary(RowFiles(artifact, _FOLDERS[artifact.stage][side]), side)

    @property
    def count(self) -> int:
        """Rows, of which not all are live."""
        return self.files.count

    def live(self) -> NDArray[np.bool_]:
        """Which rows have an id and events, bool [count]: the others are no candidates."""
        return self.files.column("live").astype(bool)

    def event_counts(self) -> Rows:
        """Events of each row, int64 [count]."""
        return self.files.column("count").astype(np.int64)

    def ids(self, rows: Rows) -> list[str]:
        """Raw ids of some rows, in their order; None for a shared row, which has none."""
        ids = [""] * len(rows)
        for number, place, within in self.files.grouped(rows):
            taken = self._ids_of(number).take(pa.array(within))
            for at, raw in zip(place.tolist(), taken.to_pylist(), strict=True):
                ids[at] = raw
        return ids

    def id_column(self, number: int) -> pa.ChunkedArray:
        """Raw ids of the rows of file `number`, null where a row has none."""
        return self._ids_of(number)

    def rows_of(self, raw: pa.Array) -> Rows:
        """The row of each raw id, int64 [R]; -1 where there is no such id.

        Args:
            raw: string or, where they may have more than 2 GiB together, large_string [R].
        """
        row_R = np.full(len(raw), -1, np.int64)
        for number in range(len(self.files)):
            ids = self._ids_of(number).combine_chunks().cast(raw.type)
            place = pc.index_in(raw, value_set=ids, skip_nulls=True)
            at = np.flatnonzero(numbers(place.is_valid()))
            row_R[at] = self.files.starts[number] + numbers(place.drop_null())
        return row_R

    def row_of(self, raw: str) -> int:
        """The row of a raw id.

        Raises:
            InputError: there is no such id; names some that look like it.
        """
        similar: set[str] = set()
        for number in range(len(self.files)):
            ids = self._ids_of(number)
            place = pc.index(ids, raw).as_py()
            if place >= 0:
                return int(self.files.starts[number]) + int(place)
            # Ids that contain the first half of what was typed are compared more closely.
            stem = raw[: max(1, len(raw) // 2)]
            alike = pc.match_substring(ids, stem, ignore_case=True)
            similar.update(ids.filter(alike).slice(0, _COMPARED).to_pylist())
        singular = self.side.removesuffix("s")
        closest = difflib.get_close_matches(raw, sorted(similar), 3, 0.5)
        named = ", ".join(_quoted(one) for one in closest)
        raise InputError(
            f"no {singular} {_quoted(raw)} among {self.count:,}",
            where=self.files.artifact.storage.root,
            todo=f"Did you mean {named}?"
            if named
            else f"Give the {singular}'s id as the log has it",
        )

    def check_live(self, row: int) -> None:
        """Raise InputError where the row of an id is retired."""
        ((number, _, within),) = self.files.grouped(np.array([row]))
        table = self.files.read(number, ["id", "live"]).slice(int(within[0]), 1)
        if not table["live"][0].as_py():
            singular, raw = self.side.removesuffix("s"), table["id"][0].as_py()
            raise InputError(
                f"{singular} {_quoted(raw)} is retired: its row is kept, "
                "but this run has no events to learn its vector from",
                where=self.files.artifact.storage.root,
            )

    def blocks(self, rows: int) -> Iterator[tuple[int, pa.Table]]:
        """All rows in order, (first row, columns row, id, count, live) of at most `rows` each.

        A block does not extend over the end of a file; one file is in memory at a time.

        Raises:
            ContractError: rows are not dense and in order.
        """
        for number in range(len(self.files)):
            yield from self.blocks_of(number, rows)

    def blocks_of(self, number: int, rows: int) -> Iterator[tuple[int, pa.Table]]:
        """The rows of file `number`, in blocks as of `blocks`."""
        table, first = self.files.read(number, _ROW_COLUMNS), int(self.files.starts[number])
        expected = np.arange(first, int(self.files.starts[number + 1]))
        if not np.array_equal(numbers(table["row"]), expected):
            raise ContractError(
                "rows are not dense and in order",
                where=self.files.artifact.url(self.files.entries[number].path),
            )
        for start in range(0, table.num_rows, rows):
            yield first + start, table.slice(start, rows)

    def _ids_of(self, number: int) -> pa.ChunkedArray:
        return self.files.read(number, ["id"])["id"]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
