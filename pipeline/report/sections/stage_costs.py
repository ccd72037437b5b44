"""The stages in order: what each made, how long it took and what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedmill.pipeline.report.formatting import count, plural
from embedmill.pipeline.report.templating import Section, make_section

__all__ = ["section"]


def section(data: Mapping[str, Any], timings: Mapping[str, Any]) -> Section:
    """A card per stage with a bar of its time, and a table of its costs."""
    stages = timings["stages"]
    return make_section(
        "stages",
        "Stages",
        "sections/stage_costs.html",
        stages=[stage | {"made": _made(data, stage["stage"])} for stage in stages],
        longest=max((stage["seconds"] for stage in stages), default=0) or 1,
        seconds=sum(stage["seconds"] for stage in stages),
        bytes=sum(stage["bytes"] for stage in stages),
    )


def _made(data: Mapping[str, Any], stage: str) -> str:
    """What a stage made, in a few words."""
    counters = data["counters"][stage]
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
            return f"{data['model'].get('dim', '?')} dimensions"
        case "index":
            kind = data["index"]["spec"].get("kind", "")
            return f"{kind}, {plural(counters.get('indexed'), 'item')}"
    return f"{count(data['metrics'].get('users'))} users"
