"""Rules from rows to weighted events over whole logs: all of them, files, flags, types."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from embedmill.pipeline.errors import InputError, RejectsError
from embedmill.schemas.events import RULES
from tests.support.prepare_builds import build, hashes, rows, tree

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
        "max_user_events_per_day": 3,
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
    signals = {
        **ALL_RULES["signals"],
        "max_user_events_per_day": 6,
        "bots": "day",
        "max_user_events": 5,
    }
    keys = {"drop_repeats": True, "signals": signals}
    log = sorted(set(log))
    one = build(sail, shop_tree(tmp_path / "1", shop(tmp_path / "log", log), **keys), "events")
    draw.shuffle(log)
    parts = [shop(tmp_path / "many" / f"{n}.tsv", log[n::5]) for n in range(5)]
    parts.append(shop(tmp_path / "many" / "again.tsv", log[1::5]))  # delivered twice
    many = build(sail, shop_tree(tmp_path / "2", parts[::-1], **keys), "events")
    assert hashes(one, "events", "data") == hashes(many, "events", "data")
    counters = many.artifact("events").counters
    for name in RULES.keys() - {"nonpositive"}:  # which min_weight drops before
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


WEIGHED = [
    ("a", "x", 1, 5),
    ("a", "y", 2, 0),
    ("a", "z", 3, -1),
    ("b", "x", 1, 2),
    ("b", "x", 2, -2),
    ("b", "y", 1, 1),
]


@pytest.mark.parametrize(
    ("events", "kept", "dropped"),
    [
        ({}, ["ax", "bx", "by"], 3),
        ({"merge_by": "pair", "merge_weight": "sum"}, ["ax", "by"], 3),  # a return and a purchase
        ({"merge_by": "pair", "merge_weight": "max"}, ["ax", "bx", "by"], 2),
        ({"merge_by": "pair", "merge_weight": "count"}, ["ax", "bx", "by"], 3),
        ({"signals": {"binary": True}}, ["ax", "bx", "by"], 3),
        ({"signals": {"nonpositive": "keep"}}, ["ax", "ay", "az", "bx", "bx", "by"], None),
        ({"signals": {"min_weight": 0.5}}, ["ax", "bx", "by"], None),
    ],
)
def test_events_of_no_positive_weight(
    tmp_path: Path, sail: SparkSession, events: dict[str, Any], kept: list[str], dropped: int | None
) -> None:
    log = shop(tmp_path / "log", [(u, i, h, w, "rate", "DE") for u, i, h, w in WEIGHED])
    settings = {"paths": log, "time": "time", "weight": "rating", **events}
    run = build(sail, tree(tmp_path, log, events=settings, train={"weight_power": 1}), "events")
    assert sorted(r["user"] + r["item"] for r in rows(run, "events", "data")) == kept
    assert run.artifact("events").counters.get("nonpositive") == dropped


def test_ratings_of_zero_and_less_are_learned(tmp_path: Path, sail: SparkSession) -> None:
    log = shop(tmp_path / "log", [(u, i, h, w, "rate", "DE") for u, i, h, w in WEIGHED])
    config = tree(tmp_path, log, events={"weight": "rating"}, train={"objective": "rating"})
    run = build(sail, config, "events")
    assert len(rows(run, "events", "data")) == len(WEIGHED)


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
        (
            {"filter": "price_of(country) > 1"},
            "events.filter: the function 'price_of' is not allowed",
        ),
        ({"filter": "country"}, "no event is left"),
        (
            {"filter": "abs(interval 1 day) = time"},
            "log: events.filter cannot be evaluated on this file",
        ),
    ],
)
def test_rules_that_do_not_fit_the_log(
    tmp_path: Path, sail: SparkSession, keys: dict[str, Any], said: str
) -> None:
    from embedmill.pipeline.errors import EmbedmillError

    log = shop(tmp_path / "log", SHOP)
    with pytest.raises(EmbedmillError, match=said) as caught:
        build(sail, shop_tree(tmp_path, log, **keys), "events")
    assert caught.value.exit_code in (InputError.exit_code, 2)
    assert not (tmp_path / "tiny" / "events" / "manifest.json").exists()
