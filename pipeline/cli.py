"""The command `embedmill`.

Engines are imported inside the commands that need them, so that `embedmill config` answers
at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.exceptions

from pipeline import __version__
from pipeline.errors import ConfigError, GateError

__all__ = ["app", "main"]


class _StoppedError(Exception):
    """Carries a KeyboardInterrupt past Typer, which would return from it as from success."""


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _StoppedError from stop


app = typer.Typer(
    name="embedmill",
    cls=_Commands,
    help="From raw interaction logs to embeddings and a verified nearest-neighbour index.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 2 config or usage, 3 raw log, 4 artifact, 5 training, "
    "6 gates failed (not published), 7 machine, 70 bug, 130 Ctrl-C, 143 terminated.",
)

ConfigFile = Annotated[Path, typer.Argument(metavar="FILE", help="the run's TOML")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="section.key=value", help="overrides a key; repeatable"),
]
RunFolder = Annotated[
    str, typer.Argument(metavar="RUN", help="the run's folder or URL, such as runs/movielens-100k")
]
RunOrRoot = Annotated[
    str,
    typer.Argument(metavar="RUN", help="the run's folder or URL, or a root with a published run"),
]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="COLUMN=VALUE",
        help="only items with this value in the item metadata: categories=Drama; repeatable",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object")]
Neighbours = Annotated[int, typer.Option("-k", min=1, help="how many")]


def _version(asked: bool) -> None:
    if asked:
        print(f"embedmill {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def run(
    file: ConfigFile,
    sets: Sets = None,
    first: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="begin here")] = None,
    last: Annotated[str, typer.Option("--to", metavar="STAGE", help="end here")] = "report",
    engine: Annotated[str | None, typer.Option(help="sail, spark or sc://host:port")] = None,
    workers: Annotated[
        str | None, typer.Option(help="training workers: a number, auto, or a range: 2-8")
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="build anew what is stale")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="errors only")] = False,
) -> None:
    """Run the line: events, vocab, shards, train, export, index, evaluate, report.

    What has finished with this config and these inputs is skipped, so the same command
    again after an interruption goes on where it stopped. --rebuild builds stale stages
    anew; with --from it builds that stage and all that follow anew.
    """
    from pipeline import answers
    from pipeline.config import load
    from pipeline.run import Run
    from pipeline.terminal import Terminal

    overrides = list(sets or [])
    overrides += [f'run.engine="{engine}"'] if engine else []
    overrides += [f"train.workers={workers}"] if workers else []
    config = load(file, overrides)

    from jobs.all import run_line

    one, terminal = Run(config), Terminal(quiet=quiet)
    below: GateError | None = None
    try:
        run_line(one, first=first, last=last, rebuild=rebuild, terminal=terminal)
    except GateError as error:
        below = error  # the run is whole, and its figures say why
    if last == "report" and not quiet:
        answers.print_summary(one)
    if below is not None:
        raise below


@app.command()
def config(file: ConfigFile, sets: Sets = None) -> None:
    """Print the resolved run: every key with its value, as TOML."""
    from pipeline.config import load, to_toml

    print(to_toml(load(file, sets or [])), end="")


@app.command()
def profile(
    file: ConfigFile,
    sets: Sets = None,
    engine: Annotated[str | None, typer.Option(help="sail, spark or sc://host:port")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at the log before any run: days, users, items, bad lines, the split; and a page.

    It tells what the data stages would make, and that a run would stop where it would. Nothing
    of the run is built or changed.
    """
    from pipeline.config import load
    from pipeline.run import Run

    config = load(file, [*(sets or []), *([f'run.engine="{engine}"'] if engine else [])])

    from jobs.profile import profile as look
    from pipeline.report.plain import lines

    found = look(Run(config))
    if as_json:
        print(json.dumps(found.data | {"page": found.page}, ensure_ascii=False))
        return
    print(*lines(found.data), f"page: {found.page}", sep="\n")


