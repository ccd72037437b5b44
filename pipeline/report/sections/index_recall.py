"""The index: recall against latency and bytes beside exact search, and how it was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.report.charts.line_charts import IndexPoint, recall_by_latency
from embedmill.pipeline.report.formatting import size
from embedmill.pipeline.report.templating import Section, make_section

__all__ = ["section"]


@dataclass(frozen=True)
class _Setting:
    """A measured setting: its name in the table and in the chart, and what was measured."""

    name: str
    short_name: str
    measured: Mapping[str, Any]
    role: str = ""  # as of IndexPoint
    in_use: bool = False


def section(data: Mapping[str, Any], timings: Mapping[str, Any]) -> Section:
    """Settings that were measured, in a chart and a table, and the parts of the index."""
    spec, recall, latency = data["index"]["spec"], data["index"]["recall"], timings["latency"]
    settings = list(_settings(str(spec.get("kind", "?")), latency))
    points = [
        IndexPoint(s.measured["ms_per_query"], s.measured["recall@10"], s.short_name, s.role)
        for s in settings
    ]
    target = recall.get("promise")
    return make_section(
        "index",
        "Index",
        "sections/index_recall.html",
        spec=spec,
        recall=recall,
        settings=settings,
        chart=recall_by_latency(points) if len(points) > 1 else "",
        target=target,
        limits=", ".join(_limits(target)) if target else "",
    )


def _settings(kind: str, latency: Mapping[str, Any]) -> Iterator[_Setting]:
    for point in latency.get("curve", []):
        parameter, value, chosen = point.get("parameter"), point.get("value"), point.get("chosen")
        name = f"{parameter} = {value}" if value else str(parameter or kind)
        role = "best" if chosen else ""
        short_name = str(value or parameter or kind)
        yield _Setting(name, short_name, point, role, bool(chosen and value))
    exact = latency.get("exact")
    if exact and kind != "flat":
        yield _Setting("exact search", "exact", exact | {"recall@10": 1.0}, "exact")


def _limits(target: Mapping[str, Any]) -> Iterator[str]:
    """What the config demanded of the index."""
    if target["recall_at_10"]:
        yield f"recall@10 {target['recall_at_10']:g}"
    if target["max_bytes"]:
        yield f"at most {size(target['max_bytes'])}"
    if target["max_latency_ms"]:
        yield f"at most {target['max_latency_ms']:g} ms a query"
