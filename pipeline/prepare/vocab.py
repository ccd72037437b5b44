"""Stage `vocab`: string ids to dense rows by falling count, ties by id; minimum counts applied.

Minimum counts are applied in rounds until nothing changes. With a minimum for users and one for
items, the events that are left are the (k, l)-core of the user-item graph: the largest set in
which every user has k and every item l events. The core is unique, so the order of removal does
not matter (Batagelj and Zaversnik 2003, cs/0310049).

An incremental vocabulary keeps the rows of a base vocabulary: see `vocabulary.id_outcomes`. The
same ids have their minimum count with and without a base.
"""

from __future__ import annotations

from collections import Counter
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
from embedmill.pipeline.prepare.vocabulary.base_vocabulary import (
    PUBLISHED,
    find_base_vocabulary,
    gone_runs,
    id_columns,
)
from embedmill.pipeline.prepare.vocabulary.id_counts import SIDES, IdCounts, count_ids
from embedmill.pipeline.prepare.vocabulary.id_outcomes import (
    IdEvidence,
    IdOutcomes,
    OutcomeRules,
    decide_outcomes,
    forgotten_rows,
    retained_ids,
    write_outcomes,
)
from embedmill.pipeline.prepare.vocabulary.row_numbers import assign_rows, write_rows
from embedmill.pipeline.prepare.vocabulary.shared_rows import side_rows
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.events import Events
from embedmill.pipeline.views.vocab import Vocab
from embedmill.schemas.vocab import (
    BASE,
    COUNTS,
    SPEC,
    BaseRun,
    Counts,
    SideRows,
    VocabSpec,
    forgotten_counter,
)

__all__ = ["build"]

_PAIRS = pa.schema([("user", pa.string()), ("item", pa.string())])
_MAX_BUCKETS = 4096  # hash buckets of ids


def build(session: SparkSession, run: Run, out: Writer, progress: Progress) -> None:
    """Write vocab/: users and items, the spec, and histograms of all ids.

    Args:
        session: the engine's session.
        run: the run, whose stage `events` has finished.
        out: writer of the `vocab` artifact.
        progress: receives the number of rows read, and what the rounds have kept.

    Raises:
        InputError: no event is left after the minimum counts.
        MissingArtifactError, ConfigError: the base vocabulary cannot be used.
    """
    events, base = Events(run.artifact("events")), find_base_vocabulary(run)
    pairs = read_parquet(session, events.artifact.storage, events.files, _PAIRS)
    with report_progress(progress, "rows read"):
        rounds = _threshold_rounds(session, run, out, pairs, progress)
        work = _Work(session, run, out, pairs, rounds, base)
        is_new = base is None and not run.config.vocab.oov_rows
        sides = _write_new(work) if is_new else _write_incremental(work)
    for counts in rounds:
        counts.scratch.remove()
    _note_changes(progress, run, base, sides)
    events_in, events_kept = events.artifact.counters["events"], _events_kept(sides, out)
    users, items = (rounds[0].histograms[side] for side in SIDES)
    out.write_json(COUNTS, Counts(users=users, items=items))
    out.write_json(SPEC, _spec(work, sides))
    if base is not None:
        out.write_json(BASE, BaseRun(continues=base.folder.removesuffix("/vocab")))
    counters = {
        "events_in": events_in,
        "events_kept": events_kept,
        "events_dropped": events_in - events_kept,
        "rounds": len(rounds),
    }
    for name, side in sides.items():
        counters |= {f"{name}s{suffix}": value for suffix, value in side.counters.items()}
    out.commit(counters, {"read_bytes": events.bytes}, engine_versions(session))


@dataclass(frozen=True)
class _Side:
    """A side as it was written: rows, sum of their counts, counters by the suffix of their name."""

    rows: SideRows
    events: int
    counters: Mapping[str, int]


