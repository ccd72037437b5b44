"""Rules from rows to weighted events: each with numbers worked by hand, and all together."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.prepare.hashing import mix64
from embedmill.pipeline.prepare.histograms import MICROSECONDS_PER_DAY as DAY
from embedmill.pipeline.prepare.parse.clean import clean, cleaning_rules
from embedmill.pipeline.prepare.readers.file_formats import read_slice
from embedmill.pipeline.prepare.readers.read_plan import layout_of, plan_reads
from embedmill.pipeline.prepare.rules import user_limits
from embedmill.pipeline.prepare.rules.merge import merge_events
from embedmill.pipeline.prepare.rules.row_rules import RowRules
from embedmill.pipeline.prepare.rules.time_decay import remaining_weight
from embedmill.schemas import events
from embedmill.schemas.events import EVENTS

Row = tuple[str, str, int, float]
HASHED = EVENTS.append(pa.field("hash", pa.int64()))
HOUR = 3_600_000_000


def config(**keys: Any) -> EventsConfig:
    rules = {k: keys.pop(k) for k in list(keys) if k not in EventsConfig.model_fields}
    return EventsConfig(paths=("x",), time="t", signals=rules, **keys)


def hash_of(user: str, item: str) -> int:
    return hash_table.setdefault((user, item), random.Random(f"{user} {item}").getrandbits(62))


hash_table: dict[tuple[str, str], int] = {}


def merged(log: list[Row], settings: EventsConfig, last: int = 0) -> tuple[list[Row], Any]:
    """Rows that are left, times in microseconds, and the counts."""
    found = [
        {"user": u, "item": i, "time": t, "weight": w, "split": None, "hash": hash_of(u, i)}
        for u, i, t, w in log
    ]
    table, counts = merge_events(pa.Table.from_pylist(found, schema=HASHED), settings, last)
    assert table.schema.equals(EVENTS)
    dropped = ("merged", "repeated", "bots", "underweight_merged", "capped")
    assert len(log) == counts["events"] + sum(counts.get(name, 0) for name in dropped)
    names = ("user", "item", "time", "weight")
    return [tuple(row[n] for n in names) for row in table.to_pylist()], counts


def test_half_is_left_after_a_half_life() -> None:
    ages = np.array([0, 1, 2, 7, 70, 7 * 1024, -5, 7 * 2000, 7 * 10**6], np.int64)
    found = remaining_weight(1_700_000_000_000_000 - ages * DAY, 1_700_000_000_000_000, 7.0)
    assert found[[0, 3, 4, 5, 6]].tolist() == [1.0, 0.5, 2.0**-10, 2.0**-1024, 1.0]
    np.testing.assert_allclose(found[1:3], [2 ** (-1 / 7), 2 ** (-2 / 7)], rtol=1e-7)
    assert found[-2:].tolist() == [0.0, 0.0]


@given(st.integers(0, 10**16), st.floats(0.001, 10_000))
def test_decay_is_that_of_the_formula(age: int, half_life: float) -> None:
    found = remaining_weight(np.array([-age]), 0, half_life)[0]
    assert found == pytest.approx(2.0 ** (-age / DAY / half_life), rel=6e-8, abs=1e-300)


VIEWS: list[Row] = [
    ("ann", "a", 0, 1.0),
    ("ann", "a", 1 * DAY, 4.0),
    ("ann", "b", 2 * DAY, 1.0),
]


@pytest.mark.parametrize(
    ("rule", "weights"),
    [
        # At the end of day 2, with a half-life of a day: 1/4 and 4/2.
        ("sum", [2.25, 1.0]),
        ("max", [2.0, 1.0]),
        ("last", [2.0, 1.0]),
        ("count", [0.75, 1.0]),  # 1/4 and 1/2 of a row
    ],
)
def test_each_row_decays_by_its_own_age_before_it_is_merged(
    rule: str, weights: list[float]
) -> None:
    settings = config(merge_by="pair", merge_weight=rule, half_life_days=1)
    assert [row[3] for row in merged(VIEWS, settings, 2 * DAY)[0]] == weights
    first = config(merge_by="pair", merge_weight=rule, half_life_days=1, merge_time="first")
    assert [row[3] for row in merged(VIEWS, first, 2 * DAY)[0]] == weights


def test_what_is_later_than_the_end_of_decay_keeps_its_weight() -> None:
    settings = config(half_life_days=1)
    assert [row[3] for row in merged(VIEWS, settings, DAY)[0]] == [0.5, 4.0, 1.0]


def test_what_is_too_light_after_merging_is_dropped() -> None:
    settings = config(merge_by="pair", merge_weight="sum", half_life_days=1, min_merged_weight=1.5)
    found, counts = merged(VIEWS, settings, 2 * DAY)
    assert [row[1] for row in found] == ["a"]
    assert counts == {"events": 1, "merged": 1, "underweight_merged": 1}


CRAWL: list[Row] = [
    ("bot", "a", 5 * HOUR, 1.0),
    ("bot", "b", 6 * HOUR, 1.0),
    ("bot", "c", 23 * HOUR, 1.0),
    ("bot", "a", 24 * HOUR, 1.0),
    ("ann", "a", 5 * HOUR, 1.0),
    ("ann", "a", 5 * HOUR, 2.0),  # the same event, delivered again
    ("ann", "b", 6 * HOUR, 1.0),
    ("ann", "c", -1 * HOUR, 1.0),  # the day before
]


def test_all_events_of_a_bot_are_dropped() -> None:
    found, counts = merged(CRAWL, config(max_user_events_per_day=2))
    assert {row[0] for row in found} == {"ann"}
    assert counts == {"events": 3, "merged": 1, "bots": 4, "bot_users": 1}


def test_or_those_of_its_day() -> None:
    found, counts = merged(CRAWL, config(max_user_events_per_day=2, bots="day"))
    assert [row for row in found if row[0] == "bot"] == [("bot", "a", DAY, 1.0)]
    assert counts == {"events": 4, "merged": 1, "bots": 3, "bot_users": 1}


def test_nobody_is_a_bot_by_what_was_logged_twice() -> None:
    settings = config(max_user_events_per_day=3)
    once, twice = merged(CRAWL, settings), merged(CRAWL * 2, settings)
    assert once[0] == twice[0]
    assert twice[1] == {"events": 7, "merged": 9, "bots": 0, "bot_users": 0}


@pytest.mark.parametrize(("rule", "weight"), [("sum", 7.0), ("count", 3.0)])
def test_repeats_are_dropped_before_merging(rule: str, weight: float) -> None:
    log: list[Row] = [("ann", "a", 1, 1.0), ("ann", "a", 2, 1.0), ("ann", "a", 2, 5.0)]
    settings = config(merge_by="pair", merge_weight=rule, drop_repeats=True)
    once, twice = merged(log, settings), merged(log * 2, settings)
    assert once[0] == twice[0] == [("ann", "a", 2, weight)]
    assert once[1] == {"events": 1, "merged": 2, "repeated": 0}
    assert twice[1] == {"events": 1, "merged": 2, "repeated": 3}


MANY: list[Row] = [("ann", f"i{n}", n * HOUR, 1.0) for n in range(6)] + [("bob", "x", 0, 1.0)]


def test_a_user_keeps_its_latest_events() -> None:
    found, counts = merged(MANY, config(max_user_events=2))
    assert [row[:2] for row in found] == [("ann", "i4"), ("ann", "i5"), ("bob", "x")]
    assert counts == {"events": 3, "merged": 0, "capped": 4, "capped_users": 1}


def test_or_a_sample_that_does_not_change_with_what_else_is_logged() -> None:
    log: list[Row] = [(f"u{u}", f"i{i}", i, 1.0) for u in range(200) for i in range(40)]
    settings = config(max_user_events=10, keep="sample")
    found, counts = merged(log, settings)
    assert counts["capped"] == 200 * 30
    items = Counter(row[1] for row in found)
    assert len(items) == 40  # not the same items for everybody
    # Ten of forty: 50 users to an item, give or take five standard deviations of 6.
    assert all(20 < count < 80 for count in items.values())
    more, _ = merged([*log, ("u7", "new", 3, 1.0)], settings)
    changed = {row for row in set(found) ^ set(more) if row[1] != "new"}
    assert len(changed) <= 1


def test_the_cap_counts_merged_events() -> None:
    found, counts = merged(MANY * 3, config(max_user_events=6))
    assert len(found) == 7
    assert counts["capped"] == 0


def by_hand(log: list[Row], settings: EventsConfig, last: int) -> dict[tuple[str, str, int], float]:
    """The same rules, one row at a time."""
    rules, log = settings.signals, sorted(set(log)) if settings.drop_repeats else log
    days = Counter((u, t // DAY) for u, i, t in {(u, i, t) for u, i, t, _ in log})
    bots = {
        d
        for d, n in days.items()
        if rules.max_user_events_per_day and n > rules.max_user_events_per_day
    }
    users = {u for u, _ in bots}
    kept = [
        row for row in log
        if not (row[0] in users if rules.bots == "user" else (row[0], row[2] // DAY) in bots)
    ]  # fmt: skip
    groups: dict[Any, list[tuple[int, float]]] = {}
    for u, i, t, w in sorted(kept):
        groups.setdefault((u, i, t) if settings.merge_by == "event" else (u, i), []).append((t, w))
    merged = {}
    for key, found in groups.items():
        share = [
            2.0 ** (-max(0, last - t) / DAY / rules.half_life_days) if rules.half_life_days else 1
            for t, _ in found
        ]
        worth = [w * s for (_, w), s in zip(found, share, strict=True)]
        weight = {"sum": sum(worth), "max": max(worth), "last": worth[-1], "count": sum(share)}
        merged[key[0], key[1], found[-1][0]] = weight[settings.merge_weight]
    if rules.min_merged_weight is not None:
        merged = {k: w for k, w in merged.items() if w >= rules.min_merged_weight}
    if rules.max_user_events:

        def luck(key: tuple[str, str, int]) -> int:
            bits = hash_of(*key[:2])
            if settings.merge_by == "event":
                bits ^= int(mix64(np.array([key[2]])).view(np.int64)[0])
            return int(mix64(np.array([bits]))[0])

        ranks = sorted(
            merged, key=lambda k: (k[0], -k[2] if rules.keep == "latest" else 0, luck(k))
        )
        place: Counter[str] = Counter()
        for key in ranks:
            place[key[0]] += 1
            if place[key[0]] > rules.max_user_events:
                del merged[key]
    return merged


LOGS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["x", "y", "z"]),
        st.integers(-2, 5).map(lambda n: n * 7 * HOUR),
        st.sampled_from([0.5, 1.0, 3.0, 5.0]),
    ),
    max_size=40,
)
RULES = st.fixed_dictionaries(
    {
        "merge_by": st.sampled_from(["event", "pair"]),
        "merge_weight": st.sampled_from(["sum", "max", "last", "count"]),
        "drop_repeats": st.booleans(),
        "max_user_events_per_day": st.integers(0, 4),
        "bots": st.sampled_from(["user", "day"]),
        "half_life_days": st.sampled_from([0, 0.5, 3]),
        "min_merged_weight": st.sampled_from([None, 0.9, 2.2]),
        "max_user_events": st.integers(0, 4),
        "keep": st.sampled_from(["latest", "sample"]),
    }
)


@given(LOGS, RULES, st.randoms())
def test_rules_together_are_those_rules_one_by_one(
    log: list[Row], rules: dict[str, Any], draw: Any
) -> None:
    settings, last = config(**rules), 2 * DAY
    found, counts = merged(log, settings, last)
    expected = by_hand(log, settings, last)
    assert {row[:3]: row[3] for row in found} == pytest.approx(expected, rel=1e-6)
    assert len(found) == len(expected)
    shuffled = list(log)
    draw.shuffle(shuffled)
    assert merged(shuffled, settings, last) == (found, counts)
    none = config(**{**rules, "merge_by": "none"})
    assert merged(shuffled, none, last) == merged(log, none, last)


def test_what_a_rule_drops_has_one_name_everywhere() -> None:
    assert events.CONTRACT.laws[0].optional_parts == (*events.RULES, events.FORGOTTEN)


def test_no_events() -> None:
    assert (
        merged([], config(max_user_events_per_day=1, max_user_events=1, half_life_days=1))[0] == []
    )


def test_without_events_nothing_is_limited() -> None:
    none = np.empty(0, np.int64)
    events = user_limits.UserEvents(none, none, none)
    assert user_limits.bot_events(events, 1, whole_user=True).tolist() == []
    assert user_limits.events_over_limit(events, none, 1, "latest").tolist() == []


Record = tuple[str, str, str, str]  # user, action, price, rating

FILTERS: dict[str, Callable[[Record], bool]] = {
    "": lambda row: True,
    "price > 2": lambda row: row[2] == "5",
    "action = 'view' or rating is null or user <> ''": lambda row: row[1] == "view" or bool(row[0]),
    "price is null": lambda row: False,  # an empty field is text
}


def judged(row: Record, settings: EventsConfig) -> tuple[str, float]:
    """What becomes of a row, and its weight, by the rules one by one."""
    rules, (user, action, _, rating) = settings.signals, row
    if not FILTERS[settings.filter](row):
        return "filtered", 0
    of_type = rules.types.get(action) if rules.types else 1.0
    if of_type == 0 or (of_type is None and rules.other_types == "drop"):
        return "other_type", 0
    if not user:
        return "rejected.user_missing", 0
    if rating == "?":
        return "rejected.weight", 0
    if of_type is None:
        return "rejected.type", 0
    if rating == "nan":
        return "rejected.weight_range", 0
    weight = float(rating) * of_type
    if rules.min_weight is not None and weight < rules.min_weight:
        return "underweight", 0
    return "events", 1.0 if rules.binary else weight


@hypothesis.settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", ""]),
            st.sampled_from(["view", "buy", "remove", "share", ""]),
            st.sampled_from(["1", "5", "x", ""]),
            st.sampled_from(["1", "4", "nan", "?"]),
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(list(FILTERS)),
    st.sampled_from([{}, {"view": 1, "buy": 3}, {"view": 1, "buy": 0.5, "remove": 0}]),
    st.sampled_from(["reject", "drop"]),
    st.sampled_from([None, 2.0]),
    st.booleans(),
)
def test_rules_on_rows_are_those_rules_one_by_one(
    log: list[Record], condition: str, types: Any, other: Any, least: float | None, binary: bool
) -> None:
    typed = {"type": "action", "types": types} if types else {}
    signals = {**typed, "other_types": other, "min_weight": least, "binary": binary}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.tsv"
        lines = ["user\titem\taction\tprice\trating"]
        lines += [f"{u}\ti\t{a}\t{p}\t{r}" for u, a, p, r in log]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        config = EventsConfig(
            paths=str(path), user="user", item="item", weight="rating", filter=condition,
            signals=signals,
        )  # fmt: skip
        row_rules, found, weights = RowRules(config), Counter[str](), []
        for part in plan_reads(config).slices:
            for batch in read_slice(part, layout_of(config, part.format)):
                table, rejects = clean(row_rules.filter_batch(batch), cleaning_rules(config))
                found.update(f"rejected.{reason}" for reason in rejects.reasons)
                weights += row_rules.apply_weight_rules(table)["weight"].to_pylist()
    found.update(row_rules.counts)
    found["events"] = len(weights)
    expected = [judged(row, config) for row in log]
    assert +found == Counter(name for name, _ in expected)
    assert weights == [weight for name, weight in expected if name == "events"]
