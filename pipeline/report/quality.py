"""Sections of the page about how good the model and the index are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedmill.pipeline.report import svg, wording
from embedmill.pipeline.report.sections import bullet, counters_table, metric_name, section, table
from embedmill.pipeline.report.wording import count, escape, figure, ratio

__all__ = ["index", "metrics", "slices", "training"]

_METRICS = (
    ("recall", "Recall", "share of a user’s held-out items among the first k"),
    ("ndcg", "NDCG", "the same, with more credit for a higher place"),
    ("mrr", "MRR", "one over the place of the first hit"),
    ("hit_rate", "Hit rate", "share of users with at least one hit"),
    ("coverage", "Coverage", "share of the catalogue that is ever recommended"),
)
_NOT_CURVES = ("epoch", "train_loss", "learning_rate")


_SPENT = {
    "wait": "for the data of a step",
    "lookup": "the rows of users and items",
    "exchange": "with other workers, the slower ones waited for",
    "loss": "the loss and its gradients",
    "update": "the optimizer",
    "checkpoint": "copying tables, and waiting for files to be written",
    "validate": "on the full catalogue, after an epoch",
    "other": "everything else, such as reading the shards",
}


def training(data: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    """Loss and validation metrics by epoch, the kept epoch marked, and where the time went."""
    history: Sequence[Mapping[str, Any]] = data["history"]
    chosen = str(data["model"].get("metric") or "")
    best = data["model"].get("best_epoch")
    names = [
        key
        for key in dict.fromkeys(k for row in history for k in row)
        if key not in _NOT_CURVES
        and not key.endswith(".users")
        and any(isinstance(row.get(key), int | float) for row in history)
    ]
    # What decided first, then recall before the others.
    names.sort(key=lambda name: (name != chosen, not name.startswith("recall@")))
    figures = []
    for name in ["train_loss", *names[:2]]:
        points = [
            (float(row["epoch"]), float(row[name]))
            for row in history
            if isinstance(row.get(name), int | float)
        ]
        if not points:
            continue
        title = "Training loss" if name == "train_loss" else f"Validation {name}"
        note = " <span>decides</span>" if name == chosen else ""
        marked = f"epoch {best}, kept" if name == chosen else ""
        drawn = svg.curve(svg.Line(points, title), mark=best, marked=marked, x_name="epoch")
        figures.append(f"<figure><figcaption>{escape(title)}{note}</figcaption>{drawn}</figure>")
    intro = (
        f"{count(len(history))} epochs; the tables of epoch {escape(best)} were kept, "
        f"chosen by <code>{escape(chosen)}</code> on validation alone."
        if names
        else "There is no validation part: the tables of the last epoch were kept."
    )
    body = f'<div class="curves">{"".join(figures)}</div>{_spent(times)}{_numbers(history, names)}'
    return section("training", "Training", intro, body if history else "")


def _spent(times: Mapping[str, Any]) -> str:
    """How training spent its time, a bar for each share."""
    found = times.get("training") or {}
    spent: Mapping[str, float] = found.get("spent") or {}
    whole = sum(spent.values())
    if not whole:
        return ""
    most = max(spent.values())
    rows = [
        [
            escape(name.capitalize()),
            bullet(seconds, None, most),
            wording.seconds(seconds),
            f"{100 * seconds / whole:.1f}&nbsp;%",
        ]
        for name, seconds in spent.items()
    ]
    workers = list(dict.fromkeys(found["workers"]))
    said = " then ".join(wording.plural(number, "worker") for number in workers)
    said += ", means over them" if workers != [1] else ""
    rate = count(round(found["pairs"] / found["seconds"])) if found["seconds"] else "no"
    made = table(
        f"Where the time of training went: {said}; {rate} pairs a second",
        ["Part", "", "Time", "Share"],
        rows,
        "twnn",
        "spent",
    )
    meanings = "".join(
        f"<li><b>{name.capitalize()}</b> {escape(what)}</li>" for name, what in _SPENT.items()
    )
    return f'{made}<ul class="meanings">{meanings}</ul>'


def _numbers(history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    keys = ["train_loss", *names, "learning_rate"]
    rows = [
        [
            count(row["epoch"]),
            *(f"{row[k]:.5g}" if k in row and row[k] is not None else "–" for k in keys),
        ]
        for row in history
    ]
    made = table("Every epoch", ["Epoch", *map(escape, keys)], rows, "n" * (len(keys) + 1))
    return f"<details><summary>The numbers of every epoch</summary>{made}</details>"


def metrics(data: Mapping[str, Any]) -> str:
    """Ranking metrics at every k: model, popularity, through the index."""
    values, ks = data["metrics"], data["ks"]
    if not any(f"recall@{k}" in values for k in ks):
        why = "No user has both a training event and a test event: there is nothing to measure."
        return section("metrics", "Against popularity", why, _ratings(values))
    rows, parts = [], []
    for stem, name, _ in _METRICS:
        found = [values.get(f"{p}{stem}@{k}") for p in ("", "popularity.") for k in ks]
        most = max((v for v in found if v is not None), default=0.0)
        for k in ks:
            key = f"{stem}@{k}"
            ours, popular = values.get(key), values.get(f"popularity.{key}")
            rows.append(
                [
                    f"{name}@{k}",
                    bullet(ours, popular, most),
                    f"<b>{figure(ours)}</b>",
                    figure(popular),
                    ratio(ours, popular),
                    figure(values.get(f"through_index.{key}")),
                ]
            )
    head = [
        "Metric",
        '<span class="key">model, with popularity as a tick</span>',
        "Model",
        "Popularity",
        "Ratio",
        "Through the index",
    ]
    parts.append(table("Test metrics on the full catalogue", head, rows, "twnnnn", "metrics"))
    meanings = "".join(f"<li><b>{name}</b> {escape(what)}</li>" for _, name, what in _METRICS)
    parts.append(f'<ul class="meanings">{meanings}</ul>')
    counted = list(data["counters"]["evaluate"].items())
    parts.append(
        "<details><summary>Who was evaluated, and who was left out</summary>"
        f"{counters_table('Counted while evaluating', counted)}</details>"
    )
    users = values.get("users")
    intro = (
        f"Every item of the catalogue is ranked for each of {count(users)} users; items the user "
        "already has are left out. Popularity ranks by training counts, for the same users."
    )
    return section("metrics", "Against popularity", intro, _ratings(values) + "".join(parts))


def _ratings(values: Mapping[str, float]) -> str:
    rows = []
    for name in ("rmse", "mae"):
        if name in values:
            others = [k for k in values if k.startswith(f"{name}.")]
            rows.append([name.upper(), f"<b>{figure(values[name])}</b>", "this model"])
            rows += [
                ["", figure(values[k]), escape(k.partition(".")[2].replace("_", " "))]
                for k in others
            ]
    if not rows:
        return ""
    return table("Predicted ratings on test", ["Error", "Value", "Of"], rows, "tnw")


def slices(data: Mapping[str, Any]) -> str:
    """Recall where the item is frequent, middling or rare, at the least and the greatest k."""
    found, ks = data["slices"], data["ks"]
    if not any(one.get("test_pairs") for one in found):
        return ""
    ks = list(dict.fromkeys((ks[0], ks[-1])))
    key = f"recall@{ks[0]}"
    most = max(one.get(p + key) or 0.0 for one in found for p in ("", "popularity."))
    rows = []
    for one in found:
        row = [escape(one["slice"]), bullet(one.get(key), one.get(f"popularity.{key}"), most)]
        row += [count(one.get(name)) for name in ("items", "test_pairs")]
        for k in ks:
            ours, popular = one.get(f"recall@{k}"), one.get(f"popularity.recall@{k}")
            row += [f"<b>{figure(ours, 3)}</b>", figure(popular, 3)]
        rows.append(row)
    head = [
        "Slice",
        f'<span class="key">{metric_name(key)}, popularity as a tick</span>',
        "Items",
        "Test pairs",
    ]
    head += [name for k in ks for name in (f"Recall@{k}", "Popularity")]
    return section(
        "slices",
        "By popularity of the item",
        "Items cut into slices of equal training events, the most frequent first; the share of "
        "each slice’s test pairs that is found.",
        table("Recall by slice", head, rows, "twnn" + "nn" * len(ks), "metrics"),
    )


def index(data: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    """Recall of the index against latency, and its bytes, beside exact search."""
    spec, recall, latency = data["index"]["spec"], data["index"]["recall"], times["latency"]
    kind = str(spec.get("kind", "?"))
    rows, drawn = [], []
    for point in latency.get("curve", []):
        knob, value, chosen = point.get("parameter"), point.get("value"), point.get("chosen")
        label = f"{knob} = {value}" if value else str(knob or kind)
        used = " <b>in use</b>" if chosen and value else ""
        rows.append([escape(label) + used, *_setting(point)])
        short = str(value or knob or kind)
        drawn.append((point["ms_per_query"], point["recall@10"], short, "best" if chosen else ""))
    exact = latency.get("exact")
    if exact and kind != "flat":
        rows.append(["exact search", *_setting(exact | {"recall@10": 1.0})])
        drawn.append((exact["ms_per_query"], 1.0, "exact", "exact"))
    chart = (
        f"<figure><figcaption>Recall@10 against milliseconds per query, by "
        f"<code>{escape(recall.get('knob') or 'kind')}</code></figcaption>"
        f"{svg.tradeoff(drawn, ('ms per query', 'recall@10'))}</figure>"
        if len(drawn) > 1
        else ""
    )
    head = ["Setting", "Recall@10", "ms", "Size"]
    shown = table("One query at a time, on one thread", head, rows, "tnnn") if rows else ""
    intro = (
        f"<code>{escape(kind)}</code> over {wording.plural(spec.get('items'), 'item')}, measured "
        f"with {wording.plural(recall.get('queries'), 'user vector')} as queries "
        f"(from {escape(recall.get('queries_from', 'test'))}): recall counts what exact search "
        "would have found, by inner products recomputed from the raw vectors."
    )
    kept = _made(spec) + _promise(recall.get("promise"))
    return section("index", "The index", intro, f'<div class="pair">{chart}{shown}</div>{kept}')


def _made(spec: Mapping[str, Any]) -> str:
    """Of how many files it is, or what of it is another run's."""
    said = ""
    if shards := spec.get("shards"):
        sizes = [one["items"] for one in shards]
        said = (
            f"<p>In {wording.plural(len(shards), 'shard')} of {wording.count(min(sizes))} to "
            f"{wording.count(max(sizes))} items, all searched for each query.</p>"
        )
    if living := spec.get("living"):
        named = ("kept", "changed", "removed", "new", "in_base", "in_delta")
        kept, changed, removed, new, base, delta = (wording.count(living[name]) for name in named)
        said += (
            "<p>Carried over from an earlier run: of "
            f"{wording.plural(living['indexed_before'], 'item')} {kept} kept, {changed} with "
            f"another vector, {removed} gone; {new} new. {base} are in the base beside "
            f"{wording.plural(living['tombstones'], 'tombstone')}, {delta} in the delta. "
            f"Recall@10 was {figure(living['recall_when_built'])} when it was built.</p>"
        )
    return said


