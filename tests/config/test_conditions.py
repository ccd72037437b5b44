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
    ("text", "said"),
    [
        ("price >", "does not parse: something is missing after 'price >'"),
        ("a = 1 b", 'does not parse: syntax error at or near "b", at character 7'),
        ("a = 1; drop table x", 'does not parse: syntax error at or near ";"'),
        ("(" * 1500 + "a" + ")" * 1500, "does not parse: it is nested too deeply"),
        ("not " * 3000 + "a", "does not parse: it is nested too deeply"),
        ("a = 1 /* open", "does not parse: unterminated"),
        ("1 = 1", "names no column"),
        ("a = 1 and A = 2", "two columns are called 'a' but for upper case"),
        ("a in (select 1)", "a query has no place in a condition"),
        ("a = 1) from read_text('/etc/passwd') where (true", "something is missing"),
        ("a = 1) from read_text('/etc/passwd') union select (true", "not a whole query"),
        ("a = 1) union select (true", "not a whole query"),
        ("a), (b", "not a list"),
        ("*", r"\* has no place"),
        ("a = $1", "a parameter has no place"),
        ("a, b", "the function 'row' has no place"),
        ("read_text('/etc/passwd') = a", "the function 'read_text' has no place"),
        ("getenv('HOME') = a", "the function 'getenv' has no place"),
        ("random() < a", "the function 'random' has no place"),
        ("now() < a", "the function 'now' has no place"),
        ("sum(a) > 1", "the function 'sum' has no place"),
        ("strptime(a, '%Y') > b", "did you mean 'strftime'"),
        ("lower(distinct a) = 'x'", "'lower' has no place"),
        ("row_number() over () > a", "window has no place"),
        ("a::blob = b", "the type blob has no place"),
        ("a[1] = 2", "'array_extract' has no place"),
        ("try(a)", "'try' has no place"),
    ],
)
def test_what_has_no_place_in_a_condition(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
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
