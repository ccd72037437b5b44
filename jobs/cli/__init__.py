"""The command `embedmill`.

Engines are imported inside the commands that need them, so that `embedmill config` answers
at once.
"""

from __future__ import annotations

import os
import sys

import typer.exceptions

from embedmill.jobs.cli.app import StoppedError, app
from embedmill.pipeline.errors import ConfigError

# Each registers its commands with the app, in the order that --help shows.
# isort: off
from embedmill.jobs.cli import run
from embedmill.jobs.cli import inspect
from embedmill.jobs.cli import query

# isort: on

__all__ = ["app", "inspect", "main", "query", "run"]


def main() -> None:
    """Entry point of the console command."""
    from embedmill.jobs.launch import INTERRUPTED, TERMINATED, exit_code

    code = exit_code(_invoke)
    if code in (INTERRUPTED, TERMINATED):
        # All is cleaned up; Ray's threads, cut off, may crash what is left of the interpreter.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _invoke() -> None:
    """Run the app; Ctrl-C comes out as itself, usage errors exit 2 with one sentence."""
    try:
        app(standalone_mode=False)
    except StoppedError as stopped:
        raise (stopped.__cause__ or KeyboardInterrupt()) from None
    except typer.exceptions.TyperException as error:
        raise ConfigError(error.format_message(), todo="See `embedmill --help`") from None
