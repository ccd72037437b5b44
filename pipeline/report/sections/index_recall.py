"""The index: recall against latency and bytes beside exact search, and how it was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from embedmill.pipeline.report.charts.line_charts import IndexPoint, recall_by_latency
from embedmill.pipeline.report.collect.timings import Timings
from embedmill.pipeline.report.formatting import size
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.index import IndexLatency, SearchCost, Target
from embedmill.schemas.report import ReportData

__all__ = ["section"]


@dataclass(frozen=True)
class _Setting:
    """A measured setting: its name in the table and in the chart, and what was measured."""

    name: str
    short_name: str
    cost: SearchCost
    recall: float
    role: str = ""  # as of IndexPoint
    in_use: bool = False


def section(data: ReportData, timings: Timings) -> Section:
    """Settings that were measured, in a chart and a table, and the parts of the index."""
    spec, recall = data.index.spec, data.index.recall
    settings = [] if timings.latency is None else list(_settings(spec.kind, timings.latency))
    points = [IndexPoint(s.cost.ms_per_query, s.recall, s.short_name, s.role) for s in settings]
    return make_section(
        "index",
        "Index",
        "sections/index_recall.html",
        spec=spec,
        recall=recall,
        settings=settings,
        chart=recall_by_latency(points) if len(points) > 1 else "",
        target=recall.target,
        limits="" if recall.target is None else ", ".join(_limits(recall.target)),
    )


def _settings(kind: str, latency: IndexLatency) -> Iterator[_Setting]:
    for point in latency.curve:
        name = f"{point.parameter} = {point.value}" if point.value else point.parameter or kind
        yield _Setting(
            name,
            short_name=str(point.value or point.parameter or kind),
            cost=point,
            recall=point.recall,
            role="best" if point.chosen else "",
            in_use=bool(point.chosen and point.value),
        )
    if kind != "flat":
        yield _Setting("exact search", "exact", latency.exact, 1.0, "exact")


def _limits(target: Target) -> Iterator[str]:
    """What the config demanded of the index."""
    if target.recall_at_10:
        yield f"recall@10 {target.recall_at_10:g}"
    if target.max_bytes:
        yield f"at most {size(target.max_bytes)}"
    if target.max_latency_ms:
        yield f"at most {target.max_latency_ms:g} ms a query"
