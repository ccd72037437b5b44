from __future__ import annotations

import pytest

from embedmill.pipeline.config.conditions import FUNCTIONS, connect, parse


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("country = 'DE' and price > 0", ("country", "price")),
        ("\"odd name\" like 'x%' -- a comment", ("odd name",)),
        ("context.country in ('DE', 'AT')", ("context.country",)),
        ("a is null or a not between 1 and 2", ("a",)),
        ("case when a then b else c end", ("a", "b", "c")),
        ("ts - interval 1 day < timestamp '2026-01-01'", ("ts",)),
    ],
)
def test_columns_are_those_of_the_text(text: str, columns: tuple[str, ...]) -> None:
    assert parse(text).columns == columns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price >", "does not parse: something is missing after 'price >'"),
        ("a = 1 b", 'does not parse: syntax error at or near "b", at character 7'),
        ("a = 1; drop table x", 'does not parse: syntax error at or near ";"'),
        ("(" * 1500 + "a" + ")" * 1500, "does not parse: it is nested too deeply"),
        ("not " * 3000 + "a", "does not parse: it is nested too deeply"),
        ("a = 1 /* open", "does not parse: unterminated"),
        ("1 = 1", "names no column"),
        ("a = 1 and A = 2", "two columns differ only in case: 'a'"),
        ("a in (select 1)", "a query is not allowed in a condition"),
        ("a = 1) from read_text('/etc/passwd') where (true", "something is missing"),
        ("a = 1) from read_text('/etc/passwd') union select (true", "not a whole query"),
        ("a = 1) union select (true", "not a whole query"),
        ("a), (b", "not a list"),
        ("*", r"\* is not allowed"),
        ("a = $1", "a parameter is not allowed"),
        ("a, b", "the function 'row' is not allowed"),
        ("read_text('/etc/passwd') = a", "the function 'read_text' is not allowed"),
        ("getenv('HOME') = a", "the function 'getenv' is not allowed"),
        ("random() < a", "the function 'random' is not allowed"),
        ("now() < a", "the function 'now' is not allowed"),
        ("sum(a) > 1", "the function 'sum' is not allowed"),
        ("strptime(a, '%Y') > b", "did you mean 'strftime'"),
        ("lower(distinct a) = 'x'", "'lower' is not allowed"),
        ("row_number() over () > a", "window is not allowed"),
        ("a::blob = b", "the type blob is not allowed"),
        ("a[1] = 2", "'array_extract' is not allowed"),
        ("try(a)", "'try' is not allowed"),
    ],
)
def test_what_is_not_allowed_in_a_condition(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_every_function_depends_on_its_arguments_alone() -> None:
    query = """
        SELECT function_name, function_type, stability, has_side_effects
        FROM duckdb_functions()
    """
    found = connect().execute(query).fetchall()
    kinds = {
        name: [(kind, stability, effects) for n, kind, stability, effects in found if n == name]
        for name in FUNCTIONS
    }
    for name, ways in kinds.items():
        assert ways, f"DuckDB has no {name}"
        for kind, stability, effects in ways:
            if (name, kind) not in {("if", "macro"), ("nullif", "macro"), ("split_part", "macro")}:
                assert (kind, stability) == ("scalar", "CONSISTENT"), name
                assert not effects, name


def test_a_connection_sees_no_files() -> None:
    with pytest.raises(Exception, match="disabled by configuration"):
        connect().execute("SELECT * FROM read_text('/etc/hostname')")