def _promise(promise: Mapping[str, Any] | None) -> str:
    """What the index was asked to keep, how sure it is, and what else was measured."""
    if not promise:
        return ""
    asked = [
        f"recall@10 {promise['recall_at_10']:g}" if promise["recall_at_10"] else "",
        f"at most {wording.size(promise['max_bytes'])}" if promise["max_bytes"] else "",
        f"at most {promise['max_latency_ms']:g} ms a query" if promise["max_latency_ms"] else "",
    ]
    verified = promise["verified"]
    said = (
        f"<p>Promised: {escape(', '.join(filter(None, asked)))}. Found with "
        f"{wording.plural(verified['queries'], 'user vector')} that tuning did not see: "
        f"recall@10 {figure(verified['mean'])}, with 95 % confidence at least "
        f"{figure(verified['low'])}.</p>"
    )
    rows = [
        [
            escape(one["kind"]),
            escape(" ".join(f"{k}={v}" for k, v in one["parameters"].items())),
            figure(one["recall@10"]),
            figure(one["counted_us"], 1),
            wording.size(one["bytes"]),
        ]
        for one in promise["frontier"]
    ]
    head = ["Kind", "Parameters", "Recall@10", "Counted µs", "Size"]
    return said + table("Measured while tuning, nothing of it worse in all", head, rows, "ttnnn")


def _setting(point: Mapping[str, Any]) -> list[str]:
    return [
        figure(point.get("recall@10")),
        figure(point.get("ms_per_query"), 3),
        wording.size(point.get("bytes")),
    ]
