from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.parse.clean import CleaningRules, clean, cleaning_rules
from embedmill.pipeline.prepare.parse.ids import id_text
from embedmill.pipeline.prepare.parse.rejects import Rejects
from embedmill.pipeline.prepare.parse.times import iso_microseconds, time_format_of
from embedmill.pipeline.prepare.parse.values import try_cast
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch

FAR = 10**18


def parsed(**columns: Any) -> ParsedBatch:
    arrays = {n: c if isinstance(c, pa.Array) else pa.array(c) for n, c in columns.items()}
    size = len(next(iter(arrays.values())))
    raw = pa.array([f"line {n}".encode() for n in range(size)], pa.binary())
    lines = np.arange(1, size + 1, dtype=np.int64)
    return ParsedBatch(arrays, lines, lambda rows: raw.take(pa.array(rows)), Rejects.empty())


def cleaned(config: dict[str, Any], **columns: Any) -> tuple[list[dict[str, Any]], Rejects]:
    one = EventsConfig(**{"paths": "x", "user": "u", "item": "i", **config})
    rules = CleaningRules(
        one, 0, FAR, time_format_of(one.time_unit, one.time_patterns, one.time_zone)
    )
    table, rejects = clean(parsed(**columns), rules)
    return table.to_pylist(), rejects


def times(values: Any, unit: str) -> tuple[list[int], list[str]]:
    size = len(values)
    kept, rejects = cleaned(
        {"time": "t", "time_unit": unit}, u=["a"] * size, i=["b"] * size, t=values
    )
    return [row["time"] for row in kept], rejects.reasons


def weights(values: Any) -> tuple[list[float], list[str]]:
    size = len(values)
    kept, rejects = cleaned({"weight": "w"}, u=["a"] * size, i=["b"] * size, w=values)
    return [row["weight"] for row in kept], rejects.reasons


def test_ids_are_kept_exactly_as_they_stand() -> None:
    ids = [" a ", "A", "é", "e\u0301", "\u0000", "漢字", "0012", "🎬"]
    kept, rejects = cleaned({}, u=ids, i=ids[::-1])
    assert [row["user"] for row in kept] == ids
    assert [row["item"] for row in kept] == ids[::-1]
    assert [row["weight"] for row in kept] == [1.0] * 8
    assert {row["time"] for row in kept} == {None}
    assert rejects.lines.tolist() == []


def test_missing_empty_and_long_ids_are_rejected() -> None:
    kept, rejects = cleaned(
        {"max_id_bytes": 4}, u=["", None, "a", "a", "éé", "ééa"], i=["x", "x", "", None, "x", "x"]
    )
    assert [row["user"] for row in kept] == ["éé"]
    assert dict(zip(rejects.lines.tolist(), rejects.reasons, strict=True)) == {
        1: "user_missing",
        2: "user_missing",
        3: "item_missing",
        4: "item_missing",
        6: "id_too_long",
    }
    assert rejects.raw.to_pylist() == [b"line 0", b"line 1", b"line 2", b"line 3", b"line 5"]


def test_bytes_are_taken_of_what_may_be_kept() -> None:
    _, rejects = cleaned(
        {"keep_rejects": 2}, u=["", "a", "", "", "a", ""], i=["x", "", "x", "x", "", "x"]
    )
    assert rejects.reasons == ["user_missing", "item_missing"] + ["user_missing"] * 2 + [
        "item_missing", "user_missing",
    ]  # fmt: skip
    assert rejects.raw.to_pylist() == [b"line 0", b"line 1", b"line 2", None, b"line 4", None]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([7, -1], pa.int64()), ["7", "-1"]),
        (pa.array([7, 255], pa.uint8()), ["7", "255"]),
        (pa.array(["a", None]), ["a", None]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([b"a", b"\xff"], pa.binary()), ["a", None]),
        (pa.array([12.0, None, 1.5, float("nan"), 1e300]), ["12", None, None, None, None]),
        (
            pa.Array.from_buffers(
                pa.string(),
                2,
                [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")],
            ),
            ["a", None],
        ),
    ],
)
def test_ids_of_parquet_types(column: pa.Array, expected: list[str | None]) -> None:
    assert id_text(column, "u").text.to_pylist() == expected


def test_an_id_of_another_type_is_an_input_error() -> None:
    with pytest.raises(
        InputError, match=r"column 'u' is list<.*>; ids are text, whole numbers or dates"
    ):
        id_text(pa.array([["a"]]), "u")


DAY = 1_577_836_800_000_000  # 2020-01-01 in microseconds


