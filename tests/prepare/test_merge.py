from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.prepare.rules.merge import merge_events
from embedmill.schemas.events import EVENTS

Row = tuple[str, str, int | None, float, str | None]


def merged(rows: list[Row], **rules: Any) -> list[Row]:
    columns = [list(c) for c in zip(*rows, strict=True)] or [[]] * 5
    arrays = [pa.array(c, f.type) for c, f in zip(columns, EVENTS, strict=True)]
    table, counts = merge_events(
        pa.Table.from_arrays(arrays, schema=EVENTS), EventsConfig(paths=("x",), **rules)
    )
    assert counts == {"events": table.num_rows, "merged": len(rows) - table.num_rows}
    assert table.schema.equals(EVENTS)
    return [tuple(row.values()) for row in table.to_pylist()]


THREE: list[Row] = [
    ("a", "x", 20, 1.0, "late"),
    ("a", "x", 10, 5.0, "early"),
    ("a", "x", 10, 2.0, "early"),
]


@pytest.mark.parametrize(
    ("rule", "weights"),
    [("max", [5.0, 1.0]), ("sum", [7.0, 1.0]), ("last", [5.0, 1.0]), ("count", [2.0, 1.0])],
)
def test_events_alike_in_user_item_and_time_are_one(rule: str, weights: list[float]) -> None:
    found = merged(THREE, merge_by="event", merge_weight=rule)
    assert found == [("a", "x", 10, weights[0], "early"), ("a", "x", 20, weights[1], "late")]


@pytest.mark.parametrize(
    ("rule", "when", "expected"),
    [
        ("max", "last", ("a", "x", 20, 5.0, "late")),
        ("sum", "first", ("a", "x", 10, 8.0, "late")),
        ("last", "last", ("a", "x", 20, 1.0, "late")),
        ("count", "first", ("a", "x", 10, 3.0, "late")),
    ],
)
def test_events_alike_in_user_and_item_are_one(rule: str, when: str, expected: Row) -> None:
    found = merged(THREE, merge_by="pair", merge_weight=rule, merge_time=when)
    assert found == [expected]


def test_nothing_is_merged_where_the_config_says_so() -> None:
    assert merged(THREE, merge_by="none") == sorted(THREE, key=lambda r: r[2:4])


def test_without_times_a_pair_is_an_event() -> None:
    found = merged([("a", "x", None, 1.0, None), ("a", "x", None, 3.0, None)])
    assert found == [("a", "x", None, 3.0, None)]


def test_ids_are_in_byte_order() -> None:
    ids = ["b", "", "é", "B", "a\0", "a", "🎬", "\uffff"]
    found = merged([(i, "x", None, 1.0, None) for i in ids])
    assert [row[0] for row in found] == sorted(ids, key=str.encode)


def test_no_events() -> None:
    assert merged([]) == []


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", ""]),
        st.sampled_from(["x", "y"]),
        st.integers(0, 3),
        st.sampled_from([0.1, 0.2, 0.3, 1e16]),
        st.sampled_from([None, "train", "test"]),
    ),
    max_size=30,
)


@given(
    ROWS, st.randoms(), st.sampled_from(["event", "pair", "none"]), st.sampled_from(["max", "sum"])
)
def test_order_does_not_matter(rows: list[Row], draw: Any, merge_by: str, weight: str) -> None:
    shuffled = list(rows)
    draw.shuffle(shuffled)
    rules = {"merge_by": merge_by, "merge_weight": weight}
    assert merged(rows, **rules) == merged(shuffled, **rules)


@given(ROWS)
def test_the_default_does_not_count_what_was_logged_twice(rows: list[Row]) -> None:
    assert merged(rows) == merged(rows + rows)


def test_many_rows_against_numpy() -> None:
    draw = np.random.default_rng(3)
    users, items = draw.integers(0, 50, 5000), draw.integers(0, 20, 5000)
    weights = draw.integers(0, 9, 5000).astype(float)
    rows = [
        (f"u{u}", f"i{i}", 7, w, None)
        for u, i, w in zip(users.tolist(), items.tolist(), weights.tolist(), strict=True)
    ]
    expected: dict[tuple[str, str], float] = {}
    for user, item, _, weight, _ in rows:
        expected[user, item] = expected.get((user, item), 0.0) + weight
    found = {(r[0], r[1]): r[3] for r in merged(rows, merge_weight="sum")}
    assert found == expected
