"""The command that removes runs which nothing needs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from embedmill.jobs.cli.app import AsJson, app

__all__: list[str] = []


@app.command()
def gc(
    root: Annotated[str, typer.Argument(metavar="ROOT", help="folder or URL of the runs")],
    keep: Annotated[int, typer.Option(min=1, help="finished runs to keep, the newest")] = 7,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="keep younger runs too; 0: any age")
    ] = 0.0,
    rollbacks: Annotated[
        int, typer.Option(min=0, help="runs to keep that were published before the published one")
    ] = 1,
    delete: Annotated[
        bool, typer.Option("--delete", help="remove them; without it they are only listed")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the runs below a root that nothing needs, and with --delete remove them.

    Kept are the published run, those that a rollback returns to, the newest ones, unfinished ones,
    those with a file `pinned` in their folder, bases of deltas below the root, and each run that a
    kept one continues. In kept runs, checkpoints of a finished
    training are removed.
    """
    from embedmill.pipeline.store.retention import plan_removal, remove

    runs = plan_removal(root, keep=keep, older_than=older_than, rollbacks=rollbacks)
    removed = remove(runs) if delete else 0
    if as_json:
        said = [{"run": run.name, "kept": run.kept, "bytes": run.bytes} for run in runs]
        print(json.dumps({"runs": said, "removed_bytes": removed}))
        return
    for run in runs:
        state = f"kept: {run.kept}" if run.kept else ("removed" if delete else "would be removed")
        print(f"{run.name:<40} {run.bytes / 1e6:10,.1f} MB  {state}")
    if not delete and not all(run.kept for run in runs):
        print("nothing was removed; --delete does it")
