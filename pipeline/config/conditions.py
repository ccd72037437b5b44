"""SQL conditions on the raw columns of a log (`events.filter`), parsed and checked.

DuckDB parses the text; its syntax tree is checked here against the lists below. They allow
columns, constants, comparisons and functions that depend on nothing but their arguments. No
condition can read a file, a setting, the clock or random numbers, so its value for a record is
the same on every machine and at any time.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["FUNCTIONS", "TABLE", "Condition", "Node", "connect", "parse", "type_name"]

TABLE = "batch"  # name of the table that conditions are evaluated on
_SETTINGS: dict[str, Any] = {
    "threads": 1,
    "enable_external_access": False,
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

Node = dict[str, Any]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARITHMETIC = _words("+ - * / // %")
OF_NUMBERS = _words("abs ceil ceiling floor mod round sign sqrt trunc")
OF_TIMES = _words(
    """
    date_diff date_part date_trunc datediff datepart datetrunc day dayofmonth dayofweek
    dayofyear epoch epoch_ms epoch_us hour isodow minute month quarter second week weekday
    weekofyear year
    """
)
TO_NUMBERS = _words("char_length character_length instr len length position strlen strpos")
DURATIONS = _words(
    """
    to_days to_hours to_microseconds to_milliseconds to_minutes to_months to_seconds
    to_weeks to_years
    """
)
ALIKE = _words("greatest least nullif")
_OTHERS = _words(
    """
    ~~ !~~ ~~* !~~* ~~~ ^@ || like_escape not_like_escape ilike_escape not_ilike_escape
    concat contains ends_with if isfinite isinf isnan lcase left lower lpad ltrim make_date
    prefix regexp_extract regexp_full_match regexp_matches regexp_replace replace reverse
    right rpad rtrim split_part starts_with strftime substr substring suffix to_timestamp
    trim try_strptime ucase upper
    """
)
FUNCTIONS = ARITHMETIC | OF_NUMBERS | OF_TIMES | TO_NUMBERS | DURATIONS | ALIKE | _OTHERS

_OPERATORS = _words(
    """
    OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE COMPARE_IN
    COMPARE_NOT_IN
    """
)
_NODE_CLASSES = _words(
    """
    BETWEEN CASE CAST COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION OPERATOR TYPE
    """
)
# How errors call the classes that SQL users know by another name.
_CLASS_NAMES = {"SUBQUERY": "a query", "STAR": "*", "LAMBDA": "->", "PARAMETER": "a parameter"}
NUMBERS = _words(
    """
    REAL TINYINT SMALLINT INTEGER BIGINT HUGEINT FLOAT DOUBLE DECIMAL UTINYINT USMALLINT
    UINTEGER UBIGINT
    """
)
TEXTS = _words("VARCHAR TEXT STRING")
_TYPES = NUMBERS | TEXTS | {
    "BOOLEAN", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "INTERVAL"
}  # fmt: skip
# The text becomes the only column of a query; the newline ends a comment at its end.
_BEFORE, _AFTER = "SELECT (", f"\n) FROM {TABLE}"


@dataclass(frozen=True)
class Condition:
    """A checked condition.

    Attributes:
        tree: DuckDB's syntax tree of the query `SELECT (condition) FROM <TABLE>`, as JSON.
        columns: names of the columns it reads, as they are written in the text.
    """

    tree: str
    columns: tuple[str, ...]


@lru_cache(maxsize=16)
def parse(text: str) -> Condition:
    """Parse and check a condition.

    Raises:
        ValueError: the text does not parse, or has something that is not allowed in a condition.
    """
    document = _document(text)
    node = document["statements"][0]["node"]
    if len(document["statements"]) != 1 or {**node, "select_list": []} != _query_frame():
        raise ValueError("one condition is needed, not a whole query")
    if len(node["select_list"]) != 1:
        raise ValueError("one condition is needed, not a list")
    try:
        columns = tuple(dict.fromkeys(_columns(node["select_list"][0])))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    lower = [name.lower() for name in columns]
    for name in columns:
        if lower.count(name.lower()) > 1:
            raise ValueError(f"two columns differ only in case: '{name.lower()}'")
    if not columns:
        raise ValueError("names no column")
    return Condition(json.dumps(document), columns)


def connect() -> Any:
    """A DuckDB connection of one thread without access to files, extensions or Python variables."""
    import duckdb  # imported here so that a config without conditions does not load it

    connection = duckdb.connect(config=_SETTINGS)
    connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
    return connection


def _document(text: str) -> Node:
    """DuckDB's syntax tree of a query for the condition, without positions in the text."""
    import duckdb

    with connect() as connection:
        query = f"{_BEFORE}{text}{_AFTER}"
        try:
            row = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone()
            document = json.loads(row[0] if row else "{}")
        except (duckdb.Error, RecursionError) as error:
            raise ValueError(f"does not parse: {_first_line(error)}") from None
    if document["error"]:
        raise ValueError(_parse_error(document, text))
    return dict(_without_positions(document))


