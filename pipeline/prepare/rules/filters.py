"""`events.filter` on blocks of raw columns, by DuckDB inside the task.

The engines do not agree on what a text that meets a number is, nor on what a bad cast does;
one evaluator in the task gives one answer, before anything is shuffled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedmill.pipeline.config.conditions import TABLE, Condition, connect
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.rules.casts import query_tree

__all__ = ["Filter"]

Mask = npt.NDArray[np.bool_]


class Filter:
    """A condition that a task asks of its blocks."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._connection: Any = None
        self._queries: dict[frozenset[tuple[str, str]], str] = {}

    def takes(self, batch: ParsedBatch) -> Mask:
        """Which records meet the condition; those of which it is unknown do not.

        Raises:
            InputError: the condition cannot be asked of columns of these types.
        """
        import duckdb

        table = pa.table({name: batch.columns[name] for name in self._condition.columns})
        try:
            if self._connection is None:
                self._connection = connect()
            self._connection.register(TABLE, table)
            found = self._connection.sql(self._query(table)).to_arrow_table().column(0)
        except (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError) as error:
            raise InputError(
                f"events.filter cannot be asked of this file: {str(error).splitlines()[0]}",
                todo="Cast in the filter: try_cast(price as double) > 0",
            ) from None
        if not pa.types.is_boolean(found.type):
            raise InputError(
                f"events.filter is no condition: it gives {found.type}",
                todo="Compare it with something",
            )
        return found.fill_null(False).to_numpy().astype(bool)  # type: ignore[no-any-return]

    def _query(self, table: pa.Table) -> str:
        kinds = {field.name: _kind(field.type) for field in table.schema}
        key = frozenset(kinds.items())
        if key not in self._queries:
            tree = query_tree(self._condition, kinds)
            rows = self._connection.execute("SELECT json_deserialize_sql(?)", [tree]).fetchall()
            self._queries[key] = rows[0][0]
        return self._queries[key]


def _kind(kind: pa.DataType) -> str:
    """DuckDB's type for constants that a column is compared with."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if any(test(kind) for test in _TEXTS):
        return "VARCHAR"
    if any(test(kind) for test in _NUMBERS):
        return "DOUBLE"
    if pa.types.is_boolean(kind):
        return "BOOLEAN"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE" if kind.tz else "TIMESTAMP"
    return "DATE" if pa.types.is_date(kind) else ""


_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
