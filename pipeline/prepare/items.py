"""Item metadata: titles and categories of items, read and written by one process."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.config import ItemsConfig
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.ids import id_text
from embedmill.pipeline.prepare.parse.mixed import Column, MixedColumn
from embedmill.pipeline.prepare.parse.numbers import as_plain_text
from embedmill.pipeline.prepare.parse.records import is_list
from embedmill.pipeline.prepare.readers.file_formats import read_slice
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.readers.read_plan import layout_of, metadata_slices, title_fields
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.forgotten_ids import ForgottenIds
from embedmill.schemas.events import ITEMS, ITEMS_META

__all__ = ["write_item_metadata"]

_LINE_BITS = 40  # of `order`, for the line; the number of the file is in the bits above
_ORDERED = pa.schema([pa.field(f.name, f.type) for f in ITEMS_META] + [("order", pa.int64())])


def write_item_metadata(
    config: ItemsConfig, out: Writer, forgotten: ForgottenIds | None = None
) -> dict[str, int]:
    """Write the item metadata, sorted by id; returns its counters.

    A row without an id is rejected, one of a forgotten item is left out. If an id
    has several rows, the first one is kept. Empty files, and those that have a header only, have
    no rows.

    Raises:
        InputError: a path names nothing or a column is not there.
    """
    tables, records, rejected = [], 0, 0
    given: set[str] = set()
    parts = metadata_slices(config, out.sources)
    for part in parts:
        for batch in read_slice(part, layout_of(config, part.format)):
            table = _table(batch, config, part)
            given |= {name for name, column in batch.columns.items() if _has_value(column)}
            has_id = pc.fill_null(pc.not_equal(table["item"], ""), False)
            tables.append(table.filter(has_id))
            records += batch.rows
            rejected += len(batch.rejects.lines) + batch.rows - tables[-1].num_rows
    rows = pa.concat_tables(tables) if tables else _ORDERED.empty_table()
    if records and all(part.format == "jsonl" for part in parts):
        _check_keys(given, config)
    forgotten_N = (forgotten or ForgottenIds()).mask("items", rows["item"])
    rows = rows.filter(pa.array(~forgotten_N))
    items = _first_of_each_id(rows)
    out.write_table(ITEMS, items)
    counters = {
        "items_meta": items.num_rows,
        "items_rejected": rejected,
        "items_repeated": rows.num_rows - items.num_rows,
    }
    return counters | ({"items_forgotten": int(forgotten_N.sum())} if forgotten_N.any() else {})


def _check_keys(given: set[str], config: ItemsConfig) -> None:
    """Raise where no JSON record has the key of the item, or one of the title."""
    fields = title_fields(config.title)
    for name, lacks in (
        (config.item, config.item not in given),
        (", ".join(fields), bool(fields) and not given & set(fields)),
    ):
        if lacks:
            raise InputError(
                f"no record has a value for '{name}'",
                where=", ".join(config.paths),
                todo="Check events.items.item and events.items.title",
            )


def _has_value(column: Column) -> bool:
    return not pc.all(column.is_null()).as_py()


def _table(batch: ParsedBatch, config: ItemsConfig, part: FileSlice) -> pa.Table:
    """Columns of ITEMS_META, and `order`, which rises with file and line."""
    ids = id_text(batch.columns[config.item], config.item).text
    titles = pa.array(_titles(batch, config.title), pa.string())
    categories = pa.array(_categories(batch, config), ITEMS_META.field("categories").type)
    order = pa.array((part.number << _LINE_BITS) + batch.lines)
    return pa.Table.from_arrays([ids, titles, categories, order], schema=_ORDERED)


def _titles(batch: ParsedBatch, template: str) -> Iterator[str]:
    """The title of each record: the template with the record's values; missing ones are empty."""
    names = title_fields(template)
    literals, rest = [], template
    for name in names:
        literal, _, rest = rest.partition(f"{{{name}}}")
        literals.append(literal)
    literals.append(rest)
    columns = [as_plain_text(batch.columns[name]).to_pylist() for name in names]
    for row in range(batch.rows):
        parts = [literals[0]]
        for column, literal in zip(columns, literals[1:], strict=True):
            parts += [column[row] or "", literal]
        yield "".join(parts).strip()


def _categories(batch: ParsedBatch, config: ItemsConfig) -> Iterator[list[str]]:
    if not config.categories:
        yield from ([] for _ in range(batch.rows))
        return
    column = batch.columns[config.categories]
    lists: list[list[str | None]]
    if isinstance(column, MixedColumn) or not is_list(column.type):
        lists = [[*(t or "").split(config.categories_separator)] for t in _texts(column)]
    else:
        lists = _lists(column)
    yield from ([part for part in parts if part] for parts in lists)


def _texts(column: Column) -> list[str | None]:
    """Values as text."""
    texts: list[str | None] = as_plain_text(column).to_pylist()
    return texts


def _lists(column: pa.Array) -> list[list[str | None]]:
    """The elements of lists as text, also those of lists in them."""
    parents, elements = pc.list_parent_indices(column), pc.list_flatten(column)
    inner = _lists(elements) if is_list(elements.type) else [[t] for t in _texts(elements)]
    lists: list[list[str | None]] = [[] for _ in range(len(column))]
    for parent, texts in zip(parents.to_pylist(), inner, strict=True):
        lists[parent] += texts
    return lists


def _first_of_each_id(rows: pa.Table) -> pa.Table:
    """The first row of each id, sorted by id (schema ITEMS_META)."""
    ordered = rows.sort_by([("item", "ascending"), ("order", "ascending")])
    ids = ordered["item"].combine_chunks()
    differs = pc.not_equal(ids.slice(1), ids.slice(0, max(0, len(ids) - 1)))
    is_first = pa.concat_arrays([pa.array([True] * min(1, len(ids)), pa.bool_()), differs])
    firsts = ordered.filter(is_first).combine_chunks()
    return pa.Table.from_arrays([firsts[n] for n in ITEMS_META.names], schema=ITEMS_META)