@dataclass(frozen=True)
class _Work:
    """What the steps of the stage share; `pairs` are columns user, item of all events."""

    session: SparkSession
    run: Run
    out: Writer
    pairs: DataFrame
    rounds: list[IdCounts]
    base: Artifact | None

    @property
    def base_spec(self) -> VocabSpec | None:
        return None if self.base is None else Vocab(self.base).spec

    @property
    def seed(self) -> int:
        """Seed of the hash to shared rows: that of the run in which they were reserved."""
        spec = self.base_spec
        return spec.seed if spec and spec.users.shared else self.run.config.run.seed


def _threshold_rounds(
    session: SparkSession, run: Run, out: Writer, pairs: DataFrame, progress: Progress
) -> list[IdCounts]:
    """Counts of all events; then of the events whose ids were frequent, until all ids are."""
    config = run.config.vocab
    minimum = (config.min_user_count, config.min_item_count)
    rounds: list[IdCounts] = []
    left = pairs
    while not rounds or not rounds[-1].stable:
        rounds.append(count_ids(left, out.storage, minimum, len(rounds), _buckets(run)))
        last = rounds[-1]
        progress.note(
            f"round {len(rounds)}: {last.frequent['user']:,} of {last.ids['user']:,} users, "
            f"{last.frequent['item']:,} of {last.ids['item']:,} items are frequent enough"
        )
        if not all(last.frequent.values()):
            raise InputError(
                f"no event is left with vocab.min_user_count = {minimum[0]} "
                f"and vocab.min_item_count = {minimum[1]}",
                todo="Lower them",
            )
        left = pairs
        for side in SIDES:
            if minimum[SIDES.index(side)] > 1:
                frequent = last.frequent_ids(session, side).selectExpr(f"id as {side}")
                left = left.join(frequent, side, "left_semi")
    return rounds


def _buckets(run: Run) -> int:
    events = Events(run.artifact("events"))
    return task_count(events.bytes, len(events.files))


def _write_new(work: _Work) -> dict[str, _Side]:
    """A vocabulary without a base and without shared rows: rows by falling count."""
    last = work.rounds[-1]
    sides = {}
    for side in SIDES:
        rows = last.frequent[side]
        numbered = assign_rows(last.frequent_ids(work.session, side), rows)
        done = write_rows(numbered, rows, work.out.storage, side)
        counts = {"live": rows, "new": rows}
        sides[side] = _finish_side(work, side, done, _side_rows(rows, rows, 0), counts)
    return sides


def _write_incremental(work: _Work) -> dict[str, _Side]:
    """Rows of the base; after them new ids; shared rows, if they are not in the base already."""
    base, shared_rows = work.base_spec, work.run.config.vocab.oov_rows
    sides = {}
    for side, outcomes in _outcomes(work, _outcome_rules(work)).items():
        known = _side_rows(0, 0, 0) if base is None else side_rows(base, side)
        end = known.total + outcomes.counts["new"]
        rows = _side_rows(end, known.shared_from, known.shared)
        if not known.shared:
            rows = _side_rows(end + shared_rows, end, shared_rows)
        forgotten, gone = None, 0
        if work.base is not None:
            forgotten = forgotten_rows(work.session, work.base, side, known)
            gone = work.base.counters.get(forgotten_counter(f"{side}s"), 0)
        done = write_outcomes(work.session, side, outcomes, rows, known.total, forgotten)
        outcomes.scratch.remove()
        counts = outcomes.counts + Counter(retired=gone, forgotten=gone)
        sides[side] = _finish_side(work, side, done, rows, counts)
    return sides


def _outcome_rules(work: _Work) -> OutcomeRules:
    config = work.run.config
    files = work.base.files() if work.base is not None else []
    return OutcomeRules(
        retire_after=config.vocab.retire_after,
        shared_rows=config.vocab.oov_rows,
        seed=work.seed,
        buckets=max(_buckets(work.run), task_count(sum(f.bytes for f in files), _MAX_BUCKETS)),
    )


