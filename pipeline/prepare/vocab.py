"""Stage `vocab`: string ids to dense rows by count, ties by id; thresholds until stable.

With a minimum on both sides the events that are left are the (k, l)-core of the user-item
graph: the largest set in which every user has k and every item l events. It is unique, so
the order of removal does not matter (Batagelj and Zaversnik 2003, cs/0310049).

A vocabulary that continues another keeps its rows: see `continued`. The ids that have their
minimum count are the same with and without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.errors import ContractError, InputError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.prepare.engine.frames import engine_versions, task_count
from embedmill.pipeline.prepare.engine.parquet_frame import read_parquet
from embedmill.pipeline.prepare.engine.task_monitor import report_progress
from embedmill.pipeline.prepare.engine.task_report import TaskResults
from embedmill.pipeline.prepare.vocabulary import incremental
from embedmill.pipeline.prepare.vocabulary.base_vocabulary import (
    PUBLISHED,
    Rows,
    Spec,
    columns_of,
    find_previous,
)
from embedmill.pipeline.prepare.vocabulary.counts import SIDES, Counts, count, discard
from embedmill.pipeline.prepare.vocabulary.row_numbers import ranked, write_rows
from embedmill.pipeline.store.artifact import Artifact, Writer
from embedmill.pipeline.store.run import CONTINUES, Run

__all__ = ["build"]

_PAIRS = pa.schema([("user", pa.string()), ("item", pa.string())])
_BUCKETS = 4096  # of ids, at most


def build(session: SparkSession, run: Run, out: Writer, progress: Progress) -> None:
    """Write vocab/: users and items, spec.json, and counts.json on all ids of the events.

    Raises:
        InputError: no event is left after the thresholds.
        MissingArtifactError, ConfigError: the previous run cannot be continued.
    """
    events, previous = run.artifact("events"), find_previous(run)
    pairs = read_parquet(session, events.storage, events.files("data"), _PAIRS)
    with report_progress(progress, "rows read"):
        rounds = _rounds(session, run, out, pairs, progress)
        work = _Work(session, run, out, pairs, rounds, previous)
        is_new = previous is None and not run.config.vocab.oov_rows
        sides = _new(work) if is_new else _continued(work)
    for one in rounds:
        discard(one)
    _say(progress, run, previous, sides)
    total, kept = events.counters["events"], _kept(sides, out)
    out.write_json("counts.json", {f"{side}s": rounds[0].spread[side] for side in SIDES})
    out.write_json("spec.json", _spec(work, sides).as_json())
    if previous is not None:
        # Where it is does not matter to what came out.
        folder = previous.storage.root.removesuffix("/vocab")
        out.write_json("previous.json", {CONTINUES: folder}, volatile=True)
    counters = {
        "events_in": total,
        "events_kept": kept,
        "events_dropped": total - kept,
        "rounds": len(rounds),
    }
    for name, side in sides.items():
        counters |= {f"{name}s{tail}": value for tail, value in side.counters.items()}
    read = {"read_bytes": sum(f.bytes for f in events.files("data"))}
    out.commit(counters, read, engine_versions(session))


@dataclass(frozen=True)
class _Side:
    """One side as written: its rows, the sum of their counts, and counters by suffix."""

    rows: Rows
    events: int
    counters: Mapping[str, int]


@dataclass(frozen=True)
class _Work:
    session: SparkSession
    run: Run
    out: Writer
    pairs: DataFrame
    rounds: list[Counts]
    previous: Artifact | None

    @property
    def before(self) -> Spec | None:
        """What the previous vocabulary says of itself."""
        return None if self.previous is None else Spec.of(self.previous)

    @property
    def seed(self) -> int:
        """Of the shared rows' hash: that of the run which reserved them."""
        before = self.before
        return before.seed if before and before.users.shared else self.run.config.run.seed


def _rounds(
    session: SparkSession, run: Run, out: Writer, pairs: DataFrame, progress: Progress
) -> list[Counts]:
    """Counts of all events, then of those whose ids the round before kept, until all are."""
    config = run.config.vocab
    minimum = (config.min_user_count, config.min_item_count)
    rounds: list[Counts] = []
    left = pairs
    while not rounds or not rounds[-1].stable:
        rounds.append(count(left, out.storage, minimum, len(rounds), _buckets(run)))
        last = rounds[-1]
        progress.note(
            f"round {len(rounds)}: {last.kept['user']:,} of {last.ids['user']:,} users, "
            f"{last.kept['item']:,} of {last.ids['item']:,} items are frequent enough"
        )
        if not all(last.kept.values()):
            raise InputError(
                f"no event is left with vocab.min_user_count = {minimum[0]} "
                f"and vocab.min_item_count = {minimum[1]}",
                todo="Lower them",
            )
        left = pairs
        for side in SIDES:
            if minimum[SIDES.index(side)] > 1:
                kept = last.of(session, side).selectExpr(f"id as {side}")
                left = left.join(kept, side, "left_semi")
    return rounds


