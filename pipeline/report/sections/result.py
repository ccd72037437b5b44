"""The result: tiles of the metrics that matter most, and the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedmill.pipeline.report.collect.timings import Timings
from embedmill.pipeline.report.formatting import decimal, metric_name, ratio, seconds
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.evaluate import GateResult
from embedmill.schemas.report import ReportData

__all__ = ["section"]


@dataclass(frozen=True)
class _Bar:
    """A metric beside popularity's, on a scale from 0 to `whole`."""

    value: float | None
    popularity: float | None
    whole: float


@dataclass(frozen=True)
class _Tile:
    label: str
    value: str
    detail: str
    bar: _Bar | None = None


def section(data: ReportData, timings: Timings) -> Section:
    """Tiles and gates; it has no name in the navigation."""
    metrics, k = data.metrics, data.ks[0]
    if "rmse" in metrics:
        tiles = [_error_tile(metrics, "rmse"), _error_tile(metrics, "mae")]
        tiles.append(_ranking_tile(metrics, f"recall@{k}"))
    else:
        tiles = [_ranking_tile(metrics, f"{name}@{k}") for name in ("recall", "ndcg")]
        index_recall = decimal(metrics.get("index.recall@10"), 3)
        tiles.append(_Tile("Index recall@10", index_recall, "of exact search’s results"))
    tiles.append(_Tile("Total time", seconds(timings.seconds), "from raw log to metrics"))
    gates = [(gate.passed, _gate(gate)) for gate in data.gates]
    return make_section("result", "", "sections/result.html", tiles=tiles, gates=gates)


def _ranking_tile(metrics: Mapping[str, float], name: str) -> _Tile:
    value, popularity = metrics.get(name), metrics.get(f"popularity.{name}")
    detail = f"{ratio(value, popularity)} popularity ({decimal(popularity, 3)})"
    return _Tile(
        f"{metric_name(name)} on test",
        decimal(value, 3),
        detail if popularity is not None else "not measured",
        _Bar(value, popularity, 1.15 * max(value or 0, popularity or 0)),
    )


def _error_tile(metrics: Mapping[str, float], name: str) -> _Tile:
    baseline = metrics.get(f"{name}.mean_baseline")
    detail = "lower is better"
    if baseline is not None:
        detail = f"predicting the mean rating: {decimal(baseline, 3)}"
    return _Tile(f"{name.upper()} on test", decimal(metrics.get(name), 3), detail)


def _gate(gate: GateResult) -> str:
    """What a gate demands and what was measured."""
    name, wanted, measured = metric_name(gate.metric), gate.wanted, gate.got
    if gate.gate == "over_popularity":
        shown = "no ratio" if measured is None else f"{measured:.2f}×"
        return f"{name} at least {wanted:g}× that of popularity: {shown}"
    bound = {"least": "at least", "most": "at most"}[gate.gate]
    shown = "not measured" if measured is None else decimal(measured)
    return f"{name} {bound} {wanted:g}: {shown}"
