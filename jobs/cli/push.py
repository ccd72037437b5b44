"""Commands that bring vectors into stores and table catalogs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from embedmill.jobs.cli.app import AsJson, RunFolder, RunOrRoot, app
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.log import name_run

__all__: list[str] = []


@app.command()
def push(
    folder: RunOrRoot,
    to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="postgresql://, qdrant://, milvus://, lance://, opensearch:// or "
            "elasticsearch://; KIND+http:// without TLS, KIND:///PATH for one that is local",
        ),
    ],
    name: Annotated[str, typer.Option(help="readers find NAME_users and NAME_items")] = "embedmill",
    side: Annotated[str, typer.Option(help="users, items or both")] = "both",
    keep: Annotated[
        int, typer.Option(min=0, max=1, help="tables before the current one that are kept")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Load vectors into a store that serves them; readers get all of a run or what they had.

    Tables are named after their content and written in batches; then the aliases NAME_users and
    NAME_items are switched to them. The same command again writes nothing, and one that was killed
    begins its table anew. Passwords are taken from the environment.
    """
    from embedmill.pipeline.formats import SIDES
    from embedmill.pipeline.formats.push import PushOptions
    from embedmill.pipeline.formats.push import push as push_to
    from embedmill.pipeline.store.run import find_run
    from embedmill.pipeline.terminal import Terminal

    if side not in (*SIDES, "both"):
        raise ConfigError(f"--side: '{side}' is not known; allowed: {', '.join(SIDES)}, both")
    options = PushOptions(name, SIDES if side == "both" else (side,), keep)
    run = find_run(folder)
    name_run(run.config.run.name)
    with Terminal(quiet=as_json).stage("push") as progress:
        done = push_to(run, to, options, progress)
    if as_json:
        print(json.dumps(done))
        return
    for one in done.values():
        what = "written" if one["written"] else "was there"
        print(f"{one['alias']}: {one['rows']:,} rows, table {one['table']} {what}")


@app.command()
def register(
    folder: RunFolder,
    kind: Annotated[str, typer.Option("--as", metavar="KIND", help="delta or iceberg")],
    catalog: Annotated[
        str, typer.Option(help="Iceberg catalog, as PyIceberg's configuration names it")
    ] = "default",
    namespace: Annotated[str, typer.Option(help="namespace in the catalog")] = "embedmill",
    as_json: AsJson = False,
) -> None:
    """Make the Parquet files of the export a Delta or Iceberg table, without copying them.

    A Delta table gets its log in export/users and export/items; an Iceberg table is users or items
    in the catalog's namespace. Each has the rows of this run from then on, in one commit.
    """
    from embedmill.pipeline.formats.lakehouse import register as register_files
    from embedmill.pipeline.store.run import open_run

    done = register_files(open_run(folder), kind, catalog=catalog, namespace=namespace)
    if as_json:
        print(json.dumps(done))
        return
    for one in done.values():
        print(f"{one['table']}: {one['files']} files{'' if one['changed'] else ', as before'}")
