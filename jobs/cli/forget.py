"""The command that forgets users and items."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from embedmill.jobs.cli.app import AsJson, app
from embedmill.pipeline.errors import ArtifactError, ConfigError

__all__: list[str] = []

Ids = list[str] | None


@app.command()
def forget(
    root: Annotated[str, typer.Argument(metavar="ROOT", help="folder or URL of the runs")],
    user: Annotated[Ids, typer.Option(metavar="ID", help="a user; repeatable")] = None,
    item: Annotated[Ids, typer.Option(metavar="ID", help="an item; repeatable")] = None,
    user_file: Annotated[
        Ids, typer.Option(metavar="FILE", help="a file of users, one a line; repeatable")
    ] = None,
    item_file: Annotated[
        Ids, typer.Option(metavar="FILE", help="a file of items, one a line; repeatable")
    ] = None,
    also: Annotated[
        Ids,
        typer.Option(metavar="FOLDER", help="other folder with exports or deltas; repeatable"),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="look through every byte afterwards")
    ] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="then train the published run anew, without them")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase users and items from all runs below a root, and never take them in again.

    Runs, exports and deltas below the root are written anew without them; their rows stay empty.
    If it is killed, give the same command again. A receipt without the ids is stored.
    """
    from embedmill.pipeline.forget import forget as forget_ids

    ids = {"users": _ids(user, user_file), "items": _ids(item, item_file)}
    if not any(ids.values()):
        raise ConfigError("no id was given", todo="Give --user ID, --user-file FILE or --item ID")
    done = forget_ids(root, ids, also=also or [], verify=verify)
    receipt = done.receipt
    for side, unknown in done.unknown.items():
        for raw in unknown:
            print(f"{side.removesuffix('s')} {raw!r} is in no run", file=sys.stderr)
    if as_json:
        print(json.dumps({"receipt": done.path, **receipt.as_json()}, ensure_ascii=False))
    else:
        for run in receipt.runs:
            rows = len(run.users) + len(run.items)
            print(f"{run.run}: {rows:,} rows, {run.events:,} events; {', '.join(run.stages)}")
        for folder in (*receipt.exports, *receipt.deltas):
            print(f"written anew: {folder}")
        print(*(f"not undone: {line}" for line in receipt.not_undone), sep="\n")
        print(f"receipt: {done.path}")
    found = receipt.verification.found if receipt.verification else []
    if found:
        first = "; ".join(f"{what} in {file}" for file, what in found[:3])
        raise ArtifactError(
            f"{len(found):,} files still have something of them: {first}",
            where=root,
            todo="Remove these files, or what names the ids in them, and give the command again",
        )
    if retrain:
        _retrain(root)


def _ids(given: Ids, files: Ids) -> list[str]:
    from embedmill.pipeline.query.id_files import read_ids

    ids = list(given or ())
    for file in files or ():
        ids += [raw for batch in read_ids(file) for raw in batch.to_pylist() if raw]
    return ids


def _retrain(root: str) -> None:
    """Train the published run anew, from nothing that knew the forgotten events."""
    from embedmill.jobs.all import run_line
    from embedmill.pipeline.store.run import Run, find_run

    config = find_run(root).config
    cold = config.train.model_copy(update={"start": ""})
    align = config.train.start if config.export.align is None else config.export.align
    export = config.export.model_copy(update={"align": align})
    run_line(
        Run(config.model_copy(update={"train": cold, "export": export})),
        first="train",
        rebuild=True,
    )
