"""The command `embedmill`.

Engines are imported inside the commands that need them, so that `embedmill config` starts
fast.
"""

from __future__ import annotations

import sys

import typer.exceptions

from embedmill.jobs.cli.app import StoppedError, app, log_option_first
from embedmill.pipeline.errors import ConfigError

# Each registers its commands with the app; --help lists them in this order.
# isort: off
from embedmill.jobs.cli import init
from embedmill.jobs.cli import run
from embedmill.jobs.cli import demo
from embedmill.jobs.cli import backfill
from embedmill.jobs.cli import tune
from embedmill.jobs.cli import inspect
from embedmill.jobs.cli import publishing
from embedmill.jobs.cli import query
from embedmill.jobs.cli import delta
from embedmill.jobs.cli import push
from embedmill.jobs.cli import gc
from embedmill.jobs.cli import forget

# isort: on

__all__ = [
    "app",
    "backfill",
    "delta",
    "demo",
    "forget",
    "gc",
    "init",
    "inspect",
    "main",
    "publishing",
    "push",
    "query",
    "run",
    "tune",
]


def main() -> None:
    """Entry point of the console command."""
    from embedmill.jobs.launch import exit_code, leave

    leave(exit_code(_invoke))


def _invoke() -> None:
    """Run the app.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
        ConfigError: the command line has a wrong command, option or value.
    """
    try:
        app(log_option_first(sys.argv[1:]), standalone_mode=False)
    except StoppedError as stopped:
        raise (stopped.__cause__ or KeyboardInterrupt()) from None
    except typer.exceptions.TyperException as error:
        raise ConfigError(error.format_message(), todo="See `embedmill --help`") from None
