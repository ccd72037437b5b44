"""Events over time."""

from __future__ import annotations

from embedmill.pipeline.report.charts.event_charts import by_day
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import LogDistributions

__all__ = ["section", "span_name"]

_SPANS = {1: "day", 7: "week", 28: "4 weeks", 91: "quarter", 364: "year"}


def span_name(days: int) -> str:
    """What so many days are called: "week", "4 weeks", "40 days"."""
    return _SPANS.get(days, f"{days} days")


def section(log: LogDistributions) -> Section | None:
    """A chart of events by day, week or more; None where the log has no times."""
    days = log.days
    if days is None:
        return None
    span = span_name(days.span)
    return make_section(
        "activity",
        "Time",
        "sections/events_by_day.html",
        days=days,
        most_day=days.most[0],
        most_events=days.most[1],
        span=span,
        chart=by_day(days.bars, span),
    )
