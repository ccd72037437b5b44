"""The Typer app, its own options, and parameters that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from embedmill import __version__
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.log import set_log_format

__all__ = [
    "AsJson",
    "ConfigFile",
    "JsonResult",
    "LastStage",
    "NoPublish",
    "Quiet",
    "Rebuild",
    "RunFolder",
    "RunOrRoot",
    "Sets",
    "StoppedError",
    "Variables",
    "app",
    "log_option_first",
]


class StoppedError(Exception):
    """Carries a KeyboardInterrupt through Typer, which would end as if it had succeeded."""


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise StoppedError from stop


app = typer.Typer(
    name="embedmill",
    cls=_Commands,
    help="From raw interaction logs to embeddings and a verified nearest-neighbour index.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 2 config or usage, 3 raw log, 4 artifact, 5 training, "
    "6 gates failed (not published), 7 machine, 8 in use by another process, 70 bug, 130 Ctrl-C, "
    "143 terminated.",
)

ConfigFile = Annotated[Path, typer.Argument(metavar="FILE", help="the run's TOML")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="section.key=value", help="override a key; repeatable"),
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="value of {NAME} in the config; repeatable"),
]
LastStage = Annotated[str, typer.Option("--to", metavar="STAGE", help="last stage to run")]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="build stale stages again")]
NoPublish = Annotated[bool, typer.Option("--no-publish", help="leave published.json as it is")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="errors only")]
JsonResult = Annotated[
    bool, typer.Option("--json", help="progress on stderr, one JSON object on stdout")
]
RunFolder = Annotated[
    str, typer.Argument(metavar="RUN", help="the run's folder or URL, such as runs/movielens-100k")
]
RunOrRoot = Annotated[
    str,
    typer.Argument(metavar="RUN", help="the run's folder or URL, or a root with a published run"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def _version(show: bool) -> None:
    if show:
        print(f"embedmill {__version__}")
        raise typer.Exit


def _log_format(name: str) -> str:
    try:
        return set_log_format(name)
    except ValueError as error:
        raise ConfigError(str(error), where="--log") from None


def log_option_first(words: Sequence[str]) -> list[str]:
    """A command line whose option --log, wherever it stood, comes before the command."""
    first, rest = list[str](), list(words)
    for at, word in enumerate(words):
        if word == "--":
            break
        if word == "--log" and at + 1 < len(words):
            first, rest = [word, words[at + 1]], [*words[:at], *words[at + 2 :]]
        elif word.startswith("--log="):
            first, rest = [word], [*words[:at], *words[at + 1 :]]
    return first + rest


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    log: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            callback=_log_format,
            is_eager=True,
            help="of what is said on stderr, before or after any command: text, or json (a line "
            "for each event, with time, run, stage, event and counters)",
        ),
    ] = "text",
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
