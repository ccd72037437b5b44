"""Item metadata: titles and categories of items, read and written by one process."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.config import ItemsConfig
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.ids import id_text
from embedmill.pipeline.prepare.parse.numbers import as_plain_text
from embedmill.pipeline.prepare.readers.file_formats import read_slice
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.readers.read_plan import layout_of, metadata_slices
from embedmill.pipeline.store.artifact import Writer
from embedmill.schemas.events import ITEMS, ITEMS_META

__all__ = ["write_item_metadata"]

_LINE_BITS = 40  # of `order`, for the line; the number of the file is in the bits above
_ORDERED = pa.schema([pa.field(f.name, f.type) for f in ITEMS_META] + [("order", pa.int64())])
_FIELD = re.compile(r"\{([^{}]+)\}")


def write_item_metadata(config: ItemsConfig, out: Writer) -> dict[str, int]:
    """Write the item metadata, sorted by id; returns its counters.

    A row without an id is rejected. If an id has several rows, the first one is kept.

    Raises:
        InputError: a path names nothing or a column is not there.
    """
    tables, rejected = [], 0
    for part in metadata_slices(config):
        for batch in read_slice(part, layout_of(config, part.format)):
            table = _table(batch, config, part)
            has_id = pc.fill_null(pc.not_equal(table["item"], ""), False)
            tables.append(table.filter(has_id))
            rejected += len(batch.rejects.lines) + batch.rows - tables[-1].num_rows
    rows = pa.concat_tables(tables) if tables else _ORDERED.empty_table()
    items = _first_of_each_id(rows)
    out.write_table(ITEMS, items)
    return {
        "items_meta": items.num_rows,
        "items_rejected": rejected,
        "items_repeated": rows.num_rows - items.num_rows,
    }


def _template_fields(template: str) -> list[str]:
    """The columns that a title template names: '{title} ({year})' gives title and year."""
    return _FIELD.findall(template)


def _table(batch: ParsedBatch, config: ItemsConfig, part: FileSlice) -> pa.Table:
    """Columns of ITEMS_META, and `order`, which rises with file and line."""
    for name in (config.item, *_template_fields(config.title), config.categories):
        if name and name not in batch.columns:
            shown = ", ".join(repr(n[:40]) for n in batch.columns)
            raise InputError(f"has no column '{name}'; it has {shown}", where=part.name)
    ids = id_text(batch.columns[config.item], config.item).text
    titles = pa.array(_titles(batch, config.title), pa.string())
    categories = pa.array(_categories(batch, config), ITEMS_META.field("categories").type)
    order = pa.array((part.number << _LINE_BITS) + batch.lines)
    return pa.Table.from_arrays([ids, titles, categories, order], schema=_ORDERED)


def _titles(batch: ParsedBatch, template: str) -> Iterator[str]:
    """The title of each record: the template with the record's values; missing ones are empty."""
    literals = _FIELD.split(template)[::2]
    columns = [as_plain_text(batch.columns[n]).to_pylist() for n in _template_fields(template)]
    for row in range(batch.rows):
        parts = [literals[0]]
        for column, literal in zip(columns, literals[1:], strict=True):
            parts += [column[row] or "", literal]
        yield "".join(parts).strip()


def _categories(batch: ParsedBatch, config: ItemsConfig) -> Iterator[list[str]]:
    if not config.categories:
        yield from ([] for _ in range(batch.rows))
        return
    for text in as_plain_text(batch.columns[config.categories]).to_pylist():
        parts = (text or "").split(config.categories_separator)
        yield [part for part in parts if part]


def _first_of_each_id(rows: pa.Table) -> pa.Table:
    """The first row of each id, sorted by id (schema ITEMS_META)."""
    ordered = rows.sort_by([("item", "ascending"), ("order", "ascending")])
    ids = ordered["item"].combine_chunks()
    differs = pc.not_equal(ids.slice(1), ids.slice(0, max(0, len(ids) - 1)))
    is_first = pa.concat_arrays([pa.array([True] * min(1, len(ids))), differs])
    firsts = ordered.filter(is_first).combine_chunks()
    return pa.Table.from_arrays([firsts[n] for n in ITEMS_META.names], schema=ITEMS_META)
