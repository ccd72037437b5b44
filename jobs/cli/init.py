"""The command that drafts a config for a log that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedmill.jobs.cli.app import app

__all__: list[str] = []


@app.command()
def init(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="files, folders, globs or URLs of the log"),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write the TOML there, not to stdout")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the file of --out")] = False,
    encoding: Annotated[
        str, typer.Option(help="encoding of the log's text; without it, told by the bytes")
    ] = "",
) -> None:
    """Look at a raw log and write a config for it: format, columns, times, split."""
    from embedmill.pipeline.config import parse
    from embedmill.pipeline.errors import ConfigError
    from embedmill.pipeline.prepare.inspection.draft import draft_config, to_toml

    if out is not None and out.exists() and not force:
        raise ConfigError("exists already", where=str(out), todo="Add --force to replace it")
    draft = draft_config(paths, encoding)
    parse(draft.sections)
    text = to_toml(draft)
    if out is None:
        print(text, end="")
        return
    out.write_text(text, encoding="utf-8")
    print(f"{out}: {len(draft.unsure)} lines are marked unsure; next: embedmill profile {out}")
