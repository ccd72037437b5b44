"""What commands answer on the terminal: tables that fit 80 columns, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from embedmill.pipeline.query.metrics import metrics_of
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import duration, si, summary

__all__ = [
    "print_diff",
    "print_exported",
    "print_items",
    "print_plan",
    "print_stages",
    "print_summary",
    "print_told",
]


def _console() -> Console:
    """Where answers go: as wide as the terminal, 80 columns elsewhere."""
    return Console(highlight=False, soft_wrap=False)


def print_plan(lines: Iterable[Sequence[str]]) -> None:
    """What training will take: a name, a figure, and what it is, on each line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for line in lines:
        table.add_row(*line)
    _console().print(table)


def print_stages(found: Mapping[str, Artifact | None]) -> None:
    """Each stage's state, size, time and counters, and below what it took."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("state")
    table.add_column("bytes", justify="right")
    table.add_column("time", justify="right")
    table.add_column("what")
    for stage, artifact in found.items():
        if artifact is None:
            table.add_row(stage, "not yet")
            continue
        size = si(sum(f.bytes for f in artifact.manifest.files)) + "B"
        seconds = duration(artifact.manifest.seconds)
        version = artifact.manifest.version
        what = f"version {version} of its contract, which this program does not read"
        what = summary(artifact) if artifact.readable else what
        table.add_row(stage, "done", size, seconds, what)
    _console().print(table)
    cost = _costs({stage: a for stage, a in found.items() if a is not None})
    if cost.row_count:
        _console().print(cost)


def _costs(found: Mapping[str, Artifact]) -> Table:
    """What stages took beside time, a row for each of which it is known."""
    table = Table(box=None, pad_edge=False, title="\nwhat it took", title_justify="left")
    table.add_column("stage")
    shown = {
        "rows_per_second": "rows/s",
        "peak_bytes": "memory",
        "read_bytes": "read",
        "shuffle_bytes": "shuffled",
        "written_bytes": "written",
    }
    known = {name for artifact in found.values() for name in artifact.manifest.measured}
    shown = {key: name for key, name in shown.items() if key in known}
    for name in shown.values():
        table.add_column(name, justify="right")
    for stage, artifact in found.items():
        measured = artifact.manifest.measured
        if measured.keys() & shown.keys():
            values = [(si(measured[k]), k) if k in measured else ("", "") for k in shown]
            table.add_row(stage, *(f"{v}B" if k.endswith("bytes") else v for v, k in values))
    return table


def print_items(one: Run, found: list[Any], as_json: bool) -> None:
    """Items with scores and, where the log has them, titles."""
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


def print_told(told: Any, output: str, as_json: bool) -> None:
    """What became of the users of a file: a line for each reason there is, with examples."""
    if as_json:
        print(json.dumps(told.as_json()))
        return
    console = _console()
    console.print(Text(f"{told.rows:,} answers in {output}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("users asked for", f"{told.users_in:,}", "")
    for fate, what in told.fates.items():
        if count := told.counts[fate]:
            named = ", ".join(_on_a_line(one) for one in told.examples[fate] if one)
            some = (
                f" ({named}{', ...' if count > 3 else ''})" if fate != "answered" and named else ""
            )
            table.add_row(f"  {fate.replace('_', ' ')}", f"{count:,}", Text(f"{what}{some}"))
    console.print(table)


def print_exported(manifest: Mapping[str, Any], output: str) -> None:
    """What an export wrote."""
    size = si(sum(one["bytes"] for one in manifest["files"])) + "B"
    sides = [
        f"{manifest[side]['count']:,} {side}" for side in ("users", "items") if side in manifest
    ]
    out = [f"{' and '.join(sides)}, {manifest['dim']} x {manifest['dtype']}, {size} in {output}"]
    left = sum(manifest[side]["left_out"] for side in ("users", "items") if side in manifest)
    out += [f"{left:,} rows without an id in use are left out"] if left else []
    out += [f"ids: {manifest['ids']}"]
    if manifest["dtype"] != "float32":
        kept = f"{manifest['recall@10']:.4f} of {manifest['queries']:,} users"
        out += [f"recall@10 against float32: {kept}"]
    for line in out:
        _console().print(Text(line), soft_wrap=True)


def print_diff(found: dict[str, Any], after: Run) -> None:
    """What came, went and stayed, with examples."""
    _console().print(_movements(found))
    for name, side in found.items():
        titles = _titles(after, _named(side)) if name == "items" else {}
        for kind, ids in side["examples"].items():
            if ids and kind != "stayed":
                _console().print(_named_ids(f"{name} that {kind}", ids, titles))


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


def _titles(one: Run, items: set[str]) -> dict[str, str]:
    """Titles of items, of those that have one."""
    events = one.artifact("events")
    if not events.has("items.parquet"):
        return {}
    table = events.read_table("items.parquet", ["item", "title"])
    pairs = zip(table["item"].to_pylist(), table["title"].to_pylist(), strict=True)
    return {item: title for item, title in pairs if item in items}


def print_summary(one: Run) -> None:
    """The closing table: metrics beside popularity, some neighbours, where the page is."""
    flat, page = metrics_of(one), one.artifact("report")
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
