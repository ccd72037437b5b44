"""Casts in the query of `events.filter`: text columns become the type they are compared with.

The raw columns of CSV and JSON Lines are text. Where a condition compares such a column with a
number, a time or a truth value, or passes it to a function, a cast is put around it in DuckDB's
syntax tree. All casts are `TRY_CAST`: a value that cannot be cast is null, and the other values
of its batch are not affected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from embedmill.pipeline.config.conditions import (
    ALIKE,
    ARITHMETIC,
    DURATIONS,
    NUMBERS,
    OF_NUMBERS,
    OF_TIMES,
    TEXTS,
    TO_NUMBERS,
    Condition,
    Node,
    type_name,
)

__all__ = ["ColumnTypes", "query_tree"]

# DuckDB type by column: VARCHAR for text, DOUBLE for every number, "" for a type whose values
# cannot be written as constants.
ColumnTypes = Mapping[str, str]

_TIME_FUNCTIONS = frozenset(
    ["date_trunc", "datetrunc", "make_date", "to_timestamp", "try_strptime"]
)


def query_tree(condition: Condition, types: ColumnTypes) -> str:
    """DuckDB's syntax tree (JSON) of the query that evaluates a condition.

    Args:
        condition: a condition that was checked.
        types: of the columns of the table that the query reads.
    """
    document = json.loads(condition.tree)
    select = document["statements"][0]["node"]["select_list"]
    select[0] = _as_boolean(_add_casts(select[0], types), types)
    return json.dumps(document)


def _add_casts(node: Node, types: ColumnTypes) -> Node:
    """The expression with casts around its text columns; casts of its own become TRY_CAST."""
    node = {key: _add_casts_inside(value, types) for key, value in node.items()}
    rewrite = _REWRITES.get(node["type"]) or _REWRITES.get(node["class"])
    if rewrite is not None:
        rewrite(node, types)
    return node


def _add_casts_inside(value: Any, types: ColumnTypes) -> Any:
    """The same for whatever a node holds: an expression, a list, an object, or a plain value."""
    if isinstance(value, dict):
        if "class" in value:
            return _add_casts(value, types)
        return {key: _add_casts_inside(one, types) for key, one in value.items()}
    return [_add_casts_inside(one, types) for one in value] if isinstance(value, list) else value


def _rewrite_column(node: Node, types: ColumnTypes) -> None:
    node["column_names"] = [".".join(node["column_names"])]


def _rewrite_cast(node: Node, types: ColumnTypes) -> None:
    # A constant that cannot be cast is a mistake in the condition, and shall raise.
    if node["child"]["class"] != "CONSTANT":
        node["try_cast"] = True


def _rewrite_comparison(node: Node, types: ColumnTypes) -> None:
    node["left"], node["right"] = _to_one_type([node["left"], node["right"]], types)


def _rewrite_between(node: Node, types: ColumnTypes) -> None:
    names = ("input", "lower", "upper")
    node.update(zip(names, _to_one_type([node[name] for name in names], types), strict=True))


def _rewrite_logical(node: Node, types: ColumnTypes) -> None:
    node["children"] = [_as_boolean(child, types) for child in node["children"]]


def _rewrite_alternatives(node: Node, types: ColumnTypes) -> None:
    node["children"] = _to_one_type(node["children"], types)


def _rewrite_case(node: Node, types: ColumnTypes) -> None:
    for check in node["case_checks"]:
        check["when_expr"] = _as_boolean(check["when_expr"], types)


def _rewrite_function(node: Node, types: ColumnTypes) -> None:
    name, arguments = node["function_name"], node["arguments"]
    parts = [argument["expression"] for argument in arguments]
    if name in OF_TIMES:
        parts = [_cast_text(part, _type("TIMESTAMP"), types) for part in parts]
    elif name in ALIKE:
        parts = _to_one_type(parts, types)
    elif name in OF_NUMBERS | ARITHMETIC:
        has_time = any(_is_time(part, types) for part in parts)
        target = _type("TIMESTAMP" if has_time else "DOUBLE")
        parts = [_cast_text(part, target, types) for part in parts]
    for argument, part in zip(arguments, parts, strict=True):
        argument["expression"] = part


# By a node's type where it has a rewrite of its own, else by its class.
_REWRITES: dict[str, Callable[[Node, ColumnTypes], None]] = {
    "COLUMN_REF": _rewrite_column,
    "CAST": _rewrite_cast,
    "COMPARISON": _rewrite_comparison,
    "BETWEEN": _rewrite_between,
    "CONJUNCTION": _rewrite_logical,
    "OPERATOR_NOT": _rewrite_logical,
    "COMPARE_IN": _rewrite_alternatives,
    "COMPARE_NOT_IN": _rewrite_alternatives,
    "OPERATOR_COALESCE": _rewrite_alternatives,
    "CASE": _rewrite_case,
    "FUNCTION": _rewrite_function,
}


def _to_one_type(parts: list[Node], types: ColumnTypes) -> list[Node]:
    """Expressions that are compared: text columns among them cast to the type of the others."""
    target = _first_type(parts, types)
    return parts if target is None else [_cast_text(part, target, types) for part in parts]


def _as_boolean(node: Node, types: ColumnTypes) -> Node:
    """An expression used as a condition; a text column is read as true or false."""
    return _cast_text(node, _type("BOOLEAN"), types)


def _cast_text(node: Node, target: Node, types: ColumnTypes) -> Node:
    """The expression; if it is a text column, cast to the target type."""
    if node["class"] != "COLUMN_REF" or types[node["column_names"][0]] != "VARCHAR":
        return node
    return {
        "class": "CAST", "type": "OPERATOR_CAST", "alias": "", "child": node, "try_cast": True,
        "type_expr": target,
    }  # fmt: skip


def _type_of(node: Node, types: ColumnTypes) -> Node | None:
    """The type to which text compared with the expression is cast; None if it stays text."""
    infer = _TYPE_RULES.get(node["type"]) or _TYPE_RULES.get(node["class"])
    return None if infer is None else infer(node, types)


def _type_of_constant(node: Node, types: ColumnTypes) -> Node | None:
    return _CONSTANT_TYPES.get(node["literal"]["kind"])


def _type_of_cast(node: Node, types: ColumnTypes) -> Node | None:
    return _named_type(type_name(node["type_expr"]))


def _type_of_column(node: Node, types: ColumnTypes) -> Node | None:
    return _named_type(types[node["column_names"][0]])


def _type_of_function(node: Node, types: ColumnTypes) -> Node | None:
    name, parts = node["function_name"], [a["expression"] for a in node["arguments"]]
    if name in _TIME_FUNCTIONS:
        return _type("TIMESTAMP")
    if name in OF_NUMBERS | OF_TIMES | TO_NUMBERS:
        return _type("DOUBLE")
    if name in ARITHMETIC and not any(_is_time(part, types) for part in parts):
        return _type("DOUBLE")
    return _first_type(parts, types) if name in ALIKE | ARITHMETIC else None


def _type_of_coalesce(node: Node, types: ColumnTypes) -> Node | None:
    return _first_type(node["children"], types)


# As _REWRITES: by a node's type, else by its class.
_TYPE_RULES: dict[str, Callable[[Node, ColumnTypes], Node | None]] = {
    "CONSTANT": _type_of_constant,
    "CAST": _type_of_cast,
    "COLUMN_REF": _type_of_column,
    "FUNCTION": _type_of_function,
    "OPERATOR_COALESCE": _type_of_coalesce,
}


def _first_type(parts: list[Node], types: ColumnTypes) -> Node | None:
    """The type of the first expression that has one."""
    return next((kind for part in parts if (kind := _type_of(part, types)) is not None), None)


def _is_time(node: Node, types: ColumnTypes) -> bool:
    """Whether an expression is a time or a duration, as far as its form tells."""
    if node["class"] == "FUNCTION" and node["function_name"] in DURATIONS:
        return True
    kind = _type_of(node, types)
    return kind is not None and kind["type_name"] not in ("DOUBLE", "BOOLEAN")


def _named_type(name: str) -> Node | None:
    """The type node of a DuckDB type; all numbers are DOUBLE, text has none."""
    return None if not name or name in TEXTS else _type("DOUBLE" if name in NUMBERS else name)


def _type(name: str) -> Node:
    return {
        "class": "TYPE", "type": "TYPE", "alias": "", "catalog": "", "schema": "",
        "type_name": name, "children": [], "qualified_name": {"path": [name]},
    }  # fmt: skip


_CONSTANT_TYPES: dict[str, Node] = {
    "INTEGER": _type("DOUBLE"),
    "NUMERIC": _type("DOUBLE"),
    "BOOLEAN": _type("BOOLEAN"),
}
