"""Commands that decide which run is published."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from embedmill.jobs.cli.app import AsJson, RunFolder, app
from embedmill.pipeline.errors import GateError

__all__: list[str] = []

Root = Annotated[
    str, typer.Argument(metavar="ROOT", help="folder or URL that holds the runs: run.root")
]


@app.command()
def publish(
    folder: RunFolder,
    force: Annotated[
        bool, typer.Option("--force", help="also if a newer run is published")
    ] = False,
) -> None:
    """Publish a complete run whose gates passed.

    A run is older than another one if it is for an earlier date (the variable `ds`, or
    events.date_to), or, where one of them has no date, if the other continues its vocabulary. An
    older run takes the place of a newer one only with --force.
    """
    from embedmill.jobs.all import check_gates
    from embedmill.jobs.run_record import announce
    from embedmill.pipeline.store import publication
    from embedmill.pipeline.store.run import open_run
    from embedmill.pipeline.store.signature import sign

    run = open_run(folder)
    run.artifact("report")
    check_gates(run)
    sign(run)
    done = publication.publish(run, force=force)
    if done.refused:
        raise GateError(
            f"a newer run is published: {done.refused}",
            where=folder,
            todo="Add --force to publish this one in its place",
        )
    print(f"published in {run.config.run.root}: {done.pointer.run}")
    announce(run)


@app.command()
def rollback(root: Root) -> None:
    """Publish again the run that was published before the present one; repeat to go further back.

    Runs that were deleted or built anew since are passed over.
    """
    from embedmill.jobs.run_record import announce
    from embedmill.pipeline.store import publication
    from embedmill.pipeline.store.run import open_run

    pointer = publication.rollback(root)
    print(f"published in {root}: {pointer.run}")
    announce(open_run(f"{root.rstrip('/')}/{pointer.run}"))


@app.command(name="list")
def list_(root: Root, as_json: AsJson = False) -> None:
    """List the runs below a root: state, metrics, and which one is published."""
    from embedmill.jobs.cli.run_table import print_runs
    from embedmill.pipeline.query.run_list import list_runs

    runs = list_runs(root)
    if as_json:
        print(json.dumps([run.as_json() for run in runs], ensure_ascii=False))
        return
    print_runs(runs)