def _outcomes(work: _Work, rules: OutcomeRules) -> dict[str, IdOutcomes]:
    """Outcomes of all ids of both sides.

    If ids below their minimum stay live, their events count for the other side too: then events
    are counted again, and outcomes decided again.
    """
    # With shared rows no event is dropped, so an id has all of its events.
    counts = work.rounds[0 if rules.shared_rows else -1]
    outcomes = _decide_sides(work, rules, counts)
    if rules.shared_rows or not any(side.counts["below_minimum"] for side in outcomes.values()):
        return outcomes
    assert work.base is not None
    left = work.pairs
    for side in SIDES:
        frequent = work.rounds[-1].frequent_ids(work.session, side)
        ids = retained_ids(work.session, work.base, frequent, side, rules.retire_after)
        left = left.join(ids, side, "left_semi")
    recounted = count_ids(left, work.out.storage, (1, 1), len(work.rounds), _buckets(work.run))
    for side_outcomes in outcomes.values():
        side_outcomes.scratch.remove()
    outcomes = _decide_sides(work, rules, recounted)
    recounted.scratch.remove()
    return outcomes


def _decide_sides(work: _Work, rules: OutcomeRules, counts: IdCounts) -> dict[str, IdOutcomes]:
    outcomes = {}
    for side in SIDES:
        frequent = work.rounds[-1].frequent_ids(work.session, side)
        evidence = IdEvidence(counts.all_ids(work.session, side), frequent, work.base)
        outcomes[side] = decide_outcomes(work.session, side, evidence, rules, work.out.storage)
    return outcomes


def _side_rows(total: int, shared_from: int, shared: int) -> SideRows:
    return SideRows(total=total, shared_from=shared_from, shared=shared)


def _finish_side(
    work: _Work, side: str, done: TaskResults, rows: SideRows, counts: Mapping[str, int]
) -> _Side:
    """Add the files of a side to the artifact, and compute its counters."""
    work.out.add(done.files)
    live = counts.get("live", 0)
    counters = {
        "": rows.total,
        "_live": live,
        "_shared": rows.shared,
        "_dropped": work.rounds[0].ids[side] - live,
    }
    counters |= {f"_{name}": counts.get(name, 0) for name in ("new", "back", "retired", "gone")}
    if counts.get("forgotten"):
        counters["_forgotten"] = counts["forgotten"]
    return _Side(rows, done.counts["events"], counters)


def _events_kept(sides: Mapping[str, _Side], out: Writer) -> int:
    """The number of events kept, which must be the same by users and by items."""
    by_users, by_items = (sides[side].events for side in SIDES)
    if by_users != by_items:
        raise ContractError(
            f"users have {by_users:,} events, items {by_items:,}",
            where=out.storage.root,
            todo="This is a bug; nothing was committed",
        )
    return by_users


def _spec(work: _Work, sides: Mapping[str, _Side]) -> VocabSpec:
    user, item = (sides[side].rows for side in SIDES)
    return VocabSpec(
        columns=id_columns(work.run.config),
        seed=work.seed if user.shared else 0,
        users=user,
        items=item,
    )


def _note_changes(
    progress: Progress, run: Run, base: Artifact | None, sides: Mapping[str, _Side]
) -> None:
    """Tell the user how the ids differ from those of the base."""
    if gone := gone_runs(run):
        instead = base.storage.root.removesuffix("/vocab") if base else "a new vocabulary"
        progress.note(f"the published run '{gone[0]}' was deleted: this one continues {instead}")
    if base is None:
        if run.config.vocab.previous == PUBLISHED and not gone:
            progress.note(f"nothing is published in {run.config.run.root}: a new vocabulary begins")
        return
    for name, side in sides.items():
        c = side.counters
        progress.note(
            f"{name}s: {c['_new']:,} new, {c['_back']:,} back, {c['_gone']:,} retired now, "
            f"{c['_retired']:,} in all"
        )
