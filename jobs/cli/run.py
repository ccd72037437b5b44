"""Commands that take a config: run the stages, print the config, profile the log, plan."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedmill.jobs.cli.app import (
    AsJson,
    ConfigFile,
    JsonResult,
    LastStage,
    NoPublish,
    Quiet,
    Rebuild,
    Sets,
    Variables,
    app,
)
from embedmill.pipeline.errors import ConfigError, GateError, LateFilesError
from embedmill.pipeline.log import logs_json, print_note

if TYPE_CHECKING:
    from embedmill.jobs.run_record import RunRecord
    from embedmill.pipeline.store.run import Run

__all__ = ["late_files_command"]


@app.command()
def run(
    file: ConfigFile,
    sets: Sets = None,
    given: Variables = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="first stage to run")
    ] = None,
    last: LastStage = "report",
    engine: Annotated[str | None, typer.Option(help="sail, spark or sc://host:port")] = None,
    workers: Annotated[
        str | None, typer.Option(help="training workers: a number, auto, or a range: 2-8")
    ] = None,
    rebuild: Rebuild = False,
    no_publish: NoPublish = False,
    quiet: Quiet = False,
    as_json: JsonResult = False,
) -> None:
    """Run the stages: events, vocab, shards, train, export, index, evaluate, report.

    Stages that have finished with this config and these inputs are skipped: after an
    interruption, the same command goes on where it stopped. --rebuild builds stale stages
    again; with --from it builds that stage and all later ones again. A complete run whose gates
    pass is published, unless a newer one is.
    """
    from embedmill.jobs.run_record import RunRecord
    from embedmill.pipeline.config import load
    from embedmill.pipeline.store.run import Run
    from embedmill.pipeline.terminal import Terminal

    overrides = list(sets or [])
    overrides += [f'run.engine="{engine}"'] if engine else []
    overrides += [f"train.workers={workers}"] if workers else []
    record = RunRecord()
    with record.reporting(as_json=as_json), late_files_command("run", file, sets, given):
        one = Run(load(file, overrides, print_note, given or []))

        from embedmill.jobs.all import run_line

        terminal = Terminal(sys.stderr if as_json else None, quiet=quiet)
        failed: GateError | None = None
        try:
            run_line(
                one,
                first=first,
                last=last,
                rebuild=rebuild,
                may_publish=not no_publish,
                terminal=terminal,
                record=record,
            )
        except GateError as error:
            failed = error  # the run is complete, and its summary shows the figures
        if last == "report" and not (quiet or as_json or logs_json()):
            _print_summary(one, record, failed)
        if failed is not None:
            raise failed


def _print_summary(run: Run, record: RunRecord, failed: GateError | None) -> None:
    from embedmill.jobs.cli import render

    reason = "a gate failed" if failed else record.not_published
    render.print_summary(run, "" if record.published else reason)


@contextmanager
def late_files_command(
    command: str, file: Path, sets: Sequence[str] | None, given: Sequence[str] | None
) -> Iterator[None]:
    """Name the command that takes late files in, where files of the log came after a run.

    Args:
        command: of embedmill.
        file: the run's TOML.
        sets: overrides of the command.
        given: variables of the command.
    """
    try:
        yield
    except LateFilesError as error:
        words = ["embedmill", command, str(file)]
        words += [word for one in given or [] for word in ("--var", one)]
        words += [word for one in sets or [] for word in ("--set", one)]
        todo = f"To take them in: {shlex.join([*words, '--rebuild'])}"
        raise LateFilesError(error.what, where=error.where, todo=todo) from None


@app.command()
def config(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="the run's TOML")] = None,
    sets: Sets = None,
    given: Variables = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="print the JSON Schema of the config instead")
    ] = False,
) -> None:
    """Print the resolved run as TOML: every key that is read, its meaning and its value.

    --schema prints the JSON Schema instead, by which editors complete and check a TOML whose
    first line is `#:schema config.schema.json`; it needs no FILE.
    """
    from embedmill.pipeline.config import json_schema, load, to_toml

    if schema:
        print(json.dumps(json_schema(), indent=1))
        return
    if file is None:
        raise ConfigError("config needs a FILE, or --schema")
    resolved = load(file, sets or [], print_note, given or [])
    print(to_toml(resolved, described=True), end="")


@app.command()
def profile(
    file: ConfigFile,
    sets: Sets = None,
    given: Variables = None,
    engine: Annotated[str | None, typer.Option(help="sail, spark or sc://host:port")] = None,
    as_json: AsJson = False,
) -> None:
    """Profile the log before any run: days, users, items, bad lines, split; and a page.

    Shows what the data stages would make, and the error where they would fail. Nothing of the
    run is built or changed.
    """
    from embedmill.pipeline.config import load
    from embedmill.pipeline.store.run import Run

    overrides = [*(sets or []), *([f'run.engine="{engine}"'] if engine else [])]
    config = load(file, overrides, print_note, given or [])

    from embedmill.jobs.log_profile import profile as profile_log
    from embedmill.pipeline.report.profile_text import lines

    profiled = profile_log(Run(config))
    if as_json:
        print(json.dumps(profiled.data.as_json() | {"page": profiled.page}, ensure_ascii=False))
        return
    print(*lines(profiled.data), f"page: {profiled.page}", sep="\n")


@app.command()
def plan(
    file: ConfigFile,
    sets: Sets = None,
    given: Variables = None,
    users: Annotated[int, typer.Option(min=0, help="if vocab has not finished")] = 0,
    items: Annotated[int, typer.Option(min=0, help="if vocab has not finished")] = 0,
    events: Annotated[
        int, typer.Option(min=0, help="train events or pairs, if shards has not")
    ] = 0,
    rows: Annotated[int, typer.Option(min=0, help="of the log, if events has not finished")] = 0,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="sizes from what `profile --json` printed"),
    ] = None,
    measured: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="finished run over a part of the log; repeatable"),
    ] = None,
    cluster: Annotated[
        str, typer.Option(metavar="SPEC", help="nodes, CPUs and GiB of each: 64x8cpu32g")
    ] = "",
    price: Annotated[float, typer.Option(min=0, help="of a vCPU for an hour")] = 0.0,
    seconds: Annotated[
        float, typer.Option(min=0, help="time of calibration; 0: no estimate of training's time")
    ] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Estimate what all stages will take: time, memory, disk, bytes, core-hours, money.

    Sizes come from finished stages, from --profile, or from --rows, --users, --items and
    --events. Training that does not fit is refused, as `run` would refuse it. Its time is
    extrapolated from real steps on small tables; that of the other stages from unit costs, which
    --measured corrects by what a finished run over a part of the log took on its machine.
    """
    from embedmill.jobs.cli import render
    from embedmill.pipeline.config import load
    from embedmill.pipeline.estimates import GivenLine, Machines, estimate_line
    from embedmill.pipeline.estimates.line_sizes import read_profile
    from embedmill.pipeline.store.run import Run, open_run

    counters = read_profile(profile) if profile is not None else {}
    planned = estimate_line(
        Run(load(file, sets or [], print_note, given or [])),
        GivenLine(rows, users, items, events, counters),
        Machines.of(cluster, price),
        measured=[open_run(folder) for folder in measured or []],
        seconds=seconds,
    )
    if as_json:
        print(json.dumps(planned.as_json()))
    else:
        render.print_plan(planned.train.lines())
        render.print_line_plan(planned.lines())
    if planned.train.refused is not None and not cluster:
        raise planned.train.refused