def _buckets(run: Run) -> int:
    files = run.artifact("events").files("data")
    return task_count(sum(f.bytes for f in files), len(files))


def _new(work: _Work) -> dict[str, _Side]:
    """Rows by falling count."""
    last = work.rounds[-1]
    sides = {}
    for side in SIDES:
        rows = last.kept[side]
        done = write_rows(ranked(last.of(work.session, side), rows), rows, work.out.storage, side)
        sides[side] = _written(work, side, done, Rows(rows, rows, 0), {"live": rows, "new": rows})
    return sides


def _continued(work: _Work) -> dict[str, _Side]:
    """Rows of known ids kept, those of new ones and shared ones after them."""
    before, wanted = work.before, work.run.config.vocab.oov_rows
    sides = {}
    for side, settled in _settled(work, _rule(work)).items():
        known = Rows(0, 0, 0) if before is None else before.side(side)
        end = known.total + settled.counts["new"]
        rows = Rows(end, known.shared_from, known.shared)
        if not known.shared:
            rows = Rows(end + wanted, end, wanted)
        done = incremental.write(work.session, side, settled, rows, known.total)
        settled.discard()
        sides[side] = _written(work, side, done, rows, settled.counts)
    return sides


def _rule(work: _Work) -> incremental.Rule:
    config = work.run.config
    files = work.previous.files() if work.previous is not None else []
    return incremental.Rule(
        retire_after=config.vocab.retire_after,
        shared=config.vocab.oov_rows,
        seed=work.seed,
        buckets=max(_buckets(work.run), task_count(sum(f.bytes for f in files), _BUCKETS)),
    )


def _settled(work: _Work, rule: incremental.Rule) -> dict[str, incremental.Settled]:
    """Every id of both sides. Where ids below their minimum stay in use, events count anew."""
    # With shared rows no event is dropped, so an id has all of its events.
    found = _settle(work, rule, work.rounds[0 if rule.shared else -1])
    if rule.shared or not any(one.counts["waiting"] for one in found.values()):
        return found
    assert work.previous is not None
    left = work.pairs
    for side in SIDES:
        core = work.rounds[-1].of(work.session, side)
        ids = incremental.in_grace(work.session, work.previous, core, side, rule.retire_after)
        left = left.join(ids, side, "left_semi")
    again = count(left, work.out.storage, (1, 1), len(work.rounds), _buckets(work.run))
    for one in found.values():
        one.discard()
    found = _settle(work, rule, again)
    discard(again)
    return found


def _settle(work: _Work, rule: incremental.Rule, counts: Counts) -> dict[str, incremental.Settled]:
    found = {}
    for side in SIDES:
        core = work.rounds[-1].of(work.session, side)
        ids = incremental.Ids(counts.every(work.session, side), core, work.previous)
        found[side] = incremental.settle(work.session, side, ids, rule, work.out.storage)
    return found


def _written(
    work: _Work, side: str, done: TaskResults, rows: Rows, counts: Mapping[str, int]
) -> _Side:
    """Take in the files of a side, and count."""
    work.out.add(done.files)
    live = counts.get("live", 0)
    counters = {
        "": rows.total,
        "_live": live,
        "_shared": rows.shared,
        "_dropped": work.rounds[0].ids[side] - live,
    }
    counters |= {f"_{name}": counts.get(name, 0) for name in ("new", "back", "retired", "gone")}
    return _Side(rows, done.counts["events"], counters)


def _kept(sides: Mapping[str, _Side], out: Writer) -> int:
    """Events that are kept: each is counted once on either side."""
    users, items = (sides[side].events for side in SIDES)
    if users != items:
        raise ContractError(
            f"users have {users:,} events, items {items:,}",
            where=out.storage.root,
            todo="This is a bug; nothing was committed",
        )
    return users


def _spec(work: _Work, sides: Mapping[str, _Side]) -> Spec:
    user, item = (sides[side].rows for side in SIDES)
    return Spec(columns_of(work.run.config), work.seed if user.shared else 0, user, item)


def _say(
    progress: Progress, run: Run, previous: Artifact | None, sides: Mapping[str, _Side]
) -> None:
    """What came and went, for people."""
    if previous is None:
        if run.config.vocab.previous == PUBLISHED:
            progress.note(f"nothing is published in {run.config.run.root}: a new vocabulary begins")
        return
    for name, side in sides.items():
        c = side.counters
        progress.note(
            f"{name}s: {c['_new']:,} new, {c['_back']:,} back, {c['_gone']:,} retired now, "
            f"{c['_retired']:,} in all"
        )