@app.command()
def plan(
    file: ConfigFile,
    sets: Sets = None,
    users: Annotated[int, typer.Option(min=0, help="where vocab has not finished")] = 0,
    items: Annotated[int, typer.Option(min=0, help="where vocab has not finished")] = 0,
    events: Annotated[int, typer.Option(min=0, help="pairs to train on, likewise")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="of calibration; 0: no estimate")] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Tell what training will take: rows, memory, disk, bytes sent, steps, minutes.

    Sizes come from finished stages, or from --users, --items and --events. What cannot fit
    is refused, as `run` would refuse it. Minutes are those of real steps on small tables.
    """
    from pipeline import answers
    from pipeline.config import load
    from pipeline.run import Run
    from pipeline.train.forecast import Given, forecast

    found = forecast(Run(load(file, sets or [])), Given(users, items, events), seconds=seconds)
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        answers.print_plan(found.lines())
    if found.refused is not None:
        raise found.refused


@app.command()
def status(folder: RunFolder, as_json: AsJson = False) -> None:
    """Show which stages have finished, with rows, bytes and seconds, and what they took."""
    from pipeline import answers
    from pipeline.run import open_run, published
    from schemas.stages import STAGES

    one = open_run(folder)
    found = {stage: one.find(stage) for stage in STAGES}
    if as_json:
        shown = {"content", "counters", "measured", "seconds"}
        said = {stage: a and a.manifest.model_dump(include=shown) for stage, a in found.items()}
        print(json.dumps(said))
        return
    answers.print_stages(found)
    pointer = published(one.config.run.root)
    print(f"published in {one.config.run.root}: {pointer['run'] if pointer else 'nothing yet'}")


@app.command()
def verify(folder: RunFolder) -> None:
    """Re-read every file of a run and compare it with the manifests."""
    from pipeline.errors import CorruptArtifactError
    from pipeline.run import open_run
    from schemas.stages import STAGES

    one, wrong = open_run(folder), []
    for stage in STAGES:
        artifact = one.find(stage)
        if artifact is None:
            print(f"{stage:<9} not yet")
            continue
        found = [f"{stage}/{path} {what}" for path, what in artifact.verify()]
        wrong += found
        files = artifact.manifest.files
        state = "differs" if found else "ok"
        print(f"{stage:<9} {state}: {len(files):,} files, {sum(f.bytes for f in files):,} bytes")
        for line in found:
            print(f"{'':<9} {line}")
    if wrong:
        raise CorruptArtifactError(
            f"{len(wrong)} files differ from their manifests: {wrong[0]}",
            where=folder,
            todo="Run its config again with --from that stage and --rebuild",
        )


@app.command()
def metrics(folder: RunFolder, as_json: AsJson = False) -> None:
    """Print what `evaluate` measured, and the seconds of every stage."""
    from pipeline import answers
    from pipeline.run import open_run

    flat = answers.metrics_of(open_run(folder))
    if as_json:
        print(json.dumps(flat))
        return
    width = max(map(len, flat))
    for name, value in flat.items():
        print(
            f"{name:<{width}}  {value:.6g}"
            if isinstance(value, float)
            else f"{name:<{width}}  {value}"
        )


@app.command()
def recommend(
    folder: RunOrRoot,
    user: Annotated[str, typer.Option(help="the user's raw id")] = "",
    users: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="ids: one on each line, or a column of .csv .tsv .parquet"
        ),
    ] = "",
    output: Annotated[str, typer.Option(metavar="FILE", help="Parquet, for --users")] = "",
    column: Annotated[str, typer.Option(help="of --users; else the only one, or the log's")] = "",
    filters: Filters = None,
    with_seen: Annotated[bool, typer.Option("--with-seen", help="items of the log too")] = False,
    k: Neighbours = 10,
    as_json: AsJson = False,
) -> None:
    """Print the best items for a user, without those already seen; or write them for many.

    A file of many users gives a Parquet file with a row for every answer: user, rank, item,
    score. Ids that have none are counted by the reason.
    """
    from pipeline import answers, lookup
    from pipeline.run import find_run

    if bool(user) == bool(users) or bool(users) != bool(output):
        raise ConfigError("recommend needs --user ID, or --users FILE with --output FILE")
    one, wanted = find_run(folder), _wanted(filters)
    if user:
        found = lookup.recommend(one, user, k, exclude_seen=not with_seen, filter=wanted)
        answers.print_items(one, found, as_json)
        return
    from pipeline.idfile import read_ids
    from pipeline.index import reader_of
    from pipeline.recommendations import Asked, recommend_all
    from pipeline.terminal import Terminal

    reader = reader_of(one)
    asked = Asked(k, not with_seen, None if wanted is None else reader.allow(wanted))
    ids = read_ids(users, column, one.config.events.user)
    with Terminal(quiet=as_json).stage("recommend") as progress:
        told = recommend_all(reader, ids, output, asked, progress)
    answers.print_told(told, output, as_json)


@app.command()
def neighbors(
    folder: RunOrRoot,
    item: Annotated[str, typer.Option(help="the item's raw id, or its title")],
    filters: Filters = None,
    k: Neighbours = 10,
    as_json: AsJson = False,
) -> None:
    """Print the items nearest to an item, by cosine."""
    from pipeline import answers, lookup
    from pipeline.run import find_run

    one = find_run(folder)
    answers.print_items(one, lookup.neighbors(one, item, k, filter=_wanted(filters)), as_json)


@app.command()
def export(
    folder: RunOrRoot,
    format: Annotated[str, typer.Option(metavar="NAME", help="see below")],
    output: Annotated[str, typer.Option(metavar="FOLDER", help="must not be there yet")],
    dtype: Annotated[str, typer.Option(help="float32, float16 or int8")] = "float32",
    side: Annotated[str, typer.Option(help="users, items or both")] = "both",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an earlier export there")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's vectors in a format that other tools load, with their ids.

    Formats: parquet, npy, safetensors, faiss, word2vec, word2vec-binary, projector, lance,
    pgvector, qdrant. The folder's manifest.json says how many vectors there are, how ids are
    stored, and which recall@10 the number type keeps.
    """
    from pipeline import answers
    from pipeline.formats import DTYPES, SIDES, Wanted, write
    from pipeline.run import find_run
    from pipeline.terminal import Terminal

    for name, value, allowed in (("--dtype", dtype, DTYPES), ("--side", side, (*SIDES, "both"))):
        if value not in allowed:
            raise ConfigError(f"{name} is '{value}'; there are {', '.join(allowed)}")
    wanted = Wanted(format, dtype, SIDES if side == "both" else (side,))
    with Terminal(quiet=as_json).stage("export") as progress:
        manifest = write(find_run(folder), wanted, output, progress, overwrite=overwrite)
    if as_json:
        print(json.dumps(manifest, ensure_ascii=False))
        return
    answers.print_exported(manifest, output)


