"""Delta and Iceberg tables over the Parquet files of an export, without copying them.

A Delta table is a log, `_delta_log`, in the folder of the export's files, as its paths are
relative. An Iceberg table is in a catalog, and names the files where they are. The rows are those
of the export: readers take those with `live`.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from embedmill.pipeline.errors import ConfigError, EmbedmillError, MachineError
from embedmill.pipeline.formats.delta_state import schema_of
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import parquet_files
from embedmill.schemas.export import FILES

__all__ = ["TABLE_KINDS", "register"]

TABLE_KINDS = ("delta", "iceberg")
_CONTENT = "embedmill.content"


def register(
    run: Run, kind: str, *, catalog: str = "default", namespace: str = "embedmill"
) -> dict[str, dict[str, Any]]:
    """Make the export's files of both sides the rows of two tables, in one commit for each.

    Args:
        run: a run whose `export` has finished.
        kind: one of TABLE_KINDS.
        catalog: of Iceberg, by its name in PyIceberg's configuration.
        namespace: in the catalog; made if it is not there.

    Returns:
        for each side the table, its files, and whether it was changed: a table that has this
        content already is left as it is.

    Raises:
        ConfigError: no such kind.
        MachineError: the package is not installed, or the store or catalog fails.
    """
    if kind not in TABLE_KINDS:
        raise ConfigError(f"no kind of table '{kind}'; there are {', '.join(TABLE_KINDS)}")
    export = run.artifact("export")
    try:
        if kind == "delta":
            return {side: _delta(export, side) for side in FILES}
        return {side: _iceberg(export, side, catalog, namespace) for side in FILES}
    except ImportError as error:
        raise MachineError(
            f"{error.name} is not installed", todo=f"pip install 'embedmill[{kind}]'"
        ) from error
    except EmbedmillError:
        raise
    except Exception as error:  # of clients, of any type
        line = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise MachineError(
            f"the {kind} table cannot be written: {line}",
            where=f"{catalog}.{namespace}" if kind == "iceberg" else export.folder,
            todo="Check PyIceberg's configuration, and that the catalog answers"
            if kind == "iceberg"
            else "Check that the folder of the run can be written to",
        ) from error


def _delta(export: Artifact, side: str) -> dict[str, Any]:
    from deltalake import DeltaTable, Schema
    from deltalake.exceptions import TableNotFoundError
    from deltalake.transaction import AddAction, create_table_with_add_actions

    folder, content = export.url(FILES[side].folder), export.manifest.content
    entries = parquet_files(export, side)
    said = {"table": folder, "files": len(entries), "changed": True}
    with contextlib.suppress(TableNotFoundError):
        if (DeltaTable(folder).metadata().description or "") == content:
            return {**said, "changed": False}
    files = [
        AddAction(
            path=entry.path.rpartition("/")[2],
            size=entry.bytes,
            partition_values={},
            modification_time=0,
            data_change=True,
            stats=json.dumps({"numRecords": entry.rows}),
        )
        for entry in entries
    ]
    create_table_with_add_actions(
        folder,
        Schema.from_arrow(schema_of(export)),
        files,
        mode="overwrite",
        partition_by=[],
        name=f"embedmill {side}",
        description=content,
    )
    return said


def _iceberg(export: Artifact, side: str, catalog: str, namespace: str) -> dict[str, Any]:
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NamespaceAlreadyExistsError
    from pyiceberg.expressions import AlwaysTrue

    tables, name = load_catalog(catalog), f"{namespace}.{side}"
    content = export.manifest.content
    entries = parquet_files(export, side)
    said = {"table": f"{catalog}.{name}", "files": len(entries), "changed": True}
    with contextlib.suppress(NamespaceAlreadyExistsError):
        tables.create_namespace(namespace)
    schema = schema_of(export)
    table = tables.create_table_if_not_exists(name, schema=schema)
    snapshot = table.current_snapshot()
    if snapshot is not None and snapshot.summary and snapshot.summary.get(_CONTENT) == content:
        return {**said, "changed": False}
    with table.transaction() as change:
        with change.update_schema() as columns:
            columns.union_by_name(schema)
        properties = {_CONTENT: content}
        if snapshot is not None:
            change.delete(AlwaysTrue(), snapshot_properties=properties)
        urls = [_url(export, entry.path) for entry in entries]
        change.add_files(urls, snapshot_properties=properties, check_duplicate_files=False)
    return said


def _url(export: Artifact, path: str) -> str:
    url = export.url(path)
    return url if "://" in url else Path(url).absolute().as_uri()
