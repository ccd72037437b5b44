"""The command that looks for the best objective and settings of a config."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from embedmill.jobs.cli.app import ConfigFile, Sets, Variables, app
from embedmill.pipeline.log import print_note

__all__: list[str] = []


@app.command()
def tune(
    file: ConfigFile,
    minutes: Annotated[
        float, typer.Option(min=0, help="wall time of the trials; the last one may take longer")
    ] = 10.0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write there, not to NAME.tuned.toml")
    ] = None,
    to_stdout: Annotated[
        bool, typer.Option("--to-stdout", help="print only the [train] section, write no file")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace the file that is there")] = False,
    sets: Sets = None,
    given: Variables = None,
) -> None:
    """Try objectives and settings on the validation part, and write the best as a TOML.

    Runs the stages up to shards, then trials over all users: those of objective auto, and steps
    up from the best of them. train.dim is the greatest dimension. Finished trials are kept: the
    same command goes on with the next one. The run's trained tables stay as they are.
    """
    from embedmill.pipeline.config import auto_tree, load
    from embedmill.pipeline.config.toml import emit
    from embedmill.pipeline.errors import ConfigError

    target = out or file.with_name(f"{file.stem}.tuned.toml")
    if not to_stdout and target.exists() and not force:
        raise ConfigError(
            "exists already", where=str(target), todo="Add --force to replace it, or give --out"
        )
    overrides = list(sets or [])
    load(file, overrides, print_note, given or [])
    auto_tree(file, overrides, given or [])  # refused before the engines are imported

    from embedmill.jobs import tune_config
    from embedmill.pipeline.terminal import Terminal

    terminal = Terminal(sys.stderr if to_stdout else None)
    try:
        found, tree = tune_config.tune(file, overrides, minutes, terminal, given or [])
    except KeyboardInterrupt:
        print_note("finished trials are kept: the same command goes on with the next one,")
        print_note("and with --minutes 0 it writes the best of them")
        raise
    for line in tune_config.table(found):
        terminal.say(line)
    if not found.complete:
        terminal.say(f"stopped after {minutes:g} minutes with the best so far; the same command")
        terminal.say("goes on with the next trial")
    if to_stdout:
        print(emit({"train": tree["train"]}), end="")
        return
    target.write_text(emit(tree), encoding="utf-8")
    terminal.say(f"{target}: written; next: embedmill run {target}")