@app.command()
def diff(
    before: RunFolder,
    after: RunFolder,
    examples: Annotated[int, typer.Option(min=0, help="ids to name of each kind")] = 3,
    engine: Annotated[str, typer.Option(help="sail, spark or sc://host:port")] = "sail",
    as_json: AsJson = False,
) -> None:
    """Tell which users and items came, went and stayed between two runs."""
    from pipeline import answers
    from pipeline.prepare.connection import open_session
    from pipeline.prepare.diff import compare
    from pipeline.run import open_run

    runs = [open_run(folder) for folder in (before, after)]
    vocabs = [one.artifact("vocab") for one in runs]
    with open_session(engine, runs[0].config.run.root) as session:
        found = compare(session, vocabs[0], vocabs[1], examples)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    answers.print_diff(found, runs[1])


def _wanted(filters: list[str] | None) -> dict[str, list[str]] | None:
    """Values by column; an item may have any of a column's."""
    found: dict[str, list[str]] = {}
    for one in filters or []:
        column, equals, value = one.partition("=")
        if not equals:
            raise ConfigError(f"--filter is '{one}'; it needs COLUMN=VALUE, as categories=Drama")
        found.setdefault(column, []).append(value)
    return found or None


def main() -> None:
    """Entry point of the console command."""
    from jobs.launch import INTERRUPTED, TERMINATED, exit_code

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
    except _StoppedError as stopped:
        raise (stopped.__cause__ or KeyboardInterrupt()) from None
    except typer.exceptions.TyperException as error:
        raise ConfigError(error.format_message(), todo="See `embedmill --help`") from None


if __name__ == "__main__":
    main()
