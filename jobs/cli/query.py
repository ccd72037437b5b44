"""Commands that query a finished run: recommendations, neighbours, exported vectors."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated

import typer

from embedmill.jobs.cli.app import AsJson, RunOrRoot, app
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.log import name_run

__all__: list[str] = []

Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="COLUMN=VALUE",
        help="only items with this value in the item metadata (categories=Drama); repeatable",
    ),
]
Neighbours = Annotated[int, typer.Option("-k", min=1, help="number of results")]


@app.command()
def recommend(
    folder: RunOrRoot,
    user: Annotated[str, typer.Option(help="the user's raw id")] = "",
    users: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="user ids: one a line, or a column of .csv .tsv .parquet; may be compressed",
        ),
    ] = "",
    output: Annotated[
        str, typer.Option(metavar="FILE", help="Parquet file to write, for --users")
    ] = "",
    column: Annotated[
        str, typer.Option(help="column of --users; default: the only one, or events.user")
    ] = "",
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="whether the first line of --users names columns; default: in .csv and .tsv, "
            "unless it is the id of a user",
        ),
    ] = None,
    events: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="events of users who need not be in the run, in the columns of its log: their "
            "vectors are folded in; with --user ID or --output FILE",
        ),
    ] = "",
    filters: Filters = None,
    with_seen: Annotated[
        bool, typer.Option("--with-seen", help="also items that the user has seen")
    ] = False,
    k: Neighbours = 10,
    as_json: AsJson = False,
) -> None:
    """Print the best items that a user has not seen; or write them for a file of users.

    For a file of users a Parquet file is written, with columns user, rank, item, score. Users
    without recommendations are counted by reason. With --events, users are those of the file.
    """
    from embedmill.jobs.cli import render
    from embedmill.pipeline.query import lookup
    from embedmill.pipeline.store.run import find_run

    if events and (users or bool(user) == bool(output)):
        raise ConfigError("recommend --events FILE needs --user ID, or --output FILE")
    if not events and (bool(user) == bool(users) or bool(users) != bool(output)):
        raise ConfigError("recommend needs --user ID, or --users FILE with --output FILE")
    run, item_filter = find_run(folder), _item_filter(filters)
    name_run(run.config.run.name)
    if user and not events:
        hits = lookup.recommend(run, user, k, exclude_seen=not with_seen, filter=item_filter)
        render.print_items(run, hits, as_json)
        return
    from embedmill.pipeline.index import retriever_of
    from embedmill.pipeline.log import print_note
    from embedmill.pipeline.query.id_files import IdColumn, read_ids
    from embedmill.pipeline.query.recommendations import RecommendOptions, recommend_all
    from embedmill.pipeline.terminal import Terminal

    retriever = retriever_of(run)
    allowed = None if item_filter is None else retriever.item_filter(item_filter)
    options = RecommendOptions(k, not with_seen, allowed)
    if events and user:
        render.print_items(run, lookup.recommend_from_events(run, events, user, options), as_json)
        return
    if events:
        batch = lookup.write_recommendations_from_events(run, events, output, options)
        render.print_batch_report(batch, output, as_json)
        return
    is_user = partial(lookup.is_user, run)
    id_column = IdColumn(column, run.config.events.user, header, is_user, print_note)
    ids = read_ids(users, id_column)
    with Terminal(quiet=as_json).stage("recommend") as progress:
        batch = recommend_all(retriever, ids, output, options, progress)
    render.print_batch_report(batch, output, as_json)


@app.command()
def fold(
    folder: RunOrRoot,
    events: Annotated[
        str, typer.Option(metavar="FILE", help="events, in the columns of the run's log")
    ],
    output: Annotated[str, typer.Option(metavar="FILE", help="Parquet file to write")],
    side: Annotated[str, typer.Option(help="whose vectors: users or items")] = "users",
    as_json: AsJson = False,
) -> None:
    """Write vectors of users or items from their events alone, without training.

    The other side's vectors stay as they are, so that the new ones may be used beside the run's.
    The Parquet file has columns id, count (known events), vector, and bias where the model has
    biases. Events whose other side is not in the run are counted and left out.
    """
    from embedmill.jobs.cli import render
    from embedmill.pipeline.query.folding import fold as fold_in
    from embedmill.pipeline.query.folding import write_folded
    from embedmill.pipeline.store.run import find_run

    vectors = fold_in(find_run(folder), events, side)  # type: ignore[arg-type]
    write_folded(vectors, output)
    render.print_folded(vectors.counts, output, as_json)


@app.command()
def neighbors(
    folder: RunOrRoot,
    item: Annotated[str, typer.Option(help="the item's raw id, or its title")],
    filters: Filters = None,
    k: Neighbours = 10,
    as_json: AsJson = False,
) -> None:
    """Print the items nearest to an item, by cosine."""
    from embedmill.jobs.cli import render
    from embedmill.pipeline.query import lookup
    from embedmill.pipeline.store.run import find_run

    run = find_run(folder)
    hits = lookup.neighbors(run, item, k, filter=_item_filter(filters))
    render.print_items(run, hits, as_json)


@app.command()
def export(
    folder: RunOrRoot,
    format: Annotated[str, typer.Option(metavar="NAME", help="one of those below")],
    output: Annotated[str, typer.Option(metavar="FOLDER", help="folder to write; must not exist")],
    dtype: Annotated[str, typer.Option(help="number type: float32, float16 or int8")] = "float32",
    side: Annotated[str, typer.Option(help="users, items or both")] = "both",
    workers: Annotated[
        int,
        typer.Option(min=0, help="processes for formats of several files; 0: by cores and size"),
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an earlier export in the folder")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the vectors of a run, with their ids, in a format that other tools load.

    Formats: parquet, npy, safetensors, faiss, word2vec, word2vec-binary, projector, lance,
    pgvector, qdrant, opensearch, elasticsearch, milvus, pinecone, vertex, weaviate, duckdb, redis,
    chroma. Items have their titles and categories where the log has any. The folder's
    manifest.json has the number of vectors, how ids are stored, and the recall@10 that is left
    with the number type.
    """
    from embedmill.jobs.cli import render
    from embedmill.pipeline.formats import DTYPES, SIDES, ExportOptions, write
    from embedmill.pipeline.store.run import find_run
    from embedmill.pipeline.terminal import Terminal

    for name, value, allowed in (("--dtype", dtype, DTYPES), ("--side", side, (*SIDES, "both"))):
        if value not in allowed:
            raise ConfigError(f"{name}: '{value}' is not known; allowed: {', '.join(allowed)}")
    options = ExportOptions(format, dtype, SIDES if side == "both" else (side,), workers)
    run = find_run(folder)
    name_run(run.config.run.name)
    with Terminal(quiet=as_json).stage("export") as progress:
        manifest = write(run, options, output, progress, overwrite=overwrite)
    if as_json:
        print(json.dumps(manifest, ensure_ascii=False))
        return
    render.print_exported(manifest, output)


def _item_filter(filters: list[str] | None) -> dict[str, list[str]] | None:
    """Allowed values by column; an item needs one value of each column."""
    values: dict[str, list[str]] = {}
    for text in filters or []:
        column, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--filter: '{text}' is not COLUMN=VALUE, such as categories=Drama")
        values.setdefault(column, []).append(value)
    return values or None
