"""Conditions on raw columns, of text and of typed ones."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from embedmill.pipeline.config.conditions import parse
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.rules.filters import Filter

TIMES = [datetime(2026, 1, 1), datetime(2026, 6, 1, 12), None, datetime(2027, 1, 1)]
COLUMNS = {
    "country": pa.array(["DE", "AT", None, ""]),
    "price": pa.array(["1.5", "-2", "x", ""]),
    "day": pa.array(["2026-01-01", "2026-06-01T10:00:00", "?", None]),
    "flag": pa.array(["true", "False", "1", "no"]),
    "n": pa.array([1, 2, 3, None]),
    "big": pa.array([2**53 + 1, 2**53, 1, 2]),
    "f": pa.array([0.5, -1, 1, None]),
    "d": pa.array([Decimal("1.5"), Decimal("2.0"), None, Decimal("0.5")]),
    "yes": pa.array([True, False, None, True]),
    "moment": pa.array(TIMES, pa.timestamp("us")),
    "zoned": pa.array(TIMES, pa.timestamp("ms", "Europe/Berlin")),
    "coded": pa.array(["a", "b", "a", None]).dictionary_encode(),
    "viewed": pa.array(["a", "b", "a", None], pa.string_view()),
    "context.country": pa.array(["DE", "AT", "DE", "FR"]),
    "nothing": pa.nulls(4),
}


def taken(text: str) -> list[int]:
    def raw(rows: object) -> pa.Array:
        raise AssertionError

    batch = ParsedBatch(COLUMNS, np.arange(1, 5), raw, None)  # type: ignore[arg-type]
    return np.flatnonzero(Filter(parse(text)).matches(batch)).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("country = 'DE' and price > 0", [0]),
        ("country is null", [2]),
        ("country is distinct from 'DE'", [1, 2, 3]),
        ("country ilike 'd%'", [0]),
        # Text is read as what it meets; what cannot be read is null.
        ("price > 0", [0]),
        ("price + 1 > 0", [0]),
        ("-price > 1", [1]),
        ("price between -2 and 1.5", [0, 1]),
        ("price in (1.5, 3)", [0]),
        ("price not in (1.5, 3)", [1]),
        ("coalesce(price, 0) >= 0", [0, 2, 3]),
        ("least(price, 1) < 1", [1]),
        ("price > n", [0]),
        ("price > '0'", [0, 2]),
        ("cast(price as int) > 0", [0]),
        ("flag", [0, 2]),
        ("not flag", [1, 3]),
        ("flag = true", [0, 2]),
        ("flag is true", [0, 2]),
        ("flag is not true", [1, 3]),
        ("LOWER(country) = 'de'", [0]),
        ("case when flag then n else 0 end > 0", [0, 2]),
        ("day >= timestamp '2026-03-01'", [1]),
        ("year(day) = 2026", [0, 1]),
        ("extract(hour from day) = 10", [1]),
        ("day - interval 1 day < timestamp '2026-01-01'", [0]),
        ("day < moment", [1]),
        ("n < month(day)", [1]),
        ("price < year(moment)", [0, 1]),
        ("cast(day as date) = date '2026-01-01'", [0]),
        # Typed columns stay what they are.
        ("n > 1", [1, 2]),
        ("n = '2'", [1]),
        ("n / 0 = 1", []),
        ("big = 9007199254740993", [0]),
        ("f > 0.4", [0, 2]),
        ("d > 1", [0, 1]),
        ("yes", [0, 3]),
        ("not yes", [1]),
        ("moment >= timestamp '2026-06-01'", [1, 3]),
        ("moment >= '2026-06-01'", [1, 3]),
        ("zoned > timestamp '2026-06-01 11:00:00'", [1, 3]),
        ("hour(zoned) = 12", [1]),
        ("coded = 'a'", [0, 2]),
        ("viewed = 'a'", [0, 2]),
        ("context.country = 'DE'", [0, 2]),
        ("nothing is null", [0, 1, 2, 3]),
        ("nothing = 1", []),
    ],
)
def test_records_that_meet_a_condition(text: str, rows: list[int]) -> None:
    assert taken(text) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n = 'x'", "Could not convert string 'x'"),
        ("moment > timestamp 'soon'", "invalid timestamp"),
        ("lower(n) = 'x'", "No function matches"),
        ("n * 9223372036854775807 > 1", "Overflow"),
        ("n", "is not a condition: its value is of type int64"),
    ],
)
def test_conditions_that_cannot_be_asked(text: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"^events\.filter .*{said}"):
        taken(text)
