"""Sections of the page about the run itself: its result, its line, its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedmill.pipeline.report import wording
from embedmill.pipeline.report.wording import count, escape, figure, plural, ratio

__all__ = [
    "bullet",
    "counters_table",
    "footer",
    "headline",
    "line",
    "metric_name",
    "section",
    "table",
]

# What a counter counts, where its name alone does not say it.
_MEANING = {
    "late": "events whose time is not of the day of the folder that their file lies in",
    "empty_lists": "records whose list of events is empty; they are no rows",
    "users_dropped": "users below vocab.min_user_count",
    "items_dropped": "items below vocab.min_item_count",
    "users_back": "users back on their rows after having been retired",
    "items_back": "items back on their rows after having been retired",
    "users_gone": "users retired in this run",
    "items_gone": "items retired in this run",
    "users_retired": "rows kept for users without enough events, in all",
    "items_retired": "rows kept for items without enough events, in all",
    "users_shared": "rows that users below the minimum count share",
    "items_shared": "rows that items below the minimum count share",
    "shared_held_out": "events of shared rows that would have been held out, dropped",
    "rounds": "rounds until the minimum counts were stable",
    "dropped": "events of users or items below the minimum counts",
    "repeats_valid": "validation events whose item the user already has in train",
    "repeats_test": "test events whose item the user already has in train",
    "cold_items_test": "items of test that never occur in train",
    "cold_users_test": "users of test without train events",
    "users_not_held_out": "users with too few events for anything to be held out",
    "users_without_train": "users without train events",
    "items_without_train": "items without train events; they stay in the catalogue",
    "cold_users": "users of test without train events, left out: they have no vector",
    "cold_events": "test events of these users",
    "repeats": "test pairs that train or validation has already, not asked for",
    "nothing_left": "users whose test items are all repeats, left out",
    "test_pairs": "pairs of user and item to be found",
    "users": "users evaluated",
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
    if "rmse" in metrics:
        tiles = [_error_tile(metrics, "rmse"), _error_tile(metrics, "mae")]
        tiles.append(_tile(metrics, f"recall@{k}"))
    else:
        found = figure(metrics.get("index.recall@10"), 3)
        tiles = [_tile(metrics, f"{name}@{k}") for name in ("recall", "ndcg")]
        tiles.append(_plain_tile("Index recall@10", found, "of what exact search finds"))
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
        f'<div class="tile"><p class="label">{metric_name(name)} on test</p>'
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


def metric_name(name: str) -> str:
    """A metric's key as people call it: "Recall@10", "Index recall@10"; as HTML."""
    prefix, dot, rest = name.partition(".")
    if dot and "@" in rest:
        return escape(f"{prefix.replace('_', ' ').capitalize()} {rest.replace('_', ' ')}")
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
        mark = '<b class="ok">✓ passed</b>' if gate["passed"] else '<b class="bad">✗ failed</b>'
        items.append(f"<li>{mark} {_gate(gate)}</li>")
    return f'<ul class="gates" aria-label="Gates">{"".join(items)}</ul>'


def _gate(gate: Mapping[str, Any]) -> str:
    """What was wanted and what was got, in words."""
    name, wanted, got = gate["metric"], gate["wanted"], gate["got"]
    if gate["gate"] == "over_popularity":
        asked = f"{metric_name(name)} at least {wanted:g}× popularity’s"
        return f"{asked}: {'no ratio' if got is None else f'{got:.2f}×'}"
    bound = {"least": "at least", "most": "at most"}[gate["gate"]]
    return f"{metric_name(name)} {bound} {wanted:g}: {figure(got) if got is not None else 'none'}"


def line(data: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    """The stages in order with what each made, and how long each took."""
    counters = data["counters"]
    made = {
        "events": f"{count(counters['events'].get('events'))} events",
        "vocab": f"{plural(counters['vocab'].get('users_live'), 'user')}, "
        f"{plural(counters['vocab'].get('items_live'), 'item')}",
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
        cost = stage.get("measured", {})
        rows.append(
            [
                name,
                took,
                count(cost.get("rows_per_second")),
                wording.size(cost.get("peak_bytes")),
                wording.size(cost.get("shuffle_bytes")),
                wording.size(stage["bytes"]),
                count(stage["files"]),
                f"<code>{stage['content'][:12]}</code>",
            ]
        )
    total = sum(s["seconds"] for s in times["stages"])
    size = sum(s["bytes"] for s in times["stages"])
    rows.append(["together", wording.seconds(total), "", "", "", wording.size(size), "", ""])
    head = ["Stage", "Time", "Rows a second", "Memory", "Shuffled", "Size", "Files", "Content"]
    body = table(
        "What each stage took and wrote. Memory is the most that this machine’s processes held; "
        "what went through a shuffle is known of Apache Spark alone",
        head,
        rows,
        "tnnnnnnt",
    )
    return section(
        "line",
        "The line",
        "Each stage reads what stands to its left. The bars compare time.",
        f'<ol class="stages">{"".join(cards)}</ol><details><summary>Time, memory, size and content '
        f"hash of each stage</summary>{body}</details>",
    )


def counters_table(caption: str, values: Sequence[tuple[str, int]]) -> str:
    """Counters with what they count; nothing where there are none."""
    rows = [
        [f"<code>{escape(name)}</code>", count(value), escape(_MEANING.get(name, ""))]
        for name, value in values
    ]
    return table(caption, ["Counter", "Count", "What it counts"], rows, "tnw") if rows else ""


def footer(data: Mapping[str, Any], times: Mapping[str, Any], done: str) -> str:
    """Versions, fingerprint, what was done when, and the config as it was resolved."""
    versions = ", ".join(f"{escape(k)}&nbsp;{escape(v)}" for k, v in times["software"].items())
    return (
        f'<footer><div class="wrap"><details><summary>The config of this run</summary>'
        f'<pre tabindex="0">{escape(times["config"])}</pre></details>'
        f"<p>Run <code>{escape(data['run'])}</code>, config <code>{data['fingerprint'][:16]}</code>"
        f", {done} {escape(times['created'])}.</p><p>{versions}</p></div></footer>"
    )
