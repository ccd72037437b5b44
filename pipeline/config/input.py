"""Raw logs: where they are, how they are written, which columns have user, item and time."""

from __future__ import annotations

import codecs
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from embedmill.pipeline.config.section import (
    FINGERPRINT_IF_CHANGED,
    NOT_IN_FINGERPRINT,
    Names,
    Paths,
    Section,
)

__all__ = [
    "FORMATS",
    "NAMED_FIELDS",
    "Escape",
    "InputConfig",
    "NullValues",
    "Snapshot",
    "Value",
    "check_text",
]

FORMATS = Literal[
    "auto", "tsv", "csv", "delimited", "jsonl", "parquet", "orc", "avro", "delta", "iceberg"
]
# Formats whose records name their fields.
NAMED_FIELDS = ("jsonl", "parquet", "orc", "avro", "delta", "iceberg")


def _as_text(value: Any) -> Any:
    """Numbers of the TOML as they are written in a log."""
    return str(value) if isinstance(value, int | float) and value is not True else value


Value = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int | float)]
# Keys that logs and item metadata have.
Snapshot = Annotated[
    Value,
    Field(
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="of a Delta or Iceberg table: a version or snapshot id, an ISO time, or a "
        "branch or tag of Iceberg; empty: the latest",
    ),
]
Escape = Annotated[
    str,
    Field(
        max_length=1,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="character before a quote, separator, line end or itself that is part of a "
        "field, for tsv, csv and delimited: '\\\\' for Spark's CSV; empty: none",
    ),
]
NullValues = Annotated[
    Names,
    Field(
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="text that means no value, in every column: ['\\\\N', 'NULL']; empty text "
        "always does",
    ),
]


# Encodings of Python that are not of files: parts of host names, literals of its own source.
_NO_FILES = ("idna", "punycode", "undefined", "raw_unicode_escape", "unicode_escape")


def check_text(encoding: str, escape: str, separator: str) -> None:
    """Check the keys of a section about text files.

    Raises:
        ValueError: the encoding is not known or not of text, or the escape character cannot be
            one.
    """
    try:
        found = codecs.lookup(encoding)
    except LookupError:
        raise ValueError(
            f"encoding: unknown encoding '{encoding}'; there are utf-8, utf-16, latin-1, cp1252, "
            "shift_jis and others of Python's"
        ) from None
    if not found._is_text_encoding or found.name in _NO_FILES:
        raise ValueError(f"encoding: '{encoding}' is no encoding of text, as utf-8 is")
    if escape and (len(separator) > 1 or escape == separator or escape in "\n\r"):
        raise ValueError(
            "escape: a character that is neither separator nor line end, for a separator of one "
            "character"
        )


class InputConfig(Section):
    """Raw logs, and which of their columns have the user, the item, the time and the weight.

    A column is a name, or a path into nested records such as "actor.id".
    """

    # The place of files is not in the fingerprint: their names, sizes and times are.
    paths: Paths = Field(
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="files, folders, globs or URLs; dataset:NAME for a public data set",
    )
    format: FORMATS = Field("tsv", description="format of the files; auto: by each file's ending")
    # The snapshot that is read is in the fingerprint, whatever names it.
    snapshot: Snapshot = ""
    separator: str = Field(
        ",", min_length=1, max_length=8, description="between fields, for format = 'delimited'"
    )
    quote: str = Field(
        '"', max_length=1, description="around fields, for csv and delimited; empty: none"
    )
    escape: Escape = ""
    null_values: NullValues = ()
    header: bool = Field(True, description="whether the first line of a file names the columns")
    columns: tuple[str, ...] = Field((), description="names of the columns, with header = false")
    encoding: str = Field("utf-8", description="encoding of text files")
    user: str = Field("user_id", description="column of the user's id")
    item: str = Field("item_id", description="column of the item's id")
    time: str = Field("", description="column of the time; empty: none")
    time_unit: Literal[
        "iso", "seconds", "milliseconds", "microseconds", "nanoseconds", "auto", "pattern"
    ] = Field(
        "seconds",
        description="how times are written; auto: numbers by their size, text as ISO, else by "
        "time_patterns",
    )
    time_patterns: Names = Field(
        (), description="strptime patterns, tried in turn, for time_unit = 'pattern' or 'auto'"
    )
    time_zone: str = Field(
        "UTC", description="zone of times that do not name one, such as Europe/Berlin"
    )
    time_min: str = Field("1970-01-01T00:00:00Z", description="earlier events are rejected")
    time_max: str = Field("", description="later events are rejected; empty: one day from now")
    weight: str = Field(
        "", description="column of the weight or rating; empty: every row has weight 1"
    )
    split: str = Field("", description="column of the split, for shards.split = 'given'")
    aliases: dict[str, Names] = Field(
        {}, description="other names of a column, where a record has no value under the first"
    )
    defaults: dict[str, Value] = Field(
        {}, description="value of a column where a record has none under any of its names"
    )
    explode: str = Field(
        "", description=f"path of a list of events in each record, for {', '.join(NAMED_FIELDS)}"
    )
    date_folders: Names = Field(
        ("date",),
        description="names of the folders (date=2026-11-24) that make the day: ['year', "
        "'month', 'day']",
    )
    date_from: str = Field("", description="first day to read, by folder; empty: all")
    date_to: str = Field("", description="last day to read, included; empty: all")
    max_id_bytes: int = Field(1024, ge=1, description="longer ids are rejected")
    max_line_bytes: int = Field(
        16 << 20, ge=4096, le=1 << 30, description="longer lines of text are rejected"
    )
    max_rejects: float = Field(
        0.01, ge=0, le=1, description="share of lines that may be rejected before the run fails"
    )
    keep_rejects: int = Field(
        1000,
        ge=1,
        description="rejected lines that each task keeps for each reason; all are counted",
    )

    @model_validator(mode="after")
    def _input(self) -> InputConfig:
        if not self.paths:
            raise ValueError("paths: at least one is needed")
        if not self.header and not self.columns and self.format not in NAMED_FIELDS:
            raise ValueError("columns: needed with header = false")
        check_text(self.encoding, self.escape, self.separator)
        if self.escape and self.escape == self.quote:
            raise ValueError("escape: doubled quotes are read without it; leave it empty")
        if self.explode and self.format not in (*NAMED_FIELDS, "auto"):
            raise ValueError(f"explode: lists are read from {', '.join(NAMED_FIELDS)} only")
        if self.time_unit == "pattern" and not self.time_patterns:
            raise ValueError("time_patterns: at least one is needed for time_unit = 'pattern'")
        if self.time_patterns and self.time_unit not in ("pattern", "auto"):
            raise ValueError("time_patterns: read only with time_unit = 'pattern' or 'auto'")
        self._names()
        self._days()
        return self

    def _names(self) -> None:
        """A name belongs to one column."""
        columns: dict[str, str] = {}
        for column, others in self.aliases.items():
            for name in (column, *others):
                if columns.setdefault(name, column) != column or others.count(name) > 1:
                    raise ValueError(f"aliases: '{name}' stands there twice")

    def _days(self) -> None:
        for key in ("date_from", "date_to"):
            text = getattr(self, key)
            try:
                if text:
                    date.fromisoformat(text)
            except ValueError:
                raise ValueError(f"{key}: a day such as 2026-11-24, not '{text}'") from None
        if self.date_from and self.date_to and self.date_from > self.date_to:
            raise ValueError(f"date_to: '{self.date_to}' lies before date_from")
        if (self.date_from or self.date_to) and not self.date_folders:
            raise ValueError("date_folders: needed for date_from and date_to")
