"""What `export` wrote, for those who read it: vectors by range, ids by row, rows by id.

Legend: N vectors of a block, R rows asked for, D coordinates as exported.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.store.artifact import Artifact

__all__ = ["RANGE", "Spec", "Vectors", "part_path", "to_matrix"]

# Rows of one Parquet file of `export`.
RANGE = 1 << 17

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Spec:
    """`export/spec.json`: what the vectors are.

    `dim` counts their coordinates, `model_dim` those of the model (one fewer where there
    are biases). A rating is `mean` + user bias + inner product. `fitted` are the splits that
    the final vectors were fitted to: train, and valid too after a refit.
    """

    objective: str
    similarity: str
    dim: int
    model_dim: int
    bias: bool
    mean: float
    users: int
    items: int
    metric: str = "inner_product"
    fitted: tuple[str, ...] = ("train",)

    @staticmethod
    def of(export: Artifact) -> Spec:
        """The spec of an export artifact."""
        said = export.read_json("spec.json")
        return Spec(**{**said, "fitted": tuple(said["fitted"])})

    def as_json(self) -> dict[str, Any]:
        """What is stored."""
        return asdict(self)


def part_path(side: str, number: int) -> str:
    """Path of the file with rows from `number` * RANGE."""
    return f"{side}/part-{number:05d}.parquet"


def to_matrix(column: pa.ChunkedArray, dim: int) -> Floats:
    """A column of fixed-size lists as float32 [N, dim], a copy that can be written to."""
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    joined = np.concatenate(flat) if flat else np.empty(0, np.float32)
    return np.array(joined, dtype=np.float32).reshape(-1, dim)


@dataclass(frozen=True)
class Vectors:
    """The exported vectors of one side, read a range at a time.

    `side` is "users" or "items"; `count` and `dim` are N and D of the whole table.
    """

    export: Artifact
    side: str
    count: int
    dim: int

    @staticmethod
    def of(export: Artifact, side: str) -> Vectors:
        """The vectors of `side` of an export artifact."""
        spec = Spec.of(export)
        count = spec.users if side == "users" else spec.items
        return Vectors(export, side, count, spec.dim)

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """(first row, float32 [N, D]) of every range, rows rising."""
        for first in range(0, self.count, RANGE):
            yield first, to_matrix(self._column(first // RANGE, "vector"), self.dim)

    def load(self) -> Floats:
        """All vectors, float32 [count, D]."""
        whole = np.empty((self.count, self.dim), np.float32)
        for first, block_ND in self.blocks():
            whole[first : first + len(block_ND)] = block_ND
        return whole

    def gather(self, rows: Rows) -> Floats:
        """Vectors of some rows in their order, float32 [R, D]; reads each range once."""
        found_RD = np.empty((len(rows), self.dim), np.float32)
        number = rows // RANGE
        for one in np.unique(number):
            at = np.flatnonzero(number == one)
            block_ND = to_matrix(self._column(int(one), "vector"), self.dim)
            found_RD[at] = block_ND[rows[at] - one * RANGE]
        return found_RD

    def column(self, name: str) -> NDArray[Any]:
        """A column of numbers ("count", "bias", "live") over all rows."""
        parts = [self._column(n, name).to_numpy() for n in range(-(-self.count // RANGE))]
        return np.concatenate(parts) if parts else np.empty(0)

    def check_live(self, row: int) -> None:
        """Raise InputError where the row of an id is retired."""
        number, place = divmod(row, RANGE)
        if not self._column(number, "live")[place].as_py():
            one, raw = self.side.removesuffix("s"), self._column(number, "id")[place].as_py()
            raise InputError(
                f"{one} {json.dumps(raw, ensure_ascii=False)} is retired: its row is kept, "
                "but this run has no events to learn its vector from",
                where=self.export.storage.root,
            )

    def live(self) -> NDArray[np.bool_]:
        """Which rows have an id and events, bool [count]: the others are no candidates."""
        return self.column("live").astype(bool)

    def ids(self, rows: Rows) -> list[str]:
        """Raw ids of some rows, in their order."""
        found = [""] * len(rows)
        number = rows // RANGE
        for one in np.unique(number):
            at = np.flatnonzero(number == one)
            taken = self._column(int(one), "id").take(pa.array(rows[at] - one * RANGE))
            for place, raw in zip(at.tolist(), taken.to_pylist(), strict=True):
                found[place] = raw
        return found

    def range_ids(self, first: int) -> pa.ChunkedArray:
        """Raw ids of the range of rows that begins with `first`, null where a row has none."""
        return self._column(first // RANGE, "id")

    def rows_of(self, raw: pa.Array) -> Rows:
        """The row of each raw id, int64 [R]; -1 where there is no such id."""
        found_R = np.full(len(raw), -1, np.int64)
        for number in range(-(-self.count // RANGE)):
            ids = self._column(number, "id").combine_chunks()
            place = pc.index_in(raw, value_set=ids, skip_nulls=True)
            at = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
            found_R[at] = number * RANGE + place.drop_null().to_numpy()
        return found_R

    def find(self, raw: str) -> int:
        """The row of a raw id.

        Raises:
            InputError: there is no such id; names some that look like it.
        """
        near: set[str] = set()
        for number in range(-(-self.count // RANGE)):
            ids = self._column(number, "id")
            place = pc.index(ids, raw).as_py()
            if place >= 0:
                return number * RANGE + int(place)
            # Ids that hold what was typed, or begin alike, are worth a closer look.
            stem = raw[: max(1, len(raw) // 2)]
            alike = pc.match_substring(ids, stem, ignore_case=True)
            near.update(ids.filter(alike).slice(0, 1000).to_pylist())
        one = self.side.removesuffix("s")
        close = difflib.get_close_matches(raw, sorted(near), 3, 0.5)
        named = ", ".join(json.dumps(c, ensure_ascii=False) for c in close)
        raise InputError(
            f"no {one} {json.dumps(raw, ensure_ascii=False)} among {self.count:,}",
            where=self.export.storage.root,
            todo=f"Did you mean {named}?" if named else f"Give the {one}'s id as the log has it",
        )

    def _column(self, number: int, name: str) -> pa.ChunkedArray:
        return self.export.read_table(part_path(self.side, number), [name])[name]
