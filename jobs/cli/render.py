"""What commands print: tables that fit 80 columns, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from embedmill.pipeline.query.comparison import Comparison
from embedmill.pipeline.query.metrics import metrics_of
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import duration, si, summary
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.pipeline.views.report import Report
from embedmill.schemas.evaluate import Drift
from embedmill.schemas.report import Item
from embedmill.schemas.run import RunState

if TYPE_CHECKING:  # both load torch, which few commands need
    from embedmill.pipeline.query.lookup import Hit
    from embedmill.pipeline.query.recommendations import BatchReport

__all__ = [
    "print_batch_report",
    "print_diff",
    "print_drift",
    "print_exported",
    "print_folded",
    "print_items",
    "print_line_plan",
    "print_plan",
    "print_stages",
    "print_summary",
]

# Figures of a manifest, and the columns that they have in the table of costs.
_COSTS = {
    "rows_per_second": "rows/s",
    "peak_bytes": "memory",
    "read_bytes": "read",
    "shuffle_bytes": "shuffled",
    "written_bytes": "written",
}
_NEIGHBOURS_SHOWN = 5


def _console() -> Console:
    """The console of stdout: as wide as the terminal, 80 columns where there is none."""
    return Console(highlight=False, soft_wrap=False)


def print_plan(lines: Iterable[Sequence[str]]) -> None:
    """What training will take: on each line a name, a figure and what it means."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for line in lines:
        table.add_row(*line)
    _console().print(table)


def print_line_plan(lines: Sequence[Sequence[str]]) -> None:
    """What all stages will take: a head, a line for each stage, and a last one for all."""
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(lines[0]):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for line in lines[1:]:
        table.add_row(*line)
    _console().print(table)


def print_stages(artifacts: Mapping[str, Artifact | None], driver: RunState | None = None) -> None:
    """State, size, time and counters of each stage, then its costs.

    Args:
        artifacts: by stage; None where it has not finished.
        driver: what the run's driver did last.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("state")
    table.add_column("bytes", justify="right")
    table.add_column("time", justify="right")
    table.add_column("result")
    for stage, artifact in artifacts.items():
        if artifact is None:
            known = driver is not None and driver.stage == stage
            table.add_row(stage, driver.state if driver and known else "not yet")
            continue
        size = si(sum(file.bytes for file in artifact.manifest.files)) + "B"
        seconds = duration(artifact.manifest.seconds)
        version = artifact.manifest.version
        result = f"version {version} of its contract, which this program does not read"
        result = summary(artifact) if artifact.readable else result
        table.add_row(stage, "done", size, seconds, result)
    _console().print(table)
    costs = _costs({stage: one for stage, one in artifacts.items() if one is not None})
    if costs.row_count:
        _console().print(costs)


def _costs(artifacts: Mapping[str, Artifact]) -> Table:
    """Memory and bytes that stages took, with a row for each stage that recorded any."""
    table = Table(box=None, pad_edge=False, title="\ncosts", title_justify="left")
    table.add_column("stage")
    recorded = {name for artifact in artifacts.values() for name in artifact.manifest.measured}
    columns = {key: title for key, title in _COSTS.items() if key in recorded}
    for title in columns.values():
        table.add_column(title, justify="right")
    for stage, artifact in artifacts.items():
        measured = artifact.manifest.measured
        if measured.keys() & columns.keys():
            table.add_row(stage, *(_cost(measured, key) for key in columns))
    return table


def _cost(measured: Mapping[str, Any], key: str) -> str:
    """One figure; empty where the stage has not recorded it."""
    if key not in measured:
        return ""
    return si(measured[key]) + ("B" if key.endswith("bytes") else "")


def print_folded(counts: Mapping[str, int], output: str, as_json: bool) -> None:
    """What became of the events of a fold-in."""
    if as_json:
        print(json.dumps({**counts, "output": output}))
        return
    left = [
        f"{counts[name]:,} {said}"
        for name, said in (
            ("rejected", "rows rejected"),
            ("unknown", "events with an id that the run does not have"),
            ("retired", "events with a retired id"),
            ("without_events", "ids without known events"),
        )
        if counts[name]
    ]
    print(f"{counts['ids']:,} vectors from {counts['events']:,} events: {output}")
    if left:
        print(f"left out: {', '.join(left)}")


def print_drift(drift: Drift) -> None:
    """How far the items' vectors have moved, and those that moved farthest."""
    console = _console()
    if drift.jaccard is None:
        console.print("\nno item is in both runs: vectors are not compared")
        return
    console.print(f"\nvectors of {drift.items:,} items in both runs")
    console.print(f"ten nearest items in common (Jaccard) {drift.jaccard:.3f}")
    if not drift.one_space or drift.distance is None:
        console.print("the runs have two spaces: distances are not compared (see export.align)")
        return
    shown = ", ".join(f"{name} {value:.3f}" for name, value in (drift.quantiles or {}).items())
    console.print(
        f"distance moved: mean {drift.distance:.3f}, {shown}; {drift.moved or 0:.1%} moved"
    )
    for one in drift.farthest[:5]:
        console.print(Text(f"  {_escaped(one.id)}  {one.distance:.3f}, {one.events:,} events"))


