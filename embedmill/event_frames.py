"""Events given as a frame of pandas, Polars, Arrow or Spark, stored as a Parquet file for a run."""

from __future__ import annotations

import hashlib
from typing import Any

__all__ = ["as_arrow", "is_frame", "store"]

FOLDER = "_frames"  # no run can be called this: names begin with a letter or a digit


def is_frame(events: Any) -> bool:
    """Whether `events` is a frame, and not one or several paths."""
    return type(events).__module__.split(".")[0] in ("pandas", "polars", "pyarrow", "pyspark")


def store(frame: Any, root: str) -> str:
    """Write the frame below `root`, named by its content; returns the file's path or URL.

    The same rows in the same order give the same file. A Spark frame is collected to the driver:
    write a large one to Parquet and give its path instead.

    Raises:
        InputError: an object of these libraries that is no frame.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from embedmill.pipeline.store.storage import Storage

    sink = pa.BufferOutputStream()
    pq.write_table(as_arrow(frame), sink, compression="zstd")
    data = sink.getvalue()
    path = f"{FOLDER}/{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    storage = Storage(root)
    if not storage.exists(path):
        storage.write(path, data)
    return storage.url(path)


def as_arrow(frame: Any) -> Any:
    """The frame as a pyarrow Table, dictionaries decoded, without pandas' metadata."""
    import pyarrow as pa

    from embedmill.pipeline.errors import InputError

    library = type(frame).__module__.split(".")[0]
    if library == "pandas" and hasattr(frame, "columns"):
        table = pa.Table.from_pandas(frame, preserve_index=False)
    elif library == "polars" and hasattr(frame, "collect_schema"):
        table = (frame.collect() if hasattr(frame, "collect") else frame).to_arrow()
    elif library == "pyspark" and hasattr(frame, "toArrow"):
        table = frame.toArrow()
    elif isinstance(frame, pa.RecordBatch):
        table = pa.Table.from_batches([frame])
    elif isinstance(frame, pa.RecordBatchReader):
        table = frame.read_all()
    elif isinstance(frame, pa.Table):
        table = frame
    else:
        raise InputError(
            f"events are a {type(frame).__module__}.{type(frame).__qualname__}, not a frame",
            todo="Give paths, or a frame of pandas, Polars, Arrow or Spark",
        )
    plain = pa.schema([_plain(field) for field in table.schema])
    return table.cast(plain).replace_schema_metadata(None)


def _plain(field: Any) -> Any:
    """A field without its dictionary: categories of pandas and Polars are their values."""
    import pyarrow as pa

    kind = field.type
    return pa.field(field.name, kind.value_type if pa.types.is_dictionary(kind) else kind)
