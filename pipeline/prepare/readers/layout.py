"""How the files of a log are laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """How to read the files of one format.

    Attributes:
        format: a key of `FORMATS`.
        separator: between the fields of delimited text.
        quote: the quote character of delimited text; empty where fields are not quoted.
        escape: the character of delimited text before a quote, a separator, a newline or itself
            that is no such mark but part of the value; empty for none.
        encoding: of text, by Python's name.
        header: whether the first line of delimited text has the column names.
        names: the column names of delimited text without a header.
        wanted: columns to read; empty for all.
        aliases: other names of a wanted column.
        defaults: the value of a wanted column where a record has none.
        ids: wanted columns that hold ids or other names.
        null_values: text that stands for no value, in every column.
        lists: columns whose values are lists of strings, with what separates those in a text;
            only for columns that are read for themselves.
        explode: path of a list in each record whose elements are events; empty for none.
        max_line_bytes: longer lines are rejected.
    """

    format: str
    separator: str
    quote: str
    encoding: str
    header: bool
    names: tuple[str, ...]
    wanted: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    escape: str = ""
    null_values: tuple[str, ...] = ()
    lists: Mapping[str, str] = field(default_factory=dict)
    explode: str = ""
    max_line_bytes: int = 16 << 20

    def names_of(self, column: str) -> tuple[str, ...]:
        """All names of a wanted column, its own first."""
        return (column, *(n for n in self.aliases.get(column, ()) if n != column))
