"""The command `embedmill`.

Engines are imported inside the commands that need them, so that `embedmill config` answers
at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.exceptions
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
        _close(one)
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
    from pipeline.config import load
    from pipeline.run import Run
    from pipeline.train.forecast import Given, forecast

    found = forecast(Run(load(file, sets or [])), Given(users, items, events), seconds=seconds)
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column()
        table.add_column(justify="right", no_wrap=True)
        table.add_column()
        for line in found.lines():
            table.add_row(*line)
        _console().print(table)
    if found.refused is not None:
        raise found.refused


@app.command()
def status(folder: RunFolder, as_json: AsJson = False) -> None:
    """Show which stages have finished, with rows, bytes and seconds, and what they took."""
    from pipeline.run import open_run, published
    from pipeline.terminal import duration, si, summary
    from schemas.stages import STAGES

    one = open_run(folder)
    found = {stage: one.find(stage) for stage in STAGES}
    if as_json:
        shown = {"content", "counters", "measured", "seconds"}
        said = {stage: a and a.manifest.model_dump(include=shown) for stage, a in found.items()}
        print(json.dumps(said))
        return
    table = Table(box=None, pad_edge=False)
    for name, justify in (("stage", "left"), ("state", "left"), ("bytes", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("time", justify="right")
    table.add_column("what")
    for stage, artifact in found.items():
        if artifact is None:
            table.add_row(stage, "not yet")
            continue
        size = si(sum(f.bytes for f in artifact.manifest.files)) + "B"
        seconds = duration(artifact.manifest.seconds)
        table.add_row(stage, "done", size, seconds, summary(artifact))
    _console().print(table)
    cost = _costs({stage: a for stage, a in found.items() if a is not None})
    if cost.row_count:
        _console().print(cost)
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
    from pipeline.run import open_run

    flat = _metrics(open_run(folder))
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
    folder: RunFolder,
    user: Annotated[str, typer.Option(help="the user's raw id")],
    k: Neighbours = 10,
    as_json: AsJson = False,
) -> None:
    """Print the best items for a user, without those already seen."""
    from pipeline import lookup
    from pipeline.run import open_run

    one = open_run(folder)
    _print_items(one, lookup.recommend(one, user, k), as_json)


@app.command()
def neighbors(
    folder: RunFolder,
    item: Annotated[str, typer.Option(help="the item's raw id, or its title")],
    k: Neighbours = 10,
    as_json: AsJson = False,
) -> None:
    """Print the items nearest to an item, by cosine."""
    from pipeline import lookup
    from pipeline.run import open_run

    one = open_run(folder)
    _print_items(one, lookup.neighbors(one, item, k), as_json)


@app.command()
def diff(
    before: RunFolder,
    after: RunFolder,
    examples: Annotated[int, typer.Option(min=0, help="ids to name of each kind")] = 3,
    engine: Annotated[str, typer.Option(help="sail, spark or sc://host:port")] = "sail",
    as_json: AsJson = False,
) -> None:
    """Tell which users and items came, went and stayed between two runs."""
    from pipeline.prepare.diff import compare
    from pipeline.prepare.engine import open_session
    from pipeline.run import open_run

    runs = [open_run(folder) for folder in (before, after)]
    vocabs = [one.artifact("vocab") for one in runs]
    with open_session(engine, runs[0].config.run.root) as session:
        found = compare(session, vocabs[0], vocabs[1], examples)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    _console().print(_movements(found))
    for name, side in found.items():
        titles = _titles(runs[1], _named(side)) if name == "items" else {}
        for kind, ids in side["examples"].items():
            if ids and kind != "stayed":
                _console().print(_named_ids(f"{name} that {kind}", ids, titles))


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


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _costs(found: Mapping[str, Any]) -> Table:
    """What stages took beside time, a row for each of which it is known."""
    from pipeline.terminal import si

    table = Table(box=None, pad_edge=False, title="\nwhat it took", title_justify="left")
    table.add_column("stage")
    shown = {
        "rows_per_second": "rows/s",
        "peak_bytes": "memory",
        "read_bytes": "read",
        "shuffle_bytes": "shuffled",
        "written_bytes": "written",
    }
    for name in shown.values():
        table.add_column(name, justify="right")
    for stage, artifact in found.items():
        measured = artifact.manifest.measured
        if measured.keys() & shown.keys():
            values = [(si(measured[k]), k) if k in measured else ("", "") for k in shown]
            table.add_row(stage, *(f"{v}B" if k.endswith("bytes") else v for v, k in values))
    return table


def _metrics(one: Any) -> dict[str, float | int | str]:
    from schemas.stages import STAGES

    flat: dict[str, float | int | str] = dict(one.artifact("evaluate").read_json("metrics.json"))
    for stage in ("index", "evaluate"):
        for name, value in one.artifact(stage).manifest.measured.items():
            flat[f"{stage}.{name}"] = value
    seconds = {s: m.seconds for s in STAGES if (m := one.manifest(s)) is not None}
    flat |= {f"seconds.{stage}": value for stage, value in seconds.items()}
    flat["seconds.total"] = round(sum(seconds.values()), 3)
    return flat


def _print_items(one: Any, found: list[Any], as_json: bool) -> None:
    titles = _titles(one, {hit.item for hit in found})
    if as_json:
        print(
            json.dumps(
                [{"item": h.item, "score": h.score, "title": titles.get(h.item)} for h in found],
                ensure_ascii=False,
            )
        )
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("score", justify="right")
    table.add_column("item", overflow="fold")
    if titles:
        table.add_column("title", overflow="fold")
    for rank, hit in enumerate(found, 1):
        cells = [hit.item, *([titles.get(hit.item, "")] if titles else [])]
        table.add_row(str(rank), f"{hit.score:.3f}", *(Text(_on_a_line(cell)) for cell in cells))
    _console().print(table)


def _movements(found: dict[str, Any]) -> Table:
    """How many of each kind, both sides beside each other."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("users", justify="right")
    table.add_column("items", justify="right")
    table.add_column("")
    for kind, said in (
        ("before", "in use in the first run"),
        ("came", "in the second alone"),
        ("  back", "of these, whose row the first had kept"),
        ("went", "in the first alone"),
        ("  retired", "of these, whose row the second keeps"),
        ("stayed", "in both"),
        ("  moved", "of these, on another row: 0 where one continues the other"),
        ("after", "in use in the second run"),
    ):
        counts = (f"{found[side][kind.strip()]:,}" for side in ("users", "items"))
        table.add_row(kind, *counts, said)
    return table


