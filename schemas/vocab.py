"""Artifact `vocab`: raw ids and their dense rows, from 0, of users and of items."""

from __future__ import annotations

import pyarrow as pa

from embedmill.schemas.contract import ArtifactContract, Count, Counters, Law
from embedmill.schemas.files import JsonFile, PartFiles, Stored

__all__ = [
    "BASE",
    "CONTRACT",
    "COUNTS",
    "FILES",
    "ROWS_PER_FILE",
    "SPEC",
    "VOCAB",
    "BaseRun",
    "Counts",
    "Histogram",
    "IdColumns",
    "SideRows",
    "VocabSpec",
    "forgotten_counter",
]

# Sorted by row. Rows of a new vocabulary go by falling count; an incremental one keeps the rows of
# its base and appends to them. `id` is null for shared rows, which stand for the ids that are not
# in the vocabulary, and for rows whose id was forgotten. `count` is events after merging and
# thresholds, 0 for a retired row. `missed` counts the latest runs in a row, this one included, in
# which the id did not have its minimum count. `live` rows have an id and events: nothing else is
# indexed or recommended.
VOCAB = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("missed", pa.int32(), nullable=False),
        pa.field("live", pa.bool_(), nullable=False),
    ]
)

ROWS_PER_FILE = 1 << 20
# By side, contiguous ranges of rows.
FILES = {side: PartFiles(side, rows_per_file=ROWS_PER_FILE) for side in ("users", "items")}


class IdColumns(Stored):
    """The columns of the raw log that ids come from."""

    user: str
    item: str


class SideRows(Stored):
    """Rows of one side: `total` of them, of which `shared` from `shared_from` have no id."""

    total: int
    shared_from: int
    shared: int


class VocabSpec(Stored):
    """What an incremental vocabulary must know of its base.

    `seed` is that of the hash which assigns ids to shared rows; 0 where there are none.
    """

    columns: IdColumns
    seed: int
    users: SideRows
    items: SideRows


class Histogram(Stored):
    """How many ids of one side have how many events, over all ids of `events`.

    `counts` has [least count, ids, events of these ids] of each bin that has ids, rising;
    `heaviest` [id, events] of the ids with most events, equal ones by id.
    """

    counts: list[tuple[int, int, int]]
    heaviest: list[tuple[str, int]]


class Counts(Stored):
    """Histograms of events per id."""

    users: Histogram
    items: Histogram


class BaseRun(Stored):
    """Folder or URL of the run whose vocabulary this one continues."""

    continues: str


def forgotten_counter(side: str) -> str:
    """Counter of rows of "users" or "items" whose id was forgotten, where there are any.

    They are among the retired ones.
    """
    return f"{side}_forgotten"


SPEC = JsonFile("spec.json", VocabSpec)
COUNTS = JsonFile("counts.json", Counts)
# Of an incremental vocabulary alone. Where the base is stored does not change what was computed.
BASE = JsonFile("previous.json", BaseRun, volatile=True)


def _status(c: Counters, n: Count) -> str:
    return f"{n(c['users_live'])} users, {n(c['items_live'])} items"


CONTRACT = ArtifactContract(
    status=_status,
    tables={files.folder: VOCAB for files in FILES.values()},
    laws=(
        Law(("events_in",), ("events_kept", "events_dropped")),
        Law(("users",), ("users_live", "users_retired", "users_shared")),
        Law(("items",), ("items_live", "items_retired", "items_shared")),
    ),
    rows={files.folder: side for side, files in FILES.items()},
)
