"""Forgotten ids are taken out of the artifacts of the data stages: events, vocab, shards.

Legend: E rows of a file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedmill.pipeline.forget.find_ids import rows_of
from embedmill.pipeline.forget.rewrite import Changed
from embedmill.pipeline.forget.spellings import names_one
from embedmill.pipeline.prepare.histograms import bin_indices, bin_lower_bounds
from embedmill.pipeline.prepare.vocabulary.shared_rows import is_shared
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.forgotten_ids import SIDES, ForgottenIds
from embedmill.pipeline.store.parquet import parquet_bytes
from embedmill.pipeline.views.events import Events
from embedmill.pipeline.views.vocab import Vocab
from embedmill.schemas import shards as shards_schema
from embedmill.schemas.erasure import FoundId, PendingRun
from embedmill.schemas.events import DAYS, FORGOTTEN, ITEMS, REJECTED
from embedmill.schemas.vocab import COUNTS, VOCAB, Counts, Histogram, SideRows, forgotten_counter

__all__ = ["erase_events", "erase_shards", "erase_vocab"]

Mask = NDArray[np.bool_]
Counters = dict[str, int]


def erase_events(
    events: Artifact,
    forgotten: ForgottenIds,
    pattern: re.Pattern[bytes] | None,
    counters: Counters,
) -> Iterator[Changed]:
    """Files of `events` without forgotten ids: their events, and the bytes of rejected lines.

    Args:
        events: the artifact.
        forgotten: forgotten ids.
        pattern: matches lines that name an id whose text is known.
        counters: of the artifact; changed.
    """
    days: Counter[str] = Counter()
    for entry in Events(events).files:
        table = events.read_table(entry.path)
        bad_E = forgotten.mask("users", table["user"]) | forgotten.mask("items", table["item"])
        if not bad_E.any():
            continue
        days.update(_day(time) for time in table["time"].filter(pa.array(bad_E)).to_pylist())
        yield _table(entry.path, table.filter(pa.array(~bad_E)))
        counters["events"] -= int(bad_E.sum())
        counters[FORGOTTEN] = counters.get(FORGOTTEN, 0) + int(bad_E.sum())
    if days and events.has(DAYS.path):
        before: list[tuple[str, int]] = events.read_json(DAYS)
        left = Counter(dict(before)) - days
        yield Changed(DAYS.path, DAYS.encode(sorted(left.items())))
    for entry in events.files(REJECTED.folder):
        table = events.read_table(entry.path)
        lines = table["raw"].to_pylist()
        kept = [b"" if _names(line, pattern, forgotten) else line for line in lines]
        if kept != lines:
            place = table.schema.get_field_index("raw")
            raw = pa.array(kept, pa.binary())
            yield _table(entry.path, table.set_column(place, table.schema.field("raw"), raw))
    if events.has(ITEMS):
        table = events.read_table(ITEMS)
        bad_E = forgotten.mask("items", table["item"])
        if bad_E.any():
            yield _table(ITEMS, table.filter(pa.array(~bad_E)))


def erase_vocab(
    vocab: Artifact, forgotten: ForgottenIds, known: PendingRun, events: int, counters: Counters
) -> Iterator[Changed]:
    """Files of `vocab` in which the rows of forgotten ids have no id, no events, and are retired.

    Args:
        vocab: the artifact.
        forgotten: forgotten ids.
        known: what the run knew of them.
        events: that are left in the stage `events`.
        counters: of the artifact; changed.
    """
    lost = dict.fromkeys(SIDES, 0)
    for side in SIDES:
        for entry in Vocab(vocab).files(side):
            table = vocab.read_table(entry.path)
            bad_E = forgotten.mask(side, table["id"])
            if not bad_E.any():
                continue
            was_live = int(pc.sum(table["live"].filter(pa.array(bad_E))).as_py() or 0)
            lost[side] += int(pc.sum(table["count"].filter(pa.array(bad_E))).as_py() or 0)
            yield _table(entry.path, _retired(table, bad_E))
            counters[f"{side}_live"] -= was_live
            counters[f"{side}_retired"] = counters.get(f"{side}_retired", 0) + was_live
            name = forgotten_counter(side)
            counters[name] = counters.get(name, 0) + int(bad_E.sum())
    dropped = counters["events_in"] - events
    kept = min(dropped, max(lost.values()))
    counters["events_in"] -= dropped
    counters["events_kept"] -= kept
    counters["events_dropped"] -= dropped - kept
    counts = Vocab(vocab).counts()
    if counts is not None:
        first = vocab.manifest.content == known.before.get("vocab")  # not erased from before
        now = Counts(
            users=_histogram(counts.users, known.users if first else {}, "users", forgotten),
            items=_histogram(counts.items, known.items if first else {}, "items", forgotten),
        )
        if now != counts:
            yield Changed(COUNTS.path, COUNTS.encode(now))


def erase_shards(
    shards: Artifact, vocab: Artifact, known: PendingRun, events: int, counters: Counters
) -> Iterator[Changed]:
    """Files of `shards` without events of forgotten ids, and without pairs of forgotten items.

    Args:
        shards: the artifact.
        vocab: of the same run.
        known: what the run knew of the ids.
        events: that are left in the stage `events`.
        counters: of the artifact; changed.
    """
    users, items = rows_of(known, "users"), rows_of(known, "items")
    left: Counter[tuple[int, int, int | None, float]] = Counter(known.shared)
    before = sum(counters[name] for name in shards_schema.SPLITS)
    spec = Vocab(vocab).spec if known.shared else None
    for name in shards_schema.SPLITS:
        for entry in shards.files(name):
            table = shards.read_table(entry.path)
            user_E, item_E = (table[f"{side}_row"].to_numpy() for side in ("user", "item"))
            bad_E = np.isin(user_E, users) | np.isin(item_E, items)
            if spec is not None and left:
                bad_E |= _of_shared_rows(table, (spec.users, spec.items), left)
            if bad_E.any():
                yield _table(entry.path, table.filter(pa.array(~bad_E)))
                counters[name] -= int(bad_E.sum())
    lost = before - sum(counters[name] for name in shards_schema.SPLITS)
    counters["dropped"] += events - counters["events_in"] + lost
    counters["events_in"] = events
    yield from _erase_pairs(shards, items, counters)


def _erase_pairs(
    shards: Artifact, items: NDArray[np.int64], counters: Counters
) -> Iterator[Changed]:
    for folder, splits in zip(shards_schema.PAIRS, (("train",), ("train", "valid")), strict=True):
        if f"{folder}_events" in counters:
            parts = [f"{folder}_{name}" for name in ("events", "thinned_out", "shared_out")]
            gone = sum(counters[name] for name in parts) - sum(counters[name] for name in splits)
            for name in parts:
                taken = min(gone, counters[name])
                counters[name] -= taken
                gone -= taken
        for entry in shards.files(folder):
            table = shards.read_table(entry.path)
            center_E, context_E = table["center_row"].to_numpy(), table["context_row"].to_numpy()
            bad_E = np.isin(center_E, items) | np.isin(context_E, items)
            if bad_E.any():
                pairs = int(pc.sum(table["count"].filter(pa.array(bad_E))).as_py())
                yield _table(entry.path, table.filter(pa.array(~bad_E)))
                counters[folder] -= int(bad_E.sum())
                for name in (f"{folder}_found", f"{folder}_counted"):
                    counters[name] -= pairs


def _of_shared_rows(
    table: pa.Table,
    sides: tuple[SideRows, SideRows],
    left: Counter[tuple[int, int, int | None, float]],
) -> Mask:
    """Which events of shared rows are among those to be erased; takes them off `left`."""
    bad_E = np.zeros(table.num_rows, bool)
    rows = [table[f"{side}_row"].to_numpy() for side in ("user", "item")]
    shared = [is_shared(of_side, row_E) for of_side, row_E in zip(sides, rows, strict=True)]
    at = np.flatnonzero(shared[0] | shared[1])
    if not len(at):
        return bad_E
    own = [np.where(is_, -1, row_E)[at].tolist() for is_, row_E in zip(shared, rows, strict=True)]
    chosen = table.select(["time", "weight"]).take(pa.array(at))
    columns = [*own, chosen["time"].to_pylist(), chosen["weight"].to_pylist()]
    for place, event in zip(at.tolist(), zip(*columns, strict=True), strict=True):
        if left[event] > 0:
            left[event] -= 1
            bad_E[place] = True
    return bad_E


def _retired(table: pa.Table, bad_E: Mask) -> pa.Table:
    bad = pa.array(bad_E)
    columns = {
        "row": table["row"],
        "id": pc.if_else(bad, pa.scalar(None, pa.string()), table["id"]),
        "count": pc.if_else(bad, pa.scalar(0, pa.int64()), table["count"]),
        "missed": table["missed"],
        "live": pc.if_else(bad, pa.scalar(value=False), table["live"]),
    }
    return pa.table(columns, schema=VOCAB)


def _histogram(
    histogram: Histogram, known: dict[str, FoundId], side: str, forgotten: ForgottenIds
) -> Histogram:
    """A histogram without the forgotten ids, as far as they are still in it."""
    bins = {least: [ids, events] for least, ids, events in histogram.counts}
    names = forgotten.named(side, [name for name, _ in histogram.heaviest])
    for one in known.values():
        if one.events:
            (least,) = bin_lower_bounds(bin_indices(np.array([one.events]))).tolist()
            if least in bins:
                bins[least][0] -= 1
                bins[least][1] -= one.events
    return Histogram(
        counts=[(least, ids, events) for least, (ids, events) in bins.items() if ids > 0],
        heaviest=[(name, count) for name, count in histogram.heaviest if name not in names],
    )


def _names(line: bytes, pattern: re.Pattern[bytes] | None, forgotten: ForgottenIds) -> bool:
    return names_one(pattern, line) or forgotten.names_any(line)


def _day(time: int | None) -> str:
    if time is None:
        return ""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)).date().isoformat()


def _table(path: str, table: pa.Table) -> Changed:
    return Changed(path, parquet_bytes(table.combine_chunks()), table.num_rows)
