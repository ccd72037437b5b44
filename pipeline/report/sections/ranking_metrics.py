"""Ranking metrics at every k: the model, popularity, and the model through the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    ("coverage", "Coverage", "share of all items that are recommended to at least one user"),
)
_ERRORS = ("rmse", "mae")


@dataclass(frozen=True)
class _Row:
    """A metric at one k; `whole` is the longest bar's value, the same for all k of a metric."""

    name: str
    model: float | None
    popularity: float | None
    through_index: float | None
    whole: float


def section(data: ReportData) -> Section:
    """Errors of predicted ratings where there are any, and the ranking metrics."""
    values, ks = data.metrics, data.ks
    return make_section(
        "metrics",
        "Metrics",
        "sections/ranking_metrics.html",
        measured=any(f"recall@{k}" in values for k in ks),
        errors=list(_errors(values)),
        rows=list(_rows(values, ks)),
        meanings=[(name, meaning) for _, name, meaning in _METRICS],
        users=values.get("users"),
        counters=counters.rows(data.counters["evaluate"].items()),
    )


def _rows(values: Mapping[str, float], ks: Sequence[int]) -> Iterator[_Row]:
    for stem, name, _ in _METRICS:
        keys = {k: f"{stem}@{k}" for k in ks}
        shown = [values.get(p + key) for key in keys.values() for p in ("", "popularity.")]
        whole = max((v for v in shown if v is not None), default=0.0)
        for k, key in keys.items():
            model, popularity = values.get(key), values.get(f"popularity.{key}")
            through_index = values.get(f"through_index.{key}")
            yield _Row(f"{name}@{k}", model, popularity, through_index, whole)


def _errors(values: Mapping[str, float]) -> Iterator[tuple[str, float, str]]:
    """(error, value, what it is of): each error of the model, then those of its baselines."""
    for name in _ERRORS:
        if name in values:
            yield name.upper(), values[name], ""
            for key in values:
                if key.startswith(f"{name}."):
                    yield "", values[key], key.partition(".")[2].replace("_", " ")