def test_iso_times() -> None:
    found, reasons = times(
        [
            "2020-01-01",
            "2020-01-01T00:00:01",
            "2020-01-01 00:00:01.5",
            "2020-01-01T00:00:00Z",
            "2020-01-01T01:00:00+01:00",
            "2020-01-01T00:00:00.1234567Z",
            "2020-01-01T00:00:00.123456789",
            "2020-02-30",
            "yesterday",
            "",
            None,
        ],
        "iso",
    )
    assert found == [
        DAY,
        DAY + 1_000_000,
        DAY + 1_500_000,
        DAY,
        DAY,
        DAY + 123_456,
        DAY + 123_456,
    ]
    assert reasons == ["time"] * 4


@pytest.mark.parametrize(
    ("unit", "value"),
    [("seconds", 1577836800), ("milliseconds", 1577836800000), ("microseconds", DAY)],
)
def test_epoch_times_as_numbers_and_text(unit: str, value: int) -> None:
    assert times([value], unit) == ([DAY], [])
    assert times([str(value)], unit) == ([DAY], [])
    assert times([float(value)], unit) == ([DAY], [])


def test_epoch_times_with_fractions_and_nonsense() -> None:
    found, reasons = times(["1577836800.25", "0x10", "nan", " 5", "1e400", "", "-1"], "seconds")
    assert found == [DAY + 250_000]
    assert reasons == ["time", "time", "time", "time_range", "time", "time_range"]


def test_times_that_overflow_are_out_of_range() -> None:
    assert times([2**62, -(2**62), 0], "seconds") == ([0], ["time_range", "time_range"])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Paris"])
def test_timestamps_of_parquet(unit: str, zone: str | None) -> None:
    when = datetime(2020, 1, 1, tzinfo=UTC if zone else None)
    assert times(pa.array([when], pa.timestamp(unit, zone)), "seconds") == ([DAY], [])


def test_iso_over_numbers_is_an_input_error() -> None:
    with pytest.raises(InputError, match="needs text"):
        times([5], "iso")


def test_times_outside_the_bounds_are_rejected() -> None:
    rules = cleaning_rules(
        EventsConfig(paths=("x",), user="u", item="i", time="t", time_min="2020-01-01T00:00:00Z")
    )
    future = int(datetime.now(UTC).timestamp()) + 2 * 86400
    table, rejects = clean(
        parsed(u=["a"] * 4, i=["b"] * 4, t=[DAY // 10**6 - 1, DAY // 10**6, future, -5]), rules
    )
    assert table["time"].to_pylist() == [DAY]
    assert rejects.lines.tolist() == [1, 3, 4]
    assert rejects.reasons == ["time_range"] * 3


def test_weights() -> None:
    found, reasons = weights(
        ["1", "2.5", "-3e2", "", None, "nan", "inf", "-inf", "1e39", "x", "-0"]
    )
    assert found == [1.0, 2.5, -300.0, 0.0]
    assert str(found[3]) == "0.0"
    assert reasons == ["weight", "weight", *["weight_range"] * 4, "weight"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, 2], pa.int8()), [1.0, 2.0]),
        (pa.array([True, False]), [1.0, 0.0]),
        (pa.array([Decimal("1.5")]), [1.5]),
        (pa.array([0.5], pa.float32()), [0.5]),
        (pa.array(["4"]).dictionary_encode(), [4.0]),
    ],
)
def test_weights_of_parquet_types(column: pa.Array, expected: list[float]) -> None:
    assert weights(column) == (expected, [])


def test_a_weight_of_another_type_is_an_input_error() -> None:
    with pytest.raises(InputError, match="a number is needed"):
        weights(pa.array([[1]]))


def test_an_empty_split_is_rejected() -> None:
    kept, rejects = cleaned({"split": "s"}, u=["a"] * 3, i=["b"] * 3, s=["train", "", None])
    assert [row["split"] for row in kept] == ["train"]
    assert rejects.reasons == ["split", "split"]


VALUES = st.lists(
    st.sampled_from(["1", "2.5", "", "x", "nan", "1e5", " 1", "0x1", None]), max_size=20
)


@given(VALUES)
def test_a_cast_never_depends_on_neighbours(values: list[str | None]) -> None:
    column = pa.array(values, pa.string())
    alone = [try_cast(pa.array([v], pa.string()), pa.float64())[0].as_py() for v in values]
    assert repr(try_cast(column, pa.float64()).to_pylist()) == repr(alone)


def test_bounds_must_be_times() -> None:
    assert iso_microseconds("2020-01-01", "x") == DAY
    assert iso_microseconds("2020-01-01T01:00:00+01:00", "x") == DAY
    with pytest.raises(ConfigError, match=r"events.time_min: 'soon' is not an ISO time"):
        cleaning_rules(EventsConfig(paths=("x",), time_min="soon"))