def print_items(run: Run, hits: Sequence[Hit], as_json: bool) -> None:
    """Items with scores and, where the run has them, titles."""
    titles = ItemMetadata(run.artifact("events")).titles(hit.item for hit in hits)
    if as_json:
        objects = [
            {"item": hit.item, "score": hit.score, "title": titles.get(hit.item)} for hit in hits
        ]
        print(json.dumps(objects, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("score", justify="right")
    table.add_column("item", overflow="fold")
    if titles:
        table.add_column("title", overflow="fold")
    for rank, hit in enumerate(hits, 1):
        cells = [hit.item, *([titles.get(hit.item, "")] if titles else [])]
        table.add_row(str(rank), f"{hit.score:.3f}", *(Text(_escaped(cell)) for cell in cells))
    _console().print(table)


def print_batch_report(batch: BatchReport, output: str, as_json: bool) -> None:
    """How many users of a file have recommendations, and why the others have none."""
    if as_json:
        print(json.dumps(batch.as_json()))
        return
    console = _console()
    console.print(Text(f"{batch.rows:,} recommendations in {output}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("users in the file", f"{batch.users_in:,}", "")
    for outcome, meaning in batch.outcomes.items():
        if count := batch.counts.get(outcome, 0):
            examples = ", ".join(_escaped(user) for user in batch.examples[outcome] if user)
            if outcome != "answered" and examples:
                meaning += f" ({examples}{', ...' if count > 3 else ''})"
            table.add_row(f"  {outcome.replace('_', ' ')}", f"{count:,}", Text(meaning))
    console.print(table)


def print_exported(manifest: Mapping[str, Any], output: str) -> None:
    """What an export wrote.

    Args:
        manifest: of the export.
        output: its folder.
    """
    size = si(sum(file["bytes"] for file in manifest["files"])) + "B"
    sides = [side for side in ("users", "items") if side in manifest]
    counts = " and ".join(f"{manifest[side]['count']:,} {side}" for side in sides)
    lines = [f"{counts}, {manifest['dim']} x {manifest['dtype']}, {size} in {output}"]
    left_out = sum(manifest[side]["left_out"] for side in sides)
    lines += [f"{left_out:,} rows without an id in use are left out"] if left_out else []
    lines += [f"ids: {manifest['ids']}"]
    if manifest["dtype"] != "float32":
        recall = f"{manifest['recall@10']:.4f}, measured with {manifest['queries']:,} users"
        lines += [f"recall@10 against float32: {recall}"]
    for line in lines:
        _console().print(Text(line), soft_wrap=True)


def print_diff(difference: Mapping[str, Any], after: Run) -> None:
    """Which users and items came, went and stayed, with examples.

    Args:
        difference: by "users" and "items", as `prepare.vocabulary.diff.compare` returns it.
        after: the second run, which has the titles.
    """
    _console().print(_movements(difference))
    for name, side in difference.items():
        titles = {}
        if name == "items":
            titles = ItemMetadata(after.artifact("events")).titles(_example_ids(side))
        for kind, ids in side["examples"].items():
            if ids and kind != "stayed":
                _console().print(_examples(f"{name} that {kind}", ids, titles))


def _movements(difference: Mapping[str, Any]) -> Table:
    """Users and items of each kind."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("users", justify="right")
    table.add_column("items", justify="right")
    table.add_column("")
    for kind, meaning in (
        ("before", "in use in the first run"),
        ("came", "only in the second run"),
        ("  back", "of these, those whose row the first run had kept"),
        ("went", "only in the first run"),
        ("  retired", "of these, those whose row the second run keeps"),
        ("stayed", "in both runs"),
        ("  moved", "of these, those on another row; 0 with vocab.previous"),
        ("after", "in use in the second run"),
    ):
        counts = (f"{difference[side][kind.strip()]:,}" for side in ("users", "items"))
        table.add_row(kind, *counts, meaning)
    return table


def _example_ids(side: Mapping[str, Any]) -> set[str]:
    return {one["id"] for examples in side["examples"].values() for one in examples}


def _examples(heading: str, ids: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Table:
    """Some ids, with their events in both runs."""
    table = Table(box=None, pad_edge=False, title=f"\n{heading}", title_justify="left")
    table.add_column("id", overflow="fold")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    if titles:
        table.add_column("title", overflow="fold")
    for one in ids:
        cells = [one["id"], f"{one['before']:,}", f"{one['after']:,}"]
        cells += [titles.get(one["id"], "")] if titles else []
        table.add_row(*(Text(_escaped(cell)) for cell in cells))
    return table


def _escaped(text: str) -> str:
    """Text on one line: what is not printable, such as a newline in an id, as its escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def print_comparison(comparison: Comparison) -> None:
    """Metrics of two runs over the same users."""
    table = Table(box=None, pad_edge=False)
    table.add_column("on test")
    for column in ("before", "after", "difference", "95 % interval", "p", "better", "worse"):
        table.add_column(column, justify="right")
    for name, one in comparison.differences.items():
        table.add_row(
            name,
            f"{one.before:.4f}",
            f"{one.after:.4f}",
            f"{one.after - one.before:+.4f}",
            f"{one.low:+.4f} {one.high:+.4f}",
            f"{one.p_value:.3f}",
            f"{one.better:,}",
            f"{one.worse:,}",
        )
    console = _console()
    console.print(table)
    users = next(iter(comparison.differences.values())).users
    console.print(
        f"{users:,} users of both runs; of the first alone {comparison.only_before:,}, of the "
        f"second alone {comparison.only_after:,}"
    )


def print_summary(run: Run, not_published: str = "") -> None:
    """The end of a run: metrics beside popularity's, some neighbours, where the page is.

    Args:
        run: a complete run.
        not_published: why it is not the published one; '' if it is.
    """
    metrics, report = metrics_of(run), Report(run.artifact("report"))
    console = _console()
    console.print()
    if f"recall@{run.config.evaluate.ks[0]}" in metrics:
        console.print(_beside_popularity(metrics, run.config.evaluate.ks[0]))
        console.print(_certainty(metrics, run.config.evaluate.ks[0]))
    elif "rmse" not in metrics:
        console.print("No user has test events: nothing was measured on test.")
    for name in ("rmse", "mae"):
        if name in metrics:
            baseline = metrics.get(f"{name}.mean_baseline")
            beside = f" (mean rating {baseline:.4f})" if isinstance(baseline, float) else ""
            console.print(f"{name:<9} {metrics[name]:.4f}{beside}")
    if "index.recall@10" in metrics:
        milliseconds = metrics.get("index.ms_per_query")
        speed = f", {milliseconds:.2f} ms a query" if isinstance(milliseconds, float) else ""
        console.print(f"index     {metrics['index.recall@10']:.1%} of the exact top ten{speed}")
    for item in report.data.neighbours.items[:3]:
        if near := " · ".join(_name(one) for one in item.neighbours[:_NEIGHBOURS_SHOWN]):
            console.print(Text(f"{_name(item)} is near {near}"))
    state = f"NOT published: {not_published}" if not_published else "published"
    seconds = f"{metrics['seconds.total']:.0f} s in all"
    console.print(Text(f"{state}, {seconds}"), soft_wrap=True)
    console.print(Text(f"page: {report.page_url}"), soft_wrap=True)


def _certainty(metrics: Mapping[str, float | int | str], k: int) -> str:
    """How sure the first metrics are."""
    halves = [
        f"{name}@{k} ± {(float(metrics[f'{name}@{k}.high']) - float(low)) / 2:.4f}"
        for name in ("recall", "ndcg")
        if (low := metrics.get(f"{name}@{k}.low")) is not None
    ]
    return f"{', '.join(halves)} (95 %) over {metrics['users']:,} users" if halves else ""


def _beside_popularity(metrics: Mapping[str, float | int | str], k: int) -> Table:
    """Metrics at k: by exact search, through the index, and of popularity."""
    table = Table(box=None, pad_edge=False)
    table.add_column("on test")
    for column in ("exact", "through index", "popularity", "ratio"):
        table.add_column(column, justify="right")
    for name in ("recall", "ndcg", "mrr", "hit_rate", "coverage"):
        key = f"{name}@{k}"
        if key not in metrics:
            continue
        exact, popularity = float(metrics[key]), float(metrics[f"popularity.{key}"])
        through = metrics.get(f"through_index.{key}")
        table.add_row(
            key,
            f"{exact:.4f}",
            f"{through:.4f}" if isinstance(through, float) else "",
            f"{popularity:.4f}",
            f"{exact / popularity:.2f}x" if popularity else "",
        )
    return table


def _name(item: Item) -> str:
    return _escaped(item.title)
