"""Commands that give what a run found: items for users, items near items, vectors for tools."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from embedmill.jobs.cli.app import AsJson, RunOrRoot, app
from embedmill.pipeline.errors import ConfigError

__all__: list[str] = []

Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="COLUMN=VALUE",
        help="only items with this value in the item metadata: categories=Drama; repeatable",
    ),
]
Neighbours = Annotated[int, typer.Option("-k", min=1, help="how many")]


@app.command()
def recommend(
    folder: RunOrRoot,
    user: Annotated[str, typer.Option(help="the user's raw id")] = "",
    users: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="ids: one on each line, or a column of .csv .tsv .parquet"
        ),
    ] = "",
    output: Annotated[str, typer.Option(metavar="FILE", help="Parquet, for --users")] = "",
    column: Annotated[str, typer.Option(help="of --users; else the only one, or the log's")] = "",
    filters: Filters = None,
    with_seen: Annotated[bool, typer.Option("--with-seen", help="items of the log too")] = False,
    k: Neighbours = 10,
    as_json: AsJson = False,
) -> None:
    """Print the best items for a user, without those already seen; or write them for many.

    A file of many users gives a Parquet file with a row for every answer: user, rank, item,
    score. Ids that have none are counted by the reason.
    """
    from embedmill.jobs.cli import render
    from embedmill.pipeline.query import lookup
    from embedmill.pipeline.store.run import find_run

    if bool(user) == bool(users) or bool(users) != bool(output):
        raise ConfigError("recommend needs --user ID, or --users FILE with --output FILE")
    one, wanted = find_run(folder), _wanted(filters)
    if user:
        found = lookup.recommend(one, user, k, exclude_seen=not with_seen, filter=wanted)
        render.print_items(one, found, as_json)
        return
    from embedmill.pipeline.index import retriever_of
    from embedmill.pipeline.query.id_files import read_ids
    from embedmill.pipeline.query.recommendations import Asked, recommend_all
    from embedmill.pipeline.terminal import Terminal

    retriever = retriever_of(one)
    asked = Asked(k, not with_seen, None if wanted is None else retriever.item_filter(wanted))
    ids = read_ids(users, column, one.config.events.user)
    with Terminal(quiet=as_json).stage("recommend") as progress:
        told = recommend_all(retriever, ids, output, asked, progress)
    render.print_told(told, output, as_json)


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

    one = find_run(folder)
    render.print_items(one, lookup.neighbors(one, item, k, filter=_wanted(filters)), as_json)


@app.command()
def export(
    folder: RunOrRoot,
    format: Annotated[str, typer.Option(metavar="NAME", help="see below")],
    output: Annotated[str, typer.Option(metavar="FOLDER", help="must not be there yet")],
    dtype: Annotated[str, typer.Option(help="float32, float16 or int8")] = "float32",
    side: Annotated[str, typer.Option(help="users, items or both")] = "both",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an earlier export there")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's vectors in a format that other tools load, with their ids.

    Formats: parquet, npy, safetensors, faiss, word2vec, word2vec-binary, projector, lance,
    pgvector, qdrant. The folder's manifest.json says how many vectors there are, how ids are
    stored, and which recall@10 the number type keeps.
    """
    from embedmill.jobs.cli import render
    from embedmill.pipeline.formats import DTYPES, SIDES, Wanted, write
    from embedmill.pipeline.store.run import find_run
    from embedmill.pipeline.terminal import Terminal

    for name, value, allowed in (("--dtype", dtype, DTYPES), ("--side", side, (*SIDES, "both"))):
        if value not in allowed:
            raise ConfigError(f"{name} is '{value}'; there are {', '.join(allowed)}")
    wanted = Wanted(format, dtype, SIDES if side == "both" else (side,))
    with Terminal(quiet=as_json).stage("export") as progress:
        manifest = write(find_run(folder), wanted, output, progress, overwrite=overwrite)
    if as_json:
        print(json.dumps(manifest, ensure_ascii=False))
        return
    render.print_exported(manifest, output)


def _wanted(filters: list[str] | None) -> dict[str, list[str]] | None:
    """Values by column; an item may have any of a column's."""
    found: dict[str, list[str]] = {}
    for one in filters or []:
        column, equals, value = one.partition("=")
        if not equals:
            raise ConfigError(f"--filter is '{one}'; it needs COLUMN=VALUE, as categories=Drama")
        found.setdefault(column, []).append(value)
    return found or None
