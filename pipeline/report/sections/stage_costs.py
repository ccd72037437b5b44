"""The stages in order: what each made, how long it took and what it wrote."""

from __future__ import annotations

from embedmill.pipeline.report.collect.timings import Timings
from embedmill.pipeline.report.formatting import count, plural
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import ReportData

__all__ = ["section"]


def section(data: ReportData, timings: Timings) -> Section:
    """A card per stage with a bar of its time, and a table of its costs."""
    stages = timings.stages
    return make_section(
        "stages",
        "Stages",
        "sections/stage_costs.html",
        stages=[(stage, _made(data, stage.stage)) for stage in stages],
        longest=max((stage.seconds for stage in stages), default=0) or 1,
        seconds=timings.seconds,
        bytes=sum(stage.bytes for stage in stages),
    )


def _made(data: ReportData, stage: str) -> str:
    """What a stage made, in a few words."""
    counters = data.counters[stage]
    match stage:
        case "events":
            return f"{count(counters.get('events'))} events"
        case "vocab":
            users, items = counters.get("users_live"), counters.get("items_live")
            return f"{plural(users, 'user')}, {plural(items, 'item')}"
        case "shards":
            return f"{count(counters.get('train'))} train events"
        case "train":
            return f"{count(counters.get('epochs'))} epochs"
        case "export":
            return f"{data.model.dim} dimensions"
        case "index":
            return f"{data.index.spec.kind}, {plural(counters.get('indexed'), 'item')}"
    return f"{count(data.metrics.get('users'))} users"
