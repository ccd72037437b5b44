"""The command that runs a config for several days."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from embedmill.jobs.cli.app import (
    ConfigFile,
    JsonResult,
    NoPublish,
    Quiet,
    Rebuild,
    Sets,
    Variables,
    app,
)
from embedmill.jobs.cli.run import late_files_command

__all__: list[str] = []


@app.command()
def backfill(
    file: ConfigFile,
    first: Annotated[str, typer.Option("--from", metavar="DAY", help="first day: 2026-11-01")],
    last: Annotated[str, typer.Option("--to", metavar="DAY", help="last day, included")],
    sets: Sets = None,
    given: Variables = None,
    variable: Annotated[str, typer.Option(help="the variable whose value is the day")] = "ds",
    rebuild: Rebuild = False,
    no_publish: NoPublish = False,
    quiet: Quiet = False,
    as_json: JsonResult = False,
) -> None:
    """Run a config for each day, in order, each continuing the vocabulary of the day before.

    What has finished is skipped; the first day that fails ends it. The same command goes on
    there. Days that are older than the published run are not published.
    """
    from embedmill.jobs.backfill import Backfill, days_between
    from embedmill.jobs.run_record import failure_of, state_of
    from embedmill.pipeline.terminal import Terminal
    from embedmill.schemas.run import BackfillResult, Failure, RunResult

    results: dict[str, RunResult] = {}
    failure: Failure | None = None
    terminal = Terminal(sys.stderr if as_json else None, quiet=quiet)
    asked = Backfill(file, sets or [], given or [], variable, rebuild, not no_publish)

    def done(day: str, result: RunResult) -> None:
        results[day] = result
        if result.failure is not None:
            terminal.say(f"{day}: {result.state}; the same command goes on here")
        else:
            new = sum(one.state == "built" for one in result.stages)
            what = f"{new} stages built" if new else "stands"
            shown = "published" if result.published else f"not published: {result.not_published}"
            terminal.say(f"{day}: {what}, {shown}")

    try:
        asked.run(days_between(first, last), terminal, done)
    except BaseException as error:
        failure = failure_of(error, None)
        failed = [f"{variable}={day}" for day, one in results.items() if one.failure]
        with late_files_command("run", file, sets, [*(given or []), *failed]):
            raise
    finally:
        if as_json:
            code = failure.exit_code if failure else 0
            said = BackfillResult(
                state=state_of(failure), exit_code=code, days=results, failure=failure
            )
            print(json.dumps(said.as_json(), ensure_ascii=False), flush=True)
