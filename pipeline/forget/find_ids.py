"""What a run knows of forgotten ids, found by their hashes before anything is erased.

Legend: E events of a file, D coordinates.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.forgotten_ids import SIDES, ForgottenIds
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.events import Events
from embedmill.pipeline.views.tables import open_table
from embedmill.pipeline.views.train import Training
from embedmill.pipeline.views.vectors import Vectors
from embedmill.pipeline.views.vocab import Vocab
from embedmill.schemas.erasure import FoundId, PendingRun
from embedmill.schemas.stages import STAGES

__all__ = ["Found", "find_ids", "merged", "rows_of"]

_COLUMNS = {"users": "user", "items": "item"}
Shared = tuple[int, int, int | None, float]


class Found:
    """Forgotten ids of a run: `known` is what is stored until all is erased, `raw` is not."""

    def __init__(self, known: PendingRun, raw: Mapping[str, set[str]]) -> None:
        self.known = known
        self.raw = raw


def find_ids(run: Run, forgotten: ForgottenIds) -> Found:
    """Rows, events and vectors of the forgotten ids of a run, as far as its stages have finished.

    Args:
        run: the run.
        forgotten: forgotten ids.
    """
    stages = {stage: run.find(stage) for stage in STAGES}
    ids: dict[str, dict[str, FoundId]] = {side: {} for side in SIDES}
    raw: dict[str, set[str]] = {side: set() for side in SIDES}
    if (vocab := stages["vocab"]) is not None:
        for side in SIDES:
            for found, name, digest in _of_vocabulary(vocab, side, forgotten):
                ids[side][digest] = found
                raw[side].add(name)
    shared: list[Shared] = []
    if (events := stages["events"]) is not None:
        tables = list(_events(events, forgotten))
        for side in SIDES:
            for name, count in _counts(tables, side).items():
                for digest in forgotten.named(side, [name]).values():
                    raw[side].add(name)
                    known = ids[side].get(digest, FoundId(row=-1, live=False, events=0))
                    ids[side][digest] = known.model_copy(update={"events": count})
        if vocab is not None:
            shared = _shared(tables, vocab, raw, forgotten, ids)
    rows = {side: [one.row for one in ids[side].values() if one.row >= 0] for side in SIDES}
    pending = PendingRun(
        users=ids["users"],
        items=ids["items"],
        shared=shared,
        vectors=sorted(_vectors(stages["train"], stages["export"], rows)),
        before={stage: one.manifest.content for stage, one in stages.items() if one is not None},
    )
    return Found(pending, raw)


def merged(now: PendingRun, before: PendingRun | None) -> PendingRun:
    """What is found now, with what a command that was killed had found: it has erased some."""
    if before is None:
        return now
    sides = {side: dict(getattr(before, side)) for side in SIDES}
    for side, known in sides.items():
        for digest, one in getattr(now, side).items():
            then = known.get(digest, one)
            known[digest] = FoundId(
                row=max(one.row, then.row),
                live=one.live or then.live,
                events=max(one.events, then.events),
            )
    shared = Counter(before.shared) | Counter(now.shared)
    return PendingRun(
        **sides,
        shared=sorted(shared.elements(), key=str),
        vectors=sorted({*before.vectors, *now.vectors}),
        before={**now.before, **before.before},
    )


def rows_of(known: PendingRun, side: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Rows of the forgotten ids of a side, rising, int64."""
    found = {one.row for one in getattr(known, side).values()} - {-1}
    return np.array(sorted(found), np.int64)


def _of_vocabulary(
    vocab: Artifact, side: str, forgotten: ForgottenIds
) -> Iterable[tuple[FoundId, str, str]]:
    if not forgotten.hashes[side]:
        return
    for entry in Vocab(vocab).files(side):
        table = vocab.read_table(entry.path, ["row", "id", "live"])
        chosen = table.filter(pa.array(forgotten.mask(side, table["id"])))
        for one in chosen.to_pylist():
            found = FoundId(row=one["row"], live=one["live"], events=0)
            yield found, one["id"], forgotten.hash(side, one["id"])


def _events(events: Artifact, forgotten: ForgottenIds) -> Iterable[pa.Table]:
    """The events of forgotten users or items."""
    for entry in Events(events).files:
        table = events.read_table(entry.path)
        bad_E = np.zeros(table.num_rows, bool)
        for side, column in _COLUMNS.items():
            bad_E |= forgotten.mask(side, table[column])
        if bad_E.any():
            yield table.filter(pa.array(bad_E))


def _counts(tables: Iterable[pa.Table], side: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for table in tables:
        for one in table[_COLUMNS[side]].value_counts().to_pylist():
            counts[one["values"]] += one["counts"]
    return counts


def _shared(
    tables: Iterable[pa.Table],
    vocab: Artifact,
    raw: Mapping[str, set[str]],
    forgotten: ForgottenIds,
    ids: Mapping[str, Mapping[str, FoundId]],
) -> list[Shared]:
    """Events of forgotten ids that have no live row of their own: they trained shared rows."""
    spec = Vocab(vocab).spec
    if not (spec.users.shared or spec.items.shared):
        return []
    lost = {
        side: {one for one in raw[side] if not _is_live(ids[side], forgotten.hash(side, one))}
        for side in SIDES
    }
    found = []
    for table in tables:
        named = np.zeros(table.num_rows, bool)
        for side, column in _COLUMNS.items():
            values = pa.array(sorted(lost[side]), pa.string())
            named |= pc.is_in(table[column], values).to_numpy(zero_copy_only=False)
        found.append(table.filter(pa.array(named)))
    if not found:
        return []
    every = pa.concat_tables(found)
    rows = {side: _live_rows(vocab, side, every[column]) for side, column in _COLUMNS.items()}
    times, weights = every["time"].to_pylist(), every["weight"].to_pylist()
    return [
        (rows["users"].get(user, -1), rows["items"].get(item, -1), time, float(np.float32(weight)))
        for user, item, time, weight in zip(
            every["user"].to_pylist(), every["item"].to_pylist(), times, weights, strict=True
        )
    ]


def _is_live(known: Mapping[str, FoundId], digest: str) -> bool:
    return digest in known and known[digest].live


def _live_rows(vocab: Artifact, side: str, ids: pa.ChunkedArray) -> dict[str, int]:
    rows: dict[str, int] = {}
    for entry in Vocab(vocab).files(side):
        table = vocab.read_table(entry.path, ["row", "id", "live"])
        chosen = table.filter(pc.and_(table["live"], pc.is_in(table["id"], ids.unique())))
        rows |= dict(zip(chosen["id"].to_pylist(), chosen["row"].to_pylist(), strict=True))
    return rows


def _vectors(
    train: Artifact | None, export: Artifact | None, rows: Mapping[str, list[int]]
) -> set[str]:
    """Vectors of some rows as they are stored, in base64; none of zeros."""
    found: set[bytes] = set()
    for side, wanted in rows.items():
        if not wanted:
            continue
        if train is not None:
            table = open_table(train, side, getattr(Training(train).model, side))
            found |= {table.read("weight", row, row + 1).tobytes() for row in wanted}
        if export is not None:
            found |= {one.tobytes() for one in Vectors.of(export, side).gather(np.array(wanted))}
    return {base64.b64encode(one).decode() for one in found if any(one)}
