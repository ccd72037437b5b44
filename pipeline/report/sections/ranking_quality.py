"""Ranking metrics at every k: the model, popularity, and the model through the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from embedmill.pipeline.report.sections import counters
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import ReportData

__all__ = ["section"]

# Key, name and meaning.
_METRICS = (
    ("recall", "Recall", "share of a user’s held-out items among the first k"),
    ("ndcg", "NDCG", "like recall, with more credit for higher ranks"),
    ("mrr", "MRR", "one over the rank of the first held-out item"),
    ("hit_rate", "Hit rate", "share of users with at least one held-out item among the first k"),
    ("map", "MAP", "mean, over the held-out items, of the precision down to each that is found"),
    ("r_precision", "R-precision", "precision among as many results as there are held-out items"),
    ("coverage", "Coverage", "share of all items that are recommended to at least one user"),
    (
        "calibrated_coverage",
        "Calibrated coverage",
        "coverage over the most that so many recommendations could reach",
    ),
    (
        "gini",
        "Gini",
        "how unequally items are recommended: 0 all as often, near 1 only a few items",
    ),
    ("novelty", "Novelty", "mean of −log2 of a recommended item’s share of the train events"),
)
_ERRORS = ("rmse", "mae")


@dataclass(frozen=True)
class _Row:
    """A metric at one k.

    `half` is half of the model's 95 % interval, None where there is none. `whole` is the longest
    bar's value, the same for all k of a metric.
    """

    name: str
    model: float | None
    half: float | None
    popularity: float | None
    through_index: float | None
    whole: float


def section(data: ReportData) -> Section:
    """Errors of predicted ratings where there are any, and the ranking metrics."""
    values, ks = data.metrics, data.ks
    return make_section(
        "metrics",
        "Metrics",
        "sections/ranking_quality.html",
        measured=any(f"recall@{k}" in values for k in ks),
        errors=list(_errors(values)),
        rows=list(_rows(data)),
        meanings=[(name, meaning) for _, name, meaning in _METRICS],
        users=values.get("users"),
        protocols=data.protocols,
        sampled=list(_of_protocol(values, "sampled.")),
        folded_in=list(_of_protocol(values, "fold_in.")),
        counters=counters.rows(data.counters["evaluate"].items()),
    )


def _rows(data: ReportData) -> Iterator[_Row]:
    values, ks = data.metrics, data.ks
    for stem, name, _ in _METRICS:
        keys = {k: f"{stem}@{k}" for k in ks}
        shown = [values.get(p + key) for key in keys.values() for p in ("", "popularity.")]
        if all(value is None for value in shown):
            continue  # an older version of this program did not measure it
        whole = max((v for v in shown if v is not None), default=0.0)
        for k, key in keys.items():
            model, popularity = values.get(key), values.get(f"popularity.{key}")
            through_index = values.get(f"through_index.{key}")
            ends = data.intervals.get(key)
            half = (ends[1] - ends[0]) / 2 if ends else None
            yield _Row(f"{name}@{k}", model, half, popularity, through_index, whole)


def _of_protocol(
    values: Mapping[str, float], prefix: str
) -> Iterator[tuple[str, float, float | None]]:
    """(metric, of the model, of popularity) under another protocol than the whole catalogue's."""
    for key, value in values.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and "@" in name and "." not in name:
            yield name, value, values.get(f"{prefix}popularity.{name}")


def _errors(values: Mapping[str, float]) -> Iterator[tuple[str, float, str]]:
    """(error, value, what it is of): each error of the model, then those of its baselines."""
    for name in _ERRORS:
        if name in values:
            yield name.upper(), values[name], ""
            for key in values:
                if key.startswith(f"{name}."):
                    yield "", values[key], key.partition(".")[2].replace("_", " ")
