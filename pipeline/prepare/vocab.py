"""Stage `vocab`: string ids to dense rows by count, ties by id; thresholds until stable.

With a minimum on both sides the events that are left are the (k, l)-core of the user-item
graph: the largest set in which every user has k and every item l events. It is unique, so
the order of removal does not matter (Batagelj and Zaversnik 2003, cs/0310049).
"""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from pipeline.artifact import Writer
from pipeline.errors import InputError
from pipeline.log import Progress
from pipeline.prepare.counts import SIDES, Counts, count, discard
from pipeline.prepare.engine import software, tasks_for, watched
from pipeline.prepare.ranking import write_ranked
from pipeline.prepare.stored import frame
from pipeline.run import Run

__all__ = ["build"]

_PAIRS = pa.schema([("user", pa.string()), ("item", pa.string())])


def build(session: SparkSession, run: Run, out: Writer, progress: Progress) -> None:
    """Write vocab/: users and items.

    Raises:
        InputError: no event is left after the thresholds.
    """
    events = run.artifact("events")
    pairs = frame(session, events.storage, events.files("data"), _PAIRS)
    with watched(progress, "rows read"):
        rounds = _rounds(session, run, out, pairs, progress)
        first, last = rounds[0], rounds[-1]
        for side in SIDES:
            files = write_ranked(last.of(session, side), last.kept[side], out.storage, side)
            out.add(files)
    for one in rounds:
        discard(one)
    total = events.counters["events"]
    counters = {
        "events_in": total,
        "events_kept": last.events,
        "events_dropped": total - last.events,
        "rounds": len(rounds),
    }
    for side in SIDES:
        counters[f"{side}s"] = last.kept[side]
        counters[f"{side}s_dropped"] = first.ids[side] - last.kept[side]
    out.commit(counters, software=software(session))


def _rounds(
    session: SparkSession, run: Run, out: Writer, pairs: DataFrame, progress: Progress
) -> list[Counts]:
    """Counts of all events, then of those whose ids the round before kept, until all are."""
    config = run.config.vocab
    minimum = (config.min_user_count, config.min_item_count)
    files = run.artifact("events").files("data")
    buckets = tasks_for(sum(f.bytes for f in files), len(files))
    rounds: list[Counts] = []
    left = pairs
    while not rounds or not rounds[-1].stable:
        rounds.append(count(left, out.storage, minimum, len(rounds), buckets))
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
