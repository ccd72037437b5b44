"""`events.filter`: a SQL condition on the raw columns, evaluated by DuckDB inside the task.

The engines disagree about comparing text with numbers and about values that cannot be cast. One
evaluator, which runs before anything is shuffled, gives the same rows on every engine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedmill.pipeline.config.conditions import TABLE, Condition, connect
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.mixed import Column, MixedColumn
from embedmill.pipeline.prepare.parse.numbers import as_plain_text
from embedmill.pipeline.prepare.parse.values import is_text, plain_values
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.rules.casts import query_tree

__all__ = ["Filter"]

Mask = npt.NDArray[np.bool_]


class Filter:
    """A condition that a task evaluates on its batches; the connection is opened at first use."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._connection: Any = None
        self._queries: dict[frozenset[tuple[str, str]], str] = {}  # by types of the columns

    def matches(self, batch: ParsedBatch) -> Mask:
        """Whether each record meets the condition; false where the condition is null.

        Raises:
            InputError: the condition cannot be evaluated on columns of these types.
        """
        import duckdb

        table = pa.table({name: _one_type(batch.columns[name]) for name in self._condition.columns})
        try:
            if self._connection is None:
                self._connection = connect()
            self._connection.register(TABLE, table)
            result = self._connection.sql(self._query(table)).to_arrow_table().column(0)
        except (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError) as error:
            raise InputError(
                f"events.filter cannot be evaluated on this file: {str(error).splitlines()[0]}",
                todo="Cast in the filter: try_cast(price as double) > 0",
            ) from None
        if not pa.types.is_boolean(result.type):
            raise InputError(
                f"events.filter is not a condition: its value is of type {result.type}",
                todo="Compare it with something",
            )
        return result.fill_null(False).to_numpy().astype(bool)  # type: ignore[no-any-return]

    def _query(self, table: pa.Table) -> str:
        types = {field.name: _duckdb_type(field.type) for field in table.schema}
        key = frozenset(types.items())
        if key not in self._queries:
            tree = query_tree(self._condition, types)
            rows = self._connection.execute("SELECT json_deserialize_sql(?)", [tree]).fetchall()
            self._queries[key] = rows[0][0]
        return self._queries[key]


def _one_type(column: Column) -> pa.Array:
    """The column as DuckDB can read it: values of several types as text."""
    return as_plain_text(column) if isinstance(column, MixedColumn) else plain_values(column)


def _duckdb_type(kind: pa.DataType) -> str:
    """The entry of an Arrow type in `casts.ColumnTypes`."""
    if is_text(kind):
        return "VARCHAR"
    if any(test(kind) for test in _NUMBER_TYPES):
        return "DOUBLE"
    if pa.types.is_boolean(kind):
        return "BOOLEAN"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE" if kind.tz else "TIMESTAMP"
    return "DATE" if pa.types.is_date(kind) else ""


_NUMBER_TYPES = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
