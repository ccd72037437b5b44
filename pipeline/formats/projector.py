"""TensorBoard's embedding projector: numbers and metadata in tab-separated lines."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.formats.contract import Table
from embedmill.pipeline.formats.text_lines import NUMBERS, joined, replaced, write_lines

__all__ = ["projector"]

# The projector splits at tabs and newlines and knows no quotes: these become escapes.
_ESCAPED = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_CONFIG = """embeddings {
  tensor_name: "%s"
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
}
"""


def projector(table: Table, folder: Path) -> None:
    """`SIDE/`: vectors.tsv and metadata.tsv with a header, and a config for a log folder.

    Items have their titles and categories, where the log has them; the first column is what
    points are labelled by.
    """
    own = folder / table.side
    own.mkdir()
    (own / "projector_config.pbtxt").write_text(_CONFIG % table.side, encoding="utf-8")
    meta = _metadata(table)
    with (own / "vectors.tsv").open("wb") as vectors, (own / "metadata.tsv").open("wb") as names:
        head = ["title", "id", "count", "categories"] if meta is not None else ["id", "count"]
        names.write("\t".join(head).encode() + b"\n")
        for block in (piece for whole in table.blocks() for piece in whole.pieces(NUMBERS)):
            write_lines(vectors, [joined(block.vector_ND, "\t")], "\t")
            columns = [block.ids, pc.cast(pa.array(block.count_N), pa.string())]
            if meta is not None:
                at = pc.index_in(block.ids, value_set=meta["item"])
                title, categories = (meta[name].take(at) for name in ("title", "categories"))
                columns = [pc.coalesce(title, block.ids), *columns, pc.fill_null(categories, "")]
            write_lines(names, [replaced(column, _ESCAPED) for column in columns], "\t")


def _metadata(table: Table) -> dict[str, pa.Array] | None:
    """Item, title, and categories as one text; None where the log has none."""
    if table.side != "items" or table.events is None or not table.events.has("items.parquet"):
        return None
    meta = table.events.read_table("items.parquet").combine_chunks()
    together = pc.binary_join(meta["categories"].cast(pa.list_(pa.string())), "|")
    columns = {"item": meta["item"], "title": meta["title"], "categories": together}
    return {name: _whole(column) for name, column in columns.items()}


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
