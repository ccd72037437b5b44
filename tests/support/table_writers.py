"""A table of Python values, written by the libraries whose files people have."""

from __future__ import annotations

import functools
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
from pyspark.sql import SparkSession

from tests.support.log_cases import arrow_delimited, arrow_parquet

__all__ = ["WRITERS", "spark_writers"]

Writer = Callable[[pa.Table], bytes]


def _pandas(table: pa.Table) -> pd.DataFrame:
    """With types that keep whole numbers whole beside a missing value."""
    return table.to_pandas(types_mapper=_PANDAS_TYPES.get)


_PANDAS_TYPES = {
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(),
}


def _pandas_delimited(separator: str) -> Writer:
    def write(table: pa.Table) -> bytes:
        return _pandas(table).to_csv(sep=separator, index=False).encode()

    return write


def _pandas_json(table: pa.Table) -> bytes:
    frame = _pandas(table)
    return frame.to_json(
        orient="records", lines=True, date_format="iso", date_unit="us", double_precision=15
    ).encode()


def _pandas_parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    _pandas(table).to_parquet(out, index=False)
    return out.getvalue()


def _polars(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _polars_delimited(separator: str) -> Writer:
    return lambda table: _polars(table).write_csv(separator=separator).encode()


def _polars_json(table: pa.Table) -> bytes:
    return _polars(table).write_ndjson().encode()


def _polars_parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    _polars(table).write_parquet(out)
    return out.getvalue()


def _duckdb(options: str) -> Writer:
    def write(table: pa.Table) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "table")
            session = _duckdb_session()
            session.register("log", table)
            session.execute(f"COPY (FROM log) TO '{path}' ({options})")
            return path.read_bytes()

    return write


@functools.cache
def _duckdb_session() -> duckdb.DuckDBPyConnection:
    session = duckdb.connect()
    session.execute("SET TimeZone = 'UTC'; SET threads = 1")
    return session


def _python_json(table: pa.Table) -> bytes:
    return "".join(json.dumps(row, default=_as_json) + "\n" for row in table.to_pylist()).encode()


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return int(value) if isinstance(value, Decimal) else str(value)


# Format → name of the library → its writer.
WRITERS: Mapping[str, Mapping[str, Writer]] = {
    "csv": {
        "arrow": functools.partial(arrow_delimited, separator=","),
        "pandas": _pandas_delimited(","),
        "polars": _polars_delimited(","),
        "duckdb": _duckdb("FORMAT csv, HEADER"),
    },
    "tsv": {
        "arrow": functools.partial(arrow_delimited, separator="\t"),
        "pandas": _pandas_delimited("\t"),
        "polars": _polars_delimited("\t"),
        "duckdb": _duckdb("FORMAT csv, HEADER, DELIMITER '\t'"),
    },
    "jsonl": {
        "python": _python_json,
        "pandas": _pandas_json,
        "polars": _polars_json,
        "duckdb": _duckdb("FORMAT json"),
    },
    "parquet": {
        "arrow": arrow_parquet,
        "pandas": _pandas_parquet,
        "polars": _polars_parquet,
        "duckdb": _duckdb("FORMAT parquet"),
    },
}


def spark_writers(session: SparkSession, folder: Path) -> dict[str, Callable[[pa.Table], Path]]:
    """By format: writers that give a folder of files, Spark's marker files among them."""

    def writer(kind: str, **options: Any) -> Callable[[pa.Table], Path]:
        def write(table: pa.Table) -> Path:
            out = folder / kind
            frame = session.createDataFrame(table)
            frame.write.mode("overwrite").format(_SPARK_FORMATS[kind]).options(**options).save(
                str(out)
            )
            return out

        return write

    # By default it writes milliseconds.
    times = {
        "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
        "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
    }
    quotes = {"header": True, "escape": '"', "quote": '"', **times}
    return {
        "csv": writer("csv", **quotes),
        "tsv": writer("tsv", sep="\t", **quotes),
        "jsonl": writer("jsonl", **times),
        "parquet": writer("parquet"),
    }


_SPARK_FORMATS = {"csv": "csv", "tsv": "csv", "jsonl": "json", "parquet": "parquet"}
