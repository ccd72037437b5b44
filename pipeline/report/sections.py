"""Sections of the page about the run itself: its result, its line, its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report import wording
from pipeline.report.wording import count, escape, figure, plural, ratio

__all__ = ["bullet", "footer", "headline", "ingested", "line", "section", "splits", "table"]

# What a counter counts, where its name alone does not say it.
_MEANING = {
    "rows_in": "lines or rows read",
    "merged": "duplicates merged into another event",
    "rejects_kept": "rejected lines kept for inspection",
    "users_dropped": "users below vocab.min_user_count",
    "items_dropped": "items below vocab.min_item_count",
    "rounds": "rounds until the minimum counts were stable",
    "repeats_valid": "validation events whose item the user already has in train",
    "repeats_test": "test events whose item the user already has in train",
    "cold_items_valid": "items of validation that never occur in train",
    "cold_items_test": "items of test that never occur in train",
    "cold_users_valid": "users of validation without train events",
    "cold_users_test": "users of test without train events",
    "cold_users": "users without train events, left out: they have no personal vector",
    "users_without_train": "users without train events",
}


def section(anchor: str, heading: str, intro: str, body: str) -> str:
    """One section; `intro` and `body` are HTML, `heading` is text."""
    lead = f'<p class="intro">{intro}</p>' if intro else ""
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-h">'
        f'<h2 id="{anchor}-h">{escape(heading)}</h2>{lead}{body}</section>'
    )


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], kinds: str, extra: str = ""
) -> str:
    """A table; cells are HTML. `kinds` has a letter per column: t text, n number, w wide."""
    names = {"t": "", "n": ' class="n"', "w": ' class="w"'}
    cells = "".join(f'<th scope="col"{names[k]}>{h}</th>' for h, k in zip(head, kinds, strict=True))
    lines = []
    for row in rows:
        first, *rest = row
        tail = "".join(f"<td{names[k]}>{c}</td>" for c, k in zip(rest, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row"{names[kinds[0]]}>{first}</th>{tail}</tr>')
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="{extra}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def bullet(value: float | None, popularity: float | None, most: float) -> str:
    """A bar for the model with a tick where popularity stands, on a scale from 0 to `most`."""
    if value is None or most <= 0:
        return ""
    tick = (
        f'<i class="tick" style="left:{min(100.0, 100 * popularity / most):.1f}%"></i>'
        if popularity is not None
        else ""
    )
    share = max(0.0, min(100.0, 100 * value / most))
    return (
        f'<span class="bullet" aria-hidden="true"><i style="width:{share:.1f}%"></i>{tick}</span>'
    )


def headline(data: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    """Tiles of the metrics that matter most, and the gates."""
    metrics, k = data["metrics"], data["ks"][0]
    tiles = []
    if "rmse" in metrics:
        tiles += [_error_tile(metrics, "rmse"), _error_tile(metrics, "mae")]
    tiles += [_tile(metrics, f"{name}@{k}") for name in ("recall", "ndcg")]
    if "rmse" not in metrics:
        tiles.append(
            _plain_tile(
                "Index recall@10",
                figure(metrics.get("index.recall@10"), 3),
                "neighbours of exact search that the index finds",
            )
        )
    total = sum(stage["seconds"] for stage in times["stages"])
    tiles.append(_plain_tile("The whole line", wording.seconds(total), "from raw log to metrics"))
    return (
        f'<section id="result" aria-label="Result"><div class="tiles">{"".join(tiles)}</div>'
        f"{_gates(data['gates'])}</section>"
    )


def _tile(metrics: Mapping[str, float], name: str) -> str:
    value, popularity = metrics.get(name), metrics.get(f"popularity.{name}")
    times = f"{ratio(value, popularity)} popularity’s {figure(popularity, 3)}"
    return (
        f'<div class="tile"><p class="label">{_metric(name)} on test</p>'
        f'<p class="big">{figure(value, 3)}</p>'
        f"{bullet(value, popularity, 1.15 * max(value or 0, popularity or 0))}"
        f'<p class="sub">{times if popularity is not None else "not measured"}</p></div>'
    )


def _error_tile(metrics: Mapping[str, float], name: str) -> str:
    base = metrics.get(f"{name}.mean_baseline")
    sub = f"the mean rating alone: {figure(base, 3)}" if base is not None else "lower is better"
    return _plain_tile(f"{name.upper()} on test", figure(metrics.get(name), 3), sub)


def _plain_tile(label: str, value: str, sub: str) -> str:
    return (
        f'<div class="tile"><p class="label">{escape(label)}</p><p class="big">{value}</p>'
        f'<p class="sub">{escape(sub)}</p></div>'
    )


def _metric(name: str) -> str:
    known = {"ndcg": "NDCG", "mrr": "MRR", "hit_rate": "Hit rate", "rmse": "RMSE", "mae": "MAE"}
    stem, at, k = name.partition("@")
    return escape(known.get(stem, stem.replace("_", " ").capitalize()) + at + k)


def _gates(gates: Sequence[Mapping[str, Any]]) -> str:
    if not gates:
        return (
            '<p class="gates none">No gates were asked: <code>evaluate.gates</code> is empty.</p>'
        )
    items = []
    for gate in gates:
        passed = bool(gate["passed"])
        mark = '<b class="ok">✓ passed</b>' if passed else '<b class="bad">✗ failed</b>'
        got = gate["got"]
        said = figure(got) if isinstance(got, int | float) else "not measured"
        items.append(
            f"<li>{mark} <span><code>{escape(gate['gate'])}</code> {escape(gate['metric'])}: "
            f"wanted {escape(gate['wanted'])}, got {said}</span></li>"
        )
    return f'<ul class="gates" aria-label="Gates">{"".join(items)}</ul>'


def line(data: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    """The stages in order with what each made, and how long each took."""
    counters = data["counters"]
    made = {
        "events": f"{count(counters['events'].get('events'))} events",
        "vocab": f"{plural(counters['vocab'].get('users'), 'user')}, "
        f"{plural(counters['vocab'].get('items'), 'item')}",
        "shards": f"{count(counters['shards'].get('train'))} to train",
        "train": f"{count(counters['train'].get('epochs'))} epochs",
        "export": f"{data['model'].get('dim', '?')} dimensions",
        "index": f"{escape(data['index']['spec'].get('kind', ''))}, "
        f"{plural(counters['index'].get('indexed'), 'item')}",
        "evaluate": f"{count(data['metrics'].get('users'))} users",
    }
    longest = max((s["seconds"] for s in times["stages"]), default=0) or 1
    cards, rows = [], []
    for stage in times["stages"]:
        name, spent = stage["stage"], stage["seconds"]
        took = wording.seconds(spent)
        cards.append(
            f"<li><b>{name}</b><span>{made[name]}</span><em>{took}</em>"
            f'<i aria-hidden="true" style="width:{max(1.0, 100 * spent / longest):.1f}%"></i></li>'
        )
        rows.append(
            [
                name,
                took,
                wording.size(stage["bytes"]),
                count(stage["files"]),
                f"<code>{stage['content'][:12]}</code>",
            ]
        )
    total = sum(s["seconds"] for s in times["stages"])
    size = sum(s["bytes"] for s in times["stages"])
    rows.append(["together", wording.seconds(total), wording.size(size), "", ""])
    body = table(
        "Time and size of each stage", ["Stage", "Time", "Size", "Files", "Content"], rows, "tnnnt"
    )
    return section(
        "line",
        "The line",
        "Each stage reads what stands to its left. The bars compare time.",
        f'<ol class="stages">{"".join(cards)}</ol><details><summary>Time, size and content hash '
        f"of each stage</summary>{body}</details>",
    )


def ingested(data: Mapping[str, Any]) -> str:
    """Rows in and out of events and vocab, and the lines that were rejected."""
    events, vocab = data["counters"]["events"], data["counters"]["vocab"]
    rows = _flow(
        "rows read",
        events.get("rows_in"),
        [
            ("became events", events.get("events"), ""),
            ("merged", events.get("merged"), "duplicates, merged into another event"),
            ("rejected", events.get("rejected"), "could not be read: the reasons are below"),
        ],
    )
    rows += _flow(
        "events",
        vocab.get("events_in"),
        [
            ("kept", vocab.get("events_kept"), ""),
            ("dropped", vocab.get("events_dropped"), "of users or items below the minimum counts"),
        ],
    )
    body = table("Rows in and out", ["", "Rows", "Share", "Why"], rows, "tnnw", "flow")
    extra = [(k, v) for k, v in vocab.items() if k in _MEANING]
    if extra:
        body += _counters("Vocabulary", extra)
    return section(
        "data",
        "What went in, what was dropped",
        "Every row read is an event, a merged duplicate or a rejected line: nothing else happens.",
        body + _rejects(data["rejects"]),
    )


def _flow(
    name: str, total: int | None, parts: Sequence[tuple[str, int | None, str]]
) -> list[list[str]]:
    rows = [[f"<strong>{escape(name)}</strong>", f"<strong>{count(total)}</strong>", "", ""]]
    for part, value, why in parts:
        share = f"{100 * value / total:.1f} %" if total and value is not None else "–"
        rows.append([f'<span class="part">{escape(part)}</span>', count(value), share, escape(why)])
    return rows


def _rejects(rejects: Sequence[Mapping[str, Any]]) -> str:
    if not rejects:
        return '<h3>Rejected lines</h3><p class="quiet">None. Every line could be read.</p>'
    parts = []
    for one in rejects:
        examples = "".join(
            f'<li><span class="where">{escape(e["file"])}, line {count(e["line"])}</span>'
            f"<code>{escape(e['raw']) or '(empty)'}</code></li>"
            for e in one["examples"]
        )
        parts.append(
            f'<div class="reject"><h4>{escape(one["reason"])} <b>{count(one["count"])}</b></h4>'
            f"<ul>{examples}</ul></div>"
        )
    return f"<h3>Rejected lines, by reason</h3>{''.join(parts)}"


def splits(data: Mapping[str, Any]) -> str:
    """Sizes of train, validation and test, and what is cold in them."""
    shards = data["counters"]["shards"]
    sizes = [(name, int(shards.get(name, 0))) for name in ("train", "valid", "test")]
    total = sum(size for _, size in sizes) or 1
    names = {"train": "train", "valid": "validation", "test": "test"}
    bar = "".join(
        f'<i class="{name}" style="flex:{max(size / total, 0.002):.4f}"></i>'
        for name, size in sizes
        if size
    )
    legend = "".join(
        f'<li class="{name}"><b>{names[name]}</b> {count(size)} '
        f"<span>{100 * size / total:.1f} %</span></li>"
        for name, size in sizes
    )
    known = [(k, v) for k, v in shards.items() if k not in ("train", "valid", "test", "events_in")]
    how = {
        "last": "each user’s last events are held out",
        "time": "everything after a moment in time is held out",
        "random": "a random share of the events is held out",
        "given": "the log says which events are held out",
    }[data["split"]]
    return section(
        "splits",
        "The split",
        f"Decided once and stored: {how}.",
        f'<div class="split" aria-hidden="true">{bar}</div><ul class="legend">{legend}</ul>'
        + _counters("Counted while splitting", known),
    )


def _counters(caption: str, values: Sequence[tuple[str, int]]) -> str:
    rows = [
        [f"<code>{escape(name)}</code>", count(value), escape(_MEANING.get(name, ""))]
        for name, value in values
    ]
    return table(caption, ["Counter", "Count", "What it counts"], rows, "tnw") if rows else ""


def footer(data: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    """Versions, fingerprint, and the config as it was resolved."""
    versions = ", ".join(f"{escape(k)}&nbsp;{escape(v)}" for k, v in times["software"].items())
    return (
        f'<footer><div class="wrap"><details><summary>The config of this run</summary>'
        f'<pre tabindex="0">{escape(times["config"])}</pre></details>'
        f"<p>Run <code>{escape(data['run'])}</code>, config <code>{data['fingerprint'][:16]}</code>"
        f", evaluated {escape(times['created'])}.</p><p>{versions}</p></div></footer>"
    )