def _parse_error(document: Node, text: str) -> str:
    """The error message for a text that does not parse, with the position in the text."""
    message = _first_line(document["error_message"])
    at = int(document.get("position") or 0) - len(_BEFORE)
    if at >= len(text):
        return f"does not parse: something is missing after '{text[-20:]}'"
    if at < 0:
        return f"does not parse: {message}"
    return f"does not parse: {message}, at character {at + 1}"


def _first_line(error: object) -> str:
    """The first line of DuckDB's message, without the class of the error."""
    line = str(error).splitlines()[0].removeprefix("Parser Error: ")
    return "it is nested too deeply" if "expression depth" in line else line


@lru_cache(maxsize=1)
def _query_frame() -> Node:
    """The syntax tree of the query around a condition, without the condition.

    A text that closes the parenthesis and adds clauses of its own gives another tree.
    """
    return {**_document("true")["statements"][0]["node"], "select_list": []}


def _without_positions(value: Any) -> Any:
    """A tree without the positions in the text at which its nodes begin."""
    if isinstance(value, dict):
        rest = {k: v for k, v in value.items() if not k.startswith("query_location")}
        return {k: _without_positions(v) for k, v in rest.items()}
    return [_without_positions(v) for v in value] if isinstance(value, list) else value


def _columns(node: Node) -> Iterator[str]:
    """The columns below a node; the node and all below it are checked.

    Raises:
        ValueError: something is not allowed in a condition.
    """
    kind = node["class"]
    if kind not in _NODE_CLASSES:
        raise ValueError(f"{_CLASS_NAMES.get(kind, kind.lower())} is not allowed in a condition")
    check = _CHECKS.get(kind)
    if check is not None:
        check(node)
    if kind == "COLUMN_REF":
        yield ".".join(node["column_names"])
    for value in node.values():
        yield from _columns_in(value)


def _columns_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and "class" in value:
        yield from _columns(value)
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _columns_in(inner)


def _check_function(node: Node) -> None:
    name = node["function_name"]
    special = node["filter"] or node["distinct"] or node["order_bys"]["orders"]
    if node["schema"] or node["catalog"] or special:
        raise ValueError(f"'{name}' is not allowed in a condition with these clauses")
    if name not in FUNCTIONS:
        near = difflib.get_close_matches(name, FUNCTIONS, 1, 0.75)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"the function '{name}' is not allowed in a condition{hint}")


def _check_operator(node: Node) -> None:
    if node["type"] not in _OPERATORS:
        name = node["type"].removeprefix("OPERATOR_").lower()
        raise ValueError(f"'{name}' is not allowed in a condition")


def type_name(node: Node) -> str:
    """The name of a SQL type, in capitals."""
    return str(node["type_name"]).upper()


def _check_type(node: Node) -> None:
    if type_name(node) not in _TYPES or node["schema"] or node["catalog"]:
        raise ValueError(f"the type {node['type_name']} is not allowed in a condition")


_CHECKS: dict[str, Callable[[Node], None]] = {
    "FUNCTION": _check_function,
    "OPERATOR": _check_operator,
    "TYPE": _check_type,
}
