"""Format of TensorBoard's embedding projector: numbers and metadata in tab-separated lines."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.formats.line_writer import NUMBERS, escape, join_numbers, write_lines
from embedmill.pipeline.formats.vector_table import VectorTable
from embedmill.pipeline.views.items import ItemMetadata

__all__ = ["projector"]

# The projector splits at tabs and newlines and has no quotes; the backslash goes first.
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_CONFIG = """embeddings {
  tensor_name: "%s"
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
}
"""


def projector(table: VectorTable, folder: Path) -> None:
    """Write `SIDE/`: vectors.tsv, metadata.tsv with a header, and a config for a log folder.

    The metadata has titles and categories of items, where the log has them; the projector labels
    points by its first column.
    """
    side_folder = folder / table.side
    side_folder.mkdir()
    (side_folder / "projector_config.pbtxt").write_text(_CONFIG % table.side, encoding="utf-8")
    meta = _metadata(table)
    with (
        (side_folder / "vectors.tsv").open("wb") as vectors,
        (side_folder / "metadata.tsv").open("wb") as names,
    ):
        head = ["title", "id", "count", "categories"] if meta is not None else ["id", "count"]
        names.write("\t".join(head).encode() + b"\n")
        for block in (piece for whole in table.blocks() for piece in whole.pieces(NUMBERS)):
            write_lines(vectors, [join_numbers(block.vector_ND, "\t")], "\t")
            columns = [block.ids, pc.cast(pa.array(block.count_N), pa.string())]
            if meta is not None:
                position = pc.index_in(block.ids, value_set=meta["item"])
                title, categories = (meta[name].take(position) for name in ("title", "categories"))
                columns = [pc.coalesce(title, block.ids), *columns, pc.fill_null(categories, "")]
            write_lines(names, [escape(column, _ESCAPES) for column in columns], "\t")


def _metadata(table: VectorTable) -> dict[str, pa.Array] | None:
    """Item, title, and categories as one text; None where the log has none."""
    metadata = ItemMetadata(table.events)
    if table.side != "items" or not metadata.exists:
        return None
    meta = metadata.table().combine_chunks()
    joined = pc.binary_join(meta["categories"].cast(pa.list_(pa.string())), "|")
    columns = {"item": meta["item"], "title": meta["title"], "categories": joined}
    return {name: _one_chunk(column) for name, column in columns.items()}


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
