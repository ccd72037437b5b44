"""The query that asks a condition of a block: what is text in the block, cast to what it meets.

A cast that cannot be made gives null: no value spoils the others of its block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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

__all__ = ["Kinds", "query_tree"]

# DuckDB's type of columns by name: VARCHAR, DOUBLE for any number, "" for what has no constants.
Kinds = Mapping[str, str]

_TIMES = frozenset(["date_trunc", "datetrunc", "make_date", "to_timestamp", "try_strptime"])


def query_tree(condition: Condition, kinds: Kinds) -> str:
    """DuckDB's tree of the query, as JSON, over a table with columns of these `kinds`."""
    document = json.loads(condition.tree)
    select = document["statements"][0]["node"]["select_list"]
    select[0] = _truth(_typed(select[0], kinds), kinds)
    return json.dumps(document)


def _typed(node: Node, kinds: Kinds) -> Node:
    """The node with its text columns cast to what they meet, and casts that give null."""
    node = {key: _typed_in(value, kinds) for key, value in node.items()}
    kind = node["class"]
    if kind == "COLUMN_REF":
        node["column_names"] = [".".join(node["column_names"])]
    elif kind == "CAST" and node["child"]["class"] != "CONSTANT":
        node["try_cast"] = True  # and a constant that cannot be cast is the condition's fault
    elif kind == "COMPARISON":
        node["left"], node["right"] = _met([node["left"], node["right"]], kinds)
    elif kind == "BETWEEN":
        parts = _met([node[name] for name in ("input", "lower", "upper")], kinds)
        node["input"], node["lower"], node["upper"] = parts
    elif kind == "CONJUNCTION" or node["type"] == "OPERATOR_NOT":
        node["children"] = [_truth(child, kinds) for child in node["children"]]
    elif node["type"] in ("COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_COALESCE"):
        node["children"] = _met(node["children"], kinds)
    elif kind == "CASE":
        for one in node["case_checks"]:
            one["when_expr"] = _truth(one["when_expr"], kinds)
    elif kind == "FUNCTION":
        _type_arguments(node, kinds)
    return node


def _typed_in(value: Any, kinds: Kinds) -> Any:
    if isinstance(value, dict):
        if "class" in value:
            return _typed(value, kinds)
        return {key: _typed_in(one, kinds) for key, one in value.items()}
    return [_typed_in(one, kinds) for one in value] if isinstance(value, list) else value


def _type_arguments(node: Node, kinds: Kinds) -> None:
    """Text columns among a function's arguments as what the function takes."""
    name, arguments = node["function_name"], node["arguments"]
    parts = [argument["expression"] for argument in arguments]
    if name in OF_TIMES:
        parts = [_cast(part, _type("TIMESTAMP"), kinds) for part in parts]
    elif name in ALIKE:
        parts = _met(parts, kinds)
    elif name in OF_NUMBERS | ARITHMETIC:
        timely = any(_of_time(part, kinds) for part in parts)
        parts = [_cast(part, _type("TIMESTAMP" if timely else "DOUBLE"), kinds) for part in parts]
    for argument, part in zip(arguments, parts, strict=True):
        argument["expression"] = part


def _met(parts: list[Node], kinds: Kinds) -> list[Node]:
    """Expressions that are compared: text columns among them as what the others are."""
    kind = _first(parts, kinds)
    return parts if kind is None else [_cast(part, kind, kinds) for part in parts]


def _truth(node: Node, kinds: Kinds) -> Node:
    """A condition; a text column that stands for one is read as true or false."""
    return _cast(node, _type("BOOLEAN"), kinds)


def _cast(node: Node, kind: Node, kinds: Kinds) -> Node:
    """The node; where it is a text column, cast."""
    if node["class"] != "COLUMN_REF" or kinds[node["column_names"][0]] != "VARCHAR":
        return node
    return {
        "class": "CAST", "type": "OPERATOR_CAST", "alias": "", "child": node, "try_cast": True,
        "type_expr": kind,
    }  # fmt: skip


def _kind(node: Node, kinds: Kinds) -> Node | None:
    """The type that text is to have where it meets the expression; None where it stays text."""
    if node["class"] == "CONSTANT":
        return _CONSTANTS.get(node["literal"]["kind"])
    if node["class"] in ("CAST", "COLUMN_REF"):
        of_column = node["class"] == "COLUMN_REF"
        name = kinds[node["column_names"][0]] if of_column else type_name(node["type_expr"])
        return None if not name or name in TEXTS else _type("DOUBLE" if name in NUMBERS else name)
    if node["class"] == "FUNCTION":
        name, parts = node["function_name"], [a["expression"] for a in node["arguments"]]
        if name in _TIMES:
            return _type("TIMESTAMP")
        if name in OF_NUMBERS | OF_TIMES | TO_NUMBERS:
            return _type("DOUBLE")
        if name in ARITHMETIC and not any(_of_time(part, kinds) for part in parts):
            return _type("DOUBLE")
        return _first(parts, kinds) if name in ALIKE | ARITHMETIC else None
    return _first(node["children"], kinds) if node["type"] == "OPERATOR_COALESCE" else None


def _first(parts: list[Node], kinds: Kinds) -> Node | None:
    """The first type that one of the expressions has."""
    return next((kind for part in parts if (kind := _kind(part, kinds)) is not None), None)


def _of_time(node: Node, kinds: Kinds) -> bool:
    """Whether an expression is a time or a span of time by its form."""
    if node["class"] == "FUNCTION" and node["function_name"] in DURATIONS:
        return True
    kind = _kind(node, kinds)
    return kind is not None and kind["type_name"] not in ("DOUBLE", "BOOLEAN")


def _type(name: str) -> Node:
    return {
        "class": "TYPE", "type": "TYPE", "alias": "", "catalog": "", "schema": "",
        "type_name": name, "children": [], "qualified_name": {"path": [name]},
    }  # fmt: skip


_CONSTANTS: dict[str, Node] = {
    "INTEGER": _type("DOUBLE"),
    "NUMERIC": _type("DOUBLE"),
    "BOOLEAN": _type("BOOLEAN"),
}
