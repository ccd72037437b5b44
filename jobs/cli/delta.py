"""Commands for readers that follow the vectors from night to night."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from embedmill.jobs.cli.app import AsJson, RunFolder, app

__all__: list[str] = []

Folder = Annotated[str, typer.Option("--output", metavar="FOLDER", help="folder to write")]


@app.command()
def delta(
    folder: RunFolder,
    since: Annotated[
        str, typer.Option(metavar="RUN", help="run whose full export readers once got: the base")
    ],
    output: Folder,
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="DELTA", help="folder of a delta that readers have; in order"),
    ] = None,
    epsilon: Annotated[
        float,
        typer.Option(
            min=0, help="leave out vectors that moved less, relative to their mean length"
        ),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Write the vectors that came, went or moved since what readers have.

    Rows keep their numbers only where the vocabulary was continued (vocab.previous), and vectors
    can be compared only in one space (export.align).
    """
    from embedmill.pipeline.formats.deltas import write_delta
    from embedmill.pipeline.store.run import open_run

    manifest = write_delta(open_run(folder), open_run(since), after or [], output, epsilon=epsilon)
    if as_json:
        print(json.dumps(manifest, ensure_ascii=False))
        return
    print(f"delta {manifest['number']}: {output}")
    for side in ("users", "items"):
        kinds = manifest[side]
        print(
            f"{side}: {kinds['came']:,} came, {kinds['went']:,} went, {kinds['moved']:,} moved, "
            f"{kinds['counts']:,} with other events alone"
        )


@app.command()
def apply(
    base: RunFolder,
    output: Folder,
    deltas: Annotated[
        list[str] | None, typer.Argument(metavar="DELTA...", help="their folders, in order")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the vectors that a base and its deltas come to, as the files of an export.

    With epsilon 0 they are byte for byte those of the run that the last delta leads to.
    """
    from embedmill.pipeline.formats.deltas import apply_deltas
    from embedmill.pipeline.store.run import open_run

    manifest = apply_deltas(open_run(base), deltas or [], output)
    said = {"number": manifest["number"], "target": manifest.get("target", "")}
    print(json.dumps(said) if as_json else f"after delta {manifest['number']}: {output}")


@app.command(name="load-delta")
def load_delta(
    folder: Annotated[str, typer.Argument(metavar="DELTA", help="its folder or URL")],
    pgvector: Annotated[
        str, typer.Option(metavar="DSN", help="PostgreSQL, such as postgresql://host/name")
    ] = "",
    qdrant: Annotated[str, typer.Option(metavar="PLACE", help="URL, or folder of local mode")] = "",
    lance: Annotated[str, typer.Option(metavar="PLACE", help="folder or URL of LanceDB")] = "",
    base: Annotated[
        str,
        typer.Option(
            metavar="HASH",
            help="for the first delta: `export` in the manifest.json of the export that was loaded",
        ),
    ] = "",
) -> None:
    """Apply a delta to tables that an export was loaded into: upserts and deletes.

    Tables are `users` and `items`, as the formats pgvector, qdrant and lance make them. A delta
    that is missing, repeated, out of order or of another space is refused.
    """
    from contextlib import closing
    from importlib import import_module

    from embedmill.pipeline.errors import ConfigError
    from embedmill.pipeline.formats import delta_loaders as loaders

    if sum(map(bool, (pgvector, qdrant, lance))) != 1:
        raise ConfigError("give one of --pgvector, --qdrant and --lance")
    if lance:
        done = loaders.load_delta(loaders.LanceTables(lance), folder, base=base)
    elif pgvector:
        with import_module("psycopg").connect(pgvector) as connection:
            target = loaders.PgvectorTables(connection)
            done = loaders.load_delta(target, folder, base=base)
    else:
        client = import_module("qdrant_client").QdrantClient
        place = {"url": qdrant} if "://" in qdrant else {"path": qdrant}
        with closing(client(**place)) as opened:
            done = loaders.load_delta(loaders.QdrantCollections(opened), folder, base=base)
    print(f"delta {done.number} was applied")