def _named(side: dict[str, Any]) -> set[str]:
    return {one["id"] for ids in side["examples"].values() for one in ids}


def _named_ids(heading: str, ids: list[dict[str, Any]], titles: dict[str, str]) -> Table:
    """Examples with their events in both runs."""
    table = Table(box=None, pad_edge=False, title=f"\n{heading}", title_justify="left")
    table.add_column("id", overflow="fold")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    if titles:
        table.add_column("title", overflow="fold")
    for one in ids:
        cells = [one["id"], f"{one['before']:,}", f"{one['after']:,}"]
        cells += [titles.get(one["id"], "")] if titles else []
        table.add_row(*(Text(_on_a_line(cell)) for cell in cells))
    return table


def _on_a_line(text: str) -> str:
    """Newlines, tabs and the like as their escapes: an id may hold any."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _titles(one: Any, items: set[str]) -> dict[str, str]:
    events = one.artifact("events")
    if not events.has("items.parquet"):
        return {}
    table = events.read_table("items.parquet", ["item", "title"])
    pairs = zip(table["item"].to_pylist(), table["title"].to_pylist(), strict=True)
    return {item: title for item, title in pairs if item in items}


def _close(one: Any) -> None:
    """The closing table: metrics beside popularity, some neighbours, where the page is."""
    flat, page = _metrics(one), one.artifact("report")
    console = _console()
    console.print()
    if f"recall@{one.config.evaluate.ks[0]}" in flat:
        console.print(_beside(flat, one.config.evaluate.ks))
    elif "rmse" not in flat:
        console.print("No user with test events: nothing was measured on test.")
    for name in ("rmse", "mae"):
        if name in flat:
            plain = flat.get(f"{name}.mean_baseline")
            beside = f" (mean alone {plain:.4f})" if isinstance(plain, float) else ""
            console.print(f"{name:<9} {flat[name]:.4f}{beside}")
    if "index.recall@10" in flat:
        milliseconds = flat.get("index.ms_per_query")
        speed = f", {milliseconds:.2f} ms a query" if isinstance(milliseconds, float) else ""
        console.print(f"index     finds {flat['index.recall@10']:.1%} of the exact ten{speed}")
    for item in page.read_json("data.json")["neighbours"]["of"][:3]:
        if near := " · ".join(_name(n) for n in item["near"][:5]):
            console.print(Text(f"{_name(item)} is near {near}"))
    passed = all(gate["passed"] for gate in one.artifact("evaluate").read_json("gates.json"))
    said = "published" if passed else "NOT published: a gate failed"
    console.print(f"{said}, {flat['seconds.total']:.0f} s in all")
    console.print(Text(f"page: {page.url('index.html')}"), soft_wrap=True)


def _beside(flat: dict[str, float | int | str], ks: Sequence[int]) -> Table:
    """Metrics at the first k: exact, through the index, and popularity's."""
    k = ks[0]
    table = Table(box=None, pad_edge=False)
    table.add_column("on test")
    for column in ("exact", "through index", "popularity", "ratio"):
        table.add_column(column, justify="right")
    for name in ("recall", "ndcg", "mrr", "hit_rate", "coverage"):
        key = f"{name}@{k}"
        if key not in flat:
            continue
        ours, theirs = float(flat[key]), float(flat[f"popularity.{key}"])
        through = flat.get(f"through_index.{key}")
        table.add_row(
            key,
            f"{ours:.4f}",
            f"{through:.4f}" if isinstance(through, float) else "",
            f"{theirs:.4f}",
            f"{ours / theirs:.2f}x" if theirs else "",
        )
    return table


def _name(item: dict[str, Any]) -> str:
    return _on_a_line(str(item.get("title") or item["id"]))


if __name__ == "__main__":
    main()
