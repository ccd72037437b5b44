"""One table, written by many libraries in many formats, is one log.

The tables are drawn at random: types, missing values, times, encodings. The events of each file
are those that a plain reading of the drawn values gives (`_expected`).

FUZZ_TABLES is the number of tables (`make fuzz` draws 10,000).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from tests.support.log_reading import Read, read_log
from tests.support.table_writers import WRITERS, spark_writers

TABLES = int(os.environ.get("FUZZ_TABLES", "100"))
SPARK_TABLES = max(3, TABLES // 200)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime(1975, 1, 1), datetime(2026, 1, 1)


@dataclass(frozen=True)
class Kind:
    """A type of a column.

    Attributes:
        type: in Arrow.
        values: strategy of its values.
        meaning: what an event has of a value: an id's text, microseconds, a weight.
        text: whether a delimited file tells the value as it is.
    """

    type: pa.DataType
    values: st.SearchStrategy[Any]
    meaning: Callable[[Any], Any]
    text: bool = True


_PRINTABLE = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp"))
_PLAIN = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=6)
# What a field of a delimited file must be quoted for.
_QUOTED = st.text(
    st.one_of(_PRINTABLE, st.sampled_from([",", '"', "\n", " ", "\\", "'"])), min_size=1, max_size=6
).map(lambda text: f"x{text}x")
_WHOLE = st.integers(-(2**53) + 1, 2**53 - 1)


def _digits(value: float) -> str | None:
    """The id that a number is; none where it has a fraction."""
    return str(int(value)) if value == int(value) else None


IDS = {
    "plain text": Kind(pa.string(), _PLAIN, str),
    "any text": Kind(pa.string(), _QUOTED, str),
    "large text": Kind(pa.large_string(), _PLAIN, str),
    "int64": Kind(pa.int64(), st.integers(-(2**63), 2**63 - 1), str),
    "int32": Kind(pa.int32(), st.integers(-(2**31), 2**31 - 1), str),
    "uint64": Kind(pa.uint64(), st.integers(0, 2**64 - 1), str),
    "double": Kind(
        pa.float64(), st.one_of(_WHOLE.map(float), st.floats(-1e6, 1e6)), _digits, text=False
    ),
    "decimal": Kind(
        pa.decimal128(38, 0), st.integers(-(10**15), 10**15).map(Decimal), str, text=True
    ),
    "date": Kind(pa.date32(), st.dates(FIRST.date(), LAST.date()), date.isoformat),
    "bool": Kind(pa.bool_(), st.booleans(), lambda value: str(value).lower()),
}


def _micros(value: datetime) -> int:
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1)


_MOMENTS = st.datetimes(FIRST, LAST)
_SECONDS = _MOMENTS.map(lambda value: value.replace(microsecond=0))
_MILLIS = _MOMENTS.map(lambda v: v.replace(microsecond=v.microsecond // 1000 * 1000))
TIMES = {
    "timestamp": Kind(pa.timestamp("us"), _MOMENTS, _micros),
    "timestamp, zone": Kind(
        pa.timestamp("us", "UTC"), _MOMENTS.map(lambda v: v.replace(tzinfo=UTC)), _micros
    ),
    "timestamp, seconds": Kind(pa.timestamp("s"), _SECONDS, _micros),
    "timestamp, milliseconds": Kind(pa.timestamp("ms"), _MILLIS, _micros),
    "ISO text": Kind(
        pa.string(), _MOMENTS.map(lambda v: v.isoformat() + "+00:00"),
        lambda text: _micros(datetime.fromisoformat(text)),
    ),
    "date": Kind(
        pa.date32(), st.dates(FIRST.date(), LAST.date()),
        lambda d: _micros(datetime(d.year, d.month, d.day)),
    ),
    "seconds": Kind(pa.int64(), st.integers(157_766_400, 1_767_225_600), lambda s: s * 10**6),
    "milliseconds": Kind(
        pa.int64(), st.integers(157_766_400_000, 1_767_225_600_000), lambda ms: ms * 1000
    ),
}  # fmt: skip
WEIGHTS = {
    "double": Kind(pa.float64(), st.floats(0.001, 1e6).map(lambda x: round(x, 6)), float),
    "int": Kind(pa.int32(), st.integers(1, 1000), float),
    "bool": Kind(pa.bool_(), st.just(True), float),
    "number in text": Kind(pa.string(), st.floats(0.5, 99).map(str), float),
}
# Ids that a library cannot write, or writes as another text than the others: True for true, a
# day as a time.
_OTHER_TEXT = {
    ("pandas", "csv"): {"bool"},
    ("pandas", "tsv"): {"bool"},
    ("pandas", "jsonl"): {"date"},
    **{("spark", kind): {"uint64"} for kind in ("csv", "tsv", "jsonl", "parquet")},
}
ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-32")


# A field with one of these is quoted, by DuckDB also one with the start of a comment.
_QUOTED_IN_TSV = set('\t\n"\\#')


@dataclass(frozen=True)
class Drawn:
    """A table, the kinds of its columns and its values."""

    kinds: dict[str, tuple[str, Kind]]
    values: dict[str, list[Any]]
    encoding: str

    @property
    def table(self) -> pa.Table:
        """In Arrow."""
        return pa.table({n: pa.array(self.values[n], k.type) for n, (_, k) in self.kinds.items()})

    def can_be(self, format: str, library: str) -> bool:
        """Whether the library writes these values as they are in the format."""
        ids = {self.kinds[name][0] for name in "ui"}
        if ids & _OTHER_TEXT.get((library, format), set()):
            return False
        texts = [v for column in self.values.values() for v in column if isinstance(v, str)]
        if format == "tsv" and any(set(text) & _QUOTED_IN_TSV for text in texts):
            return False
        return format not in ("csv", "tsv") or all(kind.text for _, kind in self.kinds.values())


@st.composite
def tables(draw: st.DrawFn) -> Drawn:
    """A table of users, items, times and weights; ids and weights may be missing."""
    chosen = {
        name: draw(st.sampled_from(sorted(kinds.items())))
        for name, kinds in (("u", IDS), ("i", IDS), ("t", TIMES), ("w", WEIGHTS))
    }
    rows = draw(st.integers(1, 8))
    values = {}
    for name, (_, kind) in chosen.items():
        maybe = kind.values if name == "t" else st.one_of(kind.values, kind.values, st.none())
        values[name] = draw(st.lists(maybe, min_size=rows, max_size=rows))
    return Drawn(chosen, values, draw(st.sampled_from(ENCODINGS)))


def _expected(drawn: Drawn) -> tuple[Counter[Any], Counter[str]]:
    """Events and reasons of rejects by a plain reading of the values."""
    events: Counter[Any] = Counter()
    reasons: Counter[str] = Counter()
    for row in zip(*(drawn.values[name] for name in "uitw"), strict=True):
        user, item, time, weight = (
            None if value is None else drawn.kinds[name][1].meaning(value)
            for name, value in zip("uitw", row, strict=True)
        )
        reason = _reason("user", row[0], user) or _reason("item", row[1], item)
        if reason or weight is None:
            reasons[reason or "weight"] += 1
        else:
            events[user, item, time, round(weight, 9)] += 1
    return events, reasons


def _reason(side: str, value: Any, meaning: str | None) -> str:
    if meaning is not None:
        return ""
    return f"{side}_missing" if value is None else "id_not_whole"


def _found(log: Read) -> tuple[Counter[Any], Counter[str]]:
    events = Counter((u, i, t, round(w, 9)) for u, i, t, w in log.events)
    assert all(math.isfinite(event[3]) for event in events)
    return events, Counter(reason for _, _, reason, _ in log.rejects)


def _config(path: Path, format: str, encoding: str) -> dict[str, Any]:
    return {
        "paths": str(path), "format": format, "encoding": encoding,
        "user": "u", "item": "i", "time": "t", "time_unit": "auto", "weight": "w",
    }  # fmt: skip


@settings(max_examples=TABLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=tables())
def test_every_library_writes_the_same_log(
    tmp_path_factory: pytest.TempPathFactory, drawn: Drawn
) -> None:
    folder = tmp_path_factory.mktemp("tables", numbered=True)
    wanted = _expected(drawn)
    for kind, writers in WRITERS.items():
        for library, write in writers.items():
            if not drawn.can_be(kind, library):
                continue
            path, encoding = folder / f"{library}.{kind}", "utf-8"
            data = write(drawn.table)
            if kind != "parquet":
                encoding = drawn.encoding
                data = data.decode("utf-8").encode(encoding)
            path.write_bytes(data)
            assert _found(read_log(**_config(path, kind, encoding))) == wanted, (library, kind)
            path.unlink()
    folder.rmdir()


@pytest.mark.spark
@settings(max_examples=SPARK_TABLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=tables())
def test_so_does_spark(
    tmp_path_factory: pytest.TempPathFactory, spark: SparkSession, drawn: Drawn
) -> None:
    folder = tmp_path_factory.mktemp("spark")
    for kind, write in spark_writers(spark, folder).items():
        if drawn.can_be(kind, "spark"):
            path = write(drawn.table)
            assert _found(read_log(**_config(path, kind, "utf-8"))) == _expected(drawn), kind
