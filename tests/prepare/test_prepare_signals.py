"""Rules from rows to weighted events: each with numbers worked by hand, and all together."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import build, hashes, rows, tree
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from pipeline import contracts
from pipeline.config import EventsConfig
from pipeline.errors import InputError, RejectsError
from pipeline.prepare import crowds, sources
from pipeline.prepare.clean import clean, rules
from pipeline.prepare.decay import DAY, left
from pipeline.prepare.duplicates import settle
from pipeline.prepare.signals import Selection
from pipeline.prepare.split import mixed
from schemas.tables import EVENTS

Row = tuple[str, str, int, float]
HASHED = EVENTS.append(pa.field("hash", pa.int64()))
HOUR = 3_600_000_000


def config(**keys: Any) -> EventsConfig:
    rules = {k: keys.pop(k) for k in list(keys) if k not in EventsConfig.model_fields}
    return EventsConfig(paths=("x",), time="t", signals=rules, **keys)


def hash_of(user: str, item: str) -> int:
    return hash_table.setdefault((user, item), random.Random(f"{user} {item}").getrandbits(62))


hash_table: dict[tuple[str, str], int] = {}


def settled(log: list[Row], settings: EventsConfig, last: int = 0) -> tuple[list[Row], Any]:
    """Rows that are left, times in microseconds, and the counts."""
    found = [
        {"user": u, "item": i, "time": t, "weight": w, "split": None, "hash": hash_of(u, i)}
        for u, i, t, w in log
    ]
    table, counts = settle(pa.Table.from_pylist(found, schema=HASHED), settings, last)
    assert table.schema.equals(EVENTS)
    dropped = ("merged", "repeated", "bots", "underweight_merged", "capped")
    assert len(log) == counts["events"] + sum(counts.get(name, 0) for name in dropped)
    names = ("user", "item", "time", "weight")
    return [tuple(row[n] for n in names) for row in table.to_pylist()], counts


def test_half_is_left_after_a_half_life() -> None:
    ages = np.array([0, 1, 2, 7, 70, 7 * 1024, -5, 7 * 2000, 7 * 10**6], np.int64)
    found = left(1_700_000_000_000_000 - ages * DAY, 1_700_000_000_000_000, 7.0)
    assert found[[0, 3, 4, 5, 6]].tolist() == [1.0, 0.5, 2.0**-10, 2.0**-1024, 1.0]
    np.testing.assert_allclose(found[1:3], [2 ** (-1 / 7), 2 ** (-2 / 7)], rtol=1e-7)
    assert found[-2:].tolist() == [0.0, 0.0]


@given(st.integers(0, 10**16), st.floats(0.001, 10_000))
def test_decay_is_that_of_the_formula(age: int, half_life: float) -> None:
    found = left(np.array([-age]), 0, half_life)[0]
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
    assert [row[3] for row in settled(VIEWS, settings, 2 * DAY)[0]] == weights
    first = config(merge_by="pair", merge_weight=rule, half_life_days=1, merge_time="first")
    assert [row[3] for row in settled(VIEWS, first, 2 * DAY)[0]] == weights


def test_what_is_later_than_the_end_of_decay_keeps_its_weight() -> None:
    settings = config(half_life_days=1)
    assert [row[3] for row in settled(VIEWS, settings, DAY)[0]] == [0.5, 4.0, 1.0]


def test_what_is_too_light_after_merging_is_dropped() -> None:
    settings = config(merge_by="pair", merge_weight="sum", half_life_days=1, min_merged_weight=1.5)
    found, counts = settled(VIEWS, settings, 2 * DAY)
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
    found, counts = settled(CRAWL, config(max_user_day=2))
    assert {row[0] for row in found} == {"ann"}
    assert counts == {"events": 3, "merged": 1, "bots": 4, "bot_users": 1}


def test_or_those_of_its_day() -> None:
    found, counts = settled(CRAWL, config(max_user_day=2, bots="day"))
    assert [row for row in found if row[0] == "bot"] == [("bot", "a", DAY, 1.0)]
    assert counts == {"events": 4, "merged": 1, "bots": 3, "bot_users": 1}


def test_nobody_is_a_bot_by_what_was_logged_twice() -> None:
    settings = config(max_user_day=3)
    once, twice = settled(CRAWL, settings), settled(CRAWL * 2, settings)
    assert once[0] == twice[0]
    assert twice[1] == {"events": 7, "merged": 9, "bots": 0, "bot_users": 0}


@pytest.mark.parametrize(("rule", "weight"), [("sum", 7.0), ("count", 3.0)])
def test_repeats_are_dropped_before_merging(rule: str, weight: float) -> None:
    log: list[Row] = [("ann", "a", 1, 1.0), ("ann", "a", 2, 1.0), ("ann", "a", 2, 5.0)]
    settings = config(merge_by="pair", merge_weight=rule, drop_repeats=True)
    once, twice = settled(log, settings), settled(log * 2, settings)
    assert once[0] == twice[0] == [("ann", "a", 2, weight)]
    assert once[1] == {"events": 1, "merged": 2, "repeated": 0}
    assert twice[1] == {"events": 1, "merged": 2, "repeated": 3}


MANY: list[Row] = [("ann", f"i{n}", n * HOUR, 1.0) for n in range(6)] + [("bob", "x", 0, 1.0)]


def test_a_user_keeps_its_latest_events() -> None:
    found, counts = settled(MANY, config(max_user_events=2))
    assert [row[:2] for row in found] == [("ann", "i4"), ("ann", "i5"), ("bob", "x")]
    assert counts == {"events": 3, "merged": 0, "capped": 4, "capped_users": 1}


def test_or_a_sample_that_does_not_change_with_what_else_is_logged() -> None:
    log: list[Row] = [(f"u{u}", f"i{i}", i, 1.0) for u in range(200) for i in range(40)]
    settings = config(max_user_events=10, keep="sample")
    found, counts = settled(log, settings)
    assert counts["capped"] == 200 * 30
    items = Counter(row[1] for row in found)
    assert len(items) == 40  # not the same items for everybody
    # Ten of forty: 50 users to an item, give or take five standard deviations of 6.
    assert all(20 < count < 80 for count in items.values())
    more, _ = settled([*log, ("u7", "new", 3, 1.0)], settings)
    changed = {row for row in set(found) ^ set(more) if row[1] != "new"}
    assert len(changed) <= 1


def test_the_cap_counts_merged_events() -> None:
    found, counts = settled(MANY * 3, config(max_user_events=6))
    assert len(found) == 7
    assert counts["capped"] == 0


def by_hand(log: list[Row], settings: EventsConfig, last: int) -> dict[tuple[str, str, int], float]:
    """The same rules, one row at a time."""
    rules, log = settings.signals, sorted(set(log)) if settings.drop_repeats else log
    days = Counter((u, t // DAY) for u, i, t in {(u, i, t) for u, i, t, _ in log})
    bots = {d for d, n in days.items() if rules.max_user_day and n > rules.max_user_day}
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
                bits ^= int(mixed(np.array([key[2]])).view(np.int64)[0])
            return int(mixed(np.array([bits]))[0])

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
        "max_user_day": st.integers(0, 4),
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
    found, counts = settled(log, settings, last)
    expected = by_hand(log, settings, last)
    assert {row[:3]: row[3] for row in found} == pytest.approx(expected, rel=1e-6)
    assert len(found) == len(expected)
    shuffled = list(log)
    draw.shuffle(shuffled)
    assert settled(shuffled, settings, last) == (found, counts)
    none = config(**{**rules, "merge_by": "none"})
    assert settled(shuffled, none, last) == settled(log, none, last)


def test_what_a_rule_drops_has_one_name_everywhere() -> None:
    assert contracts.DROPS["events"] == tuple(contracts.RULES)


def test_no_events() -> None:
    assert settled([], config(max_user_day=1, max_user_events=1, half_life_days=1))[0] == []


def test_an_empty_crowd() -> None:
    none = np.empty(0, np.int64)
    crowd = crowds.Crowd(none, none, none)
    assert crowds.of_bots(crowd, 1, whole=True).tolist() == []
    assert crowds.capped(crowd, none, 1, "latest").tolist() == []


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
        selection, found, weights = Selection(config), Counter[str](), []
        for split in sources.plan(config).splits:
            for block in sources.open_split(split, sources.layout(config, split.format)):
                table, rejects = clean(selection.of(block), rules(config))
                found.update(f"rejected.{reason}" for reason in rejects.reasons)
                weights += selection.weighty(table)["weight"].to_pylist()
    found.update(selection.counts)
    found["events"] = len(weights)
    expected = [judged(row, config) for row in log]
    assert +found == Counter(name for name, _ in expected)
    assert weights == [weight for name, weight in expected if name == "events"]


SECONDS = 1_700_000_000 // 86_400 * 86_400
NAMES = ("user_id", "item_id", "time", "rating", "event", "country")
SHOP = [
    # ann, whose day 2 is the last of the log
    ("ann", "a", 0, 1, "view", "DE"),  # 1, a quarter of it left
    ("ann", "a", 24, 1, "buy", "DE"),  # 4, half of it left: 2.25 with the view
    ("ann", "b", 48, 1, "view", "DE"),  # 1
    ("ann", "c", 48, 0.5, "view", "DE"),  # underweight
    ("ann", "c", 48, 1, "remove", "DE"),  # other type
    ("ann", "d", 0, 1, "view", "DE"),  # 1/4: underweight when merged
    ("ann", "e", 23, 1, "view", "DE"),  # .49, and one event too many
    *(("bot", f"x{n}", 47 - n, 1, "view", "DE") for n in range(4)),
    ("bot", "y", 0, 1, "view", "DE"),
    ("cat", "a", 48, 1, "view", "FR"),  # filtered, were it readable or not
    ("", "a", 72, 1, "view", "FR"),
    ("cat", "a", 48, 1, "share", "DE"),  # rejected: type
    ("", "a", 48, 1, "share", "DE"),  # rejected: user
]
ALL_RULES: dict[str, Any] = {
    "filter": "country = 'DE' and time < 1800000000",
    "merge_by": "pair",
    "merge_weight": "sum",
    "max_rejects": 0.2,
    "signals": {
        "type": "event",
        "types": {"view": 1, "buy": 4, "remove": 0},
        "min_weight": 1,
        "max_user_day": 3,
        "half_life_days": 1,
        "min_merged_weight": 0.4,
        "max_user_events": 2,
    },
}


def shop(path: Path, log: list[Any]) -> str:
    lines = ["\t".join(NAMES)]
    lines += [f"{u}\t{i}\t{SECONDS + h * 3600}\t{w}\t{e}\t{c}" for u, i, h, w, e, c in log]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def shop_tree(root: Path, log: Any, **events: Any) -> dict[str, Any]:
    return tree(root, log, events={**ALL_RULES, **events}, train={"weight_power": 1})


def test_all_rules_on_a_log(tmp_path: Path, sail: SparkSession) -> None:
    run = build(sail, shop_tree(tmp_path, shop(tmp_path / "log", SHOP)), "events")
    found = [(r["user"], r["item"], r["weight"]) for r in rows(run, "events", "data")]
    assert found == [("ann", "a", 2.25), ("ann", "b", 1.0)]
    assert dict(run.artifact("events").counters) == {
        "rows_in": 16, "events": 2, "merged": 1, "rejected": 2, "rejected.type": 1,
        "rejected.user_missing": 1, "rejects_kept": 2, "filtered": 2, "other_type": 1,
        "underweight": 1, "bots": 5, "bot_users": 1, "underweight_merged": 1, "capped": 1,
        "capped_users": 1,
    }  # fmt: skip


def test_files_their_order_and_partitions_change_nothing(
    tmp_path: Path, sail: SparkSession
) -> None:
    draw = random.Random(5)
    log = [
        (f"u{draw.randrange(9)}", f"i{draw.randrange(30)}", draw.randrange(200),
         draw.choice([0.5, 1, 2]), draw.choice(["view", "view", "buy", "remove"]),
         draw.choice(["DE", "DE", "FR"]))
        for _ in range(800)
    ]  # fmt: skip
    signals = {**ALL_RULES["signals"], "max_user_day": 6, "bots": "day", "max_user_events": 5}
    keys = {"drop_repeats": True, "signals": signals}
    log = sorted(set(log))
    one = build(sail, shop_tree(tmp_path / "1", shop(tmp_path / "log", log), **keys), "events")
    draw.shuffle(log)
    parts = [shop(tmp_path / "many" / f"{n}.tsv", log[n::5]) for n in range(5)]
    parts.append(shop(tmp_path / "many" / "again.tsv", log[1::5]))  # delivered twice
    many = build(sail, shop_tree(tmp_path / "2", parts[::-1], **keys), "events")
    assert hashes(one, "events", "data") == hashes(many, "events", "data")
    counters = many.artifact("events").counters
    for name in contracts.RULES:
        assert counters[name] > 0, name
    other = shop_tree(tmp_path / "3", parts, **keys)
    other["run"]["partitions"] = 7
    seven = rows(build(sail, other, "events"), "events", "data")
    key = str
    assert sorted(seven, key=key) == sorted(rows(one, "events", "data"), key=key)


def test_a_fixed_end_of_decay(tmp_path: Path, sail: SparkSession) -> None:
    signals = {"half_life_days": 1, "decay_until": "2023-11-16T00:00:00Z"}  # a day and more later
    log = shop(tmp_path / "log", SHOP[:3])
    keys = {"signals": signals, "merge_by": "event"}
    run = build(sail, shop_tree(tmp_path, log, **keys), "events")
    assert SECONDS == 1_699_920_000  # 2023-11-14T00:00:00Z
    assert [r["weight"] for r in rows(run, "events", "data")] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("odd", [False, True])
def test_flags_of_json_lines(tmp_path: Path, sail: SparkSession, odd: bool) -> None:
    """Read at once where lines are alike, else one by one; the type may be a flag as well."""
    flags = [True, False, None] * 5 + (["false", 7] if odd else [])
    lines = [
        json.dumps({"user_id": "u", "item_id": f"i{n}", "time": n, "who": {"bot": f}, "buy": n > 6})
        for n, f in enumerate(flags)
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines), encoding="utf-8")
    signals = {"type": "buy", "types": {"true": 5, "false": 1}}
    keys = {"format": "jsonl", "weight": "", "filter": "not who.bot", "signals": signals}
    run = build(sail, shop_tree(tmp_path, str(log), **keys), "events")
    found = [(r["item"], r["weight"]) for r in rows(run, "events", "data")]
    expected = [("i1", 1.0), ("i10", 5.0), ("i13", 5.0), ("i15", 5.0), ("i4", 1.0), ("i7", 5.0)]
    assert found == [one for one in expected if odd or one[0] != "i15"]


def test_flags_of_parquet(tmp_path: Path, sail: SparkSession) -> None:
    log = tmp_path / "log.parquet"
    columns = {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "time": [1, 2, 3]}
    pq.write_table(pa.table({**columns, "buy": [True, False, None]}), log)
    signals = {"type": "buy", "types": {"true": 5, "false": 1}, "other_types": "drop"}
    keys = {"format": "parquet", "weight": "", "filter": "time < 9", "signals": signals}
    run = build(sail, shop_tree(tmp_path, str(log), **keys), "events")
    assert [r["weight"] for r in rows(run, "events", "data")] == [5.0, 1.0]
    assert run.artifact("events").counters["other_type"] == 1


def test_positives_alone_weigh_one(tmp_path: Path, sail: SparkSession) -> None:
    log = shop(tmp_path / "log", [("u", f"i{w}", w, w, "rate", "DE") for w in range(1, 6)])
    signals = {"min_weight": 4, "binary": True}
    run = build(sail, shop_tree(tmp_path, log, signals=signals), "events")
    assert [(r["item"], r["weight"]) for r in rows(run, "events", "data")] == [
        ("i4", 1.0), ("i5", 1.0)
    ]  # fmt: skip
    assert run.artifact("events").counters["underweight"] == 3


def test_other_types_are_bad_lines_or_dropped(tmp_path: Path, sail: SparkSession) -> None:
    log = shop(tmp_path / "log", [("u", "i", 1, 1, e, "DE") for e in ("view", "vew", "vew", "")])
    signals = {"type": "event", "types": {"view": 2.5}}
    with pytest.raises(RejectsError, match=r"3 'type' .a type that events\.signals\.types does"):
        build(sail, shop_tree(tmp_path / "a", log, signals=signals), "events")
    signals["other_types"] = "drop"
    run = build(sail, shop_tree(tmp_path / "b", log, signals=signals), "events")
    assert [r["weight"] for r in rows(run, "events", "data")] == [2.5]
    assert run.artifact("events").counters["other_type"] == 3


def test_what_is_filtered_hides_no_bad_lines(tmp_path: Path, sail: SparkSession) -> None:
    bad = [("", "i", 1, 1, "view", "DE")] * 2
    log = shop(tmp_path / "log", [*SHOP[:3], *bad, *[("u", "i", 1, 1, "view", "FR")] * 95])
    with pytest.raises(RejectsError, match="2 of 5 lines are bad"):
        build(sail, shop_tree(tmp_path, log), "events")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"filter": "contry = 'DE'"}, "has no column 'contry'; it has 'user_id'"),
        ({"signals": {"type": "kind", "types": {"view": 1}}}, "has no column 'kind'"),
        ({"filter": "country = 'XX'"}, "no event is left of 16 rows: dropped were 16 by events.f"),
        ({"filter": "price_of(country) > 1"}, "events.filter: the function 'price_of' has no pl"),
        ({"filter": "country"}, "no event is left"),
        (
            {"filter": "abs(interval 1 day) = time"},
            "log: events.filter cannot be asked of this file",
        ),
    ],
)
def test_rules_that_do_not_fit_the_log(
    tmp_path: Path, sail: SparkSession, keys: dict[str, Any], said: str
) -> None:
    from pipeline.errors import EmbedmillError

    log = shop(tmp_path / "log", SHOP)
    with pytest.raises(EmbedmillError, match=said) as caught:
        build(sail, shop_tree(tmp_path, log, **keys), "events")
    assert caught.value.exit_code in (InputError.exit_code, 2)
    assert not (tmp_path / "tiny" / "events" / "manifest.json").exists()
