"""The profile of a log before any training: its data stages as JSON, and a page about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from embedmill.pipeline.config import Config, to_toml
from embedmill.pipeline.report import page
from embedmill.pipeline.report.collect.report_data import collect_log
from embedmill.pipeline.report.formatting import plural
from embedmill.pipeline.report.sections import (
    events_by_day,
    events_per_id,
    id_overlap,
    row_counts,
    split_sizes,
)
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.events import too_many_rejects

__all__ = ["gather", "render"]


def gather(art: Mapping[str, Artifact], config: Config, lacking: Mapping[str, str]) -> Any:
    """The profile as JSON.

    Args:
        art: artifacts by stage: `events`, and `vocab` and `shards` as far as they could be built.
        config: of the run.
        lacking: by the names of stages that could not be built, the reason.
    """
    measured = art["events"].manifest.measured
    return {
        **collect_log(art, config),
        "title": config.run.name,
        **{name: int(measured.get(name, 0)) for name in ("files", "files_outside")},
        "notes": list(_notes(art["events"].counters, config, lacking)),
    }


def _notes(events: Mapping[str, int], config: Config, lacking: Mapping[str, str]) -> Iterator[str]:
    """Warnings, and what the profile lacks."""
    bad = too_many_rejects(events, config.events.max_rejects)
    if bad:
        yield f"{bad}: a run would stop at them."
    for stage, why in lacking.items():
        yield f"No figures for {stage}: {why}."
    if not config.events.time:
        yield "No figures by day: events.time names no column."


def render(data: Mapping[str, Any], art: Mapping[str, Artifact], config: Config) -> str:
    """The page as HTML.

    Args:
        data: what `gather` gives.
        art: the stages that it was gathered from.
        config: of the run.
    """
    log = data["log"]
    sections = [
        _notes_section(data["notes"]),
        row_counts.section(data),
        events_by_day.section(log),
        events_per_id.section(log),
        id_overlap.section(log),
        split_sizes.section(data),
    ]
    software: dict[str, str] = {}
    for artifact in art.values():
        software |= artifact.manifest.software
    provenance = {
        "software": dict(sorted(software.items())),
        "config": to_toml(config),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return page.document(data, _lede(data), sections, "profiled", provenance)


def _notes_section(notes: list[str]) -> Section | None:
    return make_section("notes", "", "sections/notes.html", notes=notes) if notes else None


def _lede(data: Mapping[str, Any]) -> str:
    events, log = data["counters"]["events"], data["log"]
    ids = [plural(log[side]["ids"], side[:-1]) for side in events_per_id.SIDES if side in log]
    whose = f"{' of ' * bool(ids)}{' and '.join(ids)}"
    outside = data["files_outside"]
    rest = f"; {plural(outside, 'file')} outside the requested days" if outside else ""
    where = f"in {plural(data['files'], 'file')}{rest}"
    return (
        "Profile of the log, before any training: "
        f"{plural(events['events'], 'event')}{whose} {where}."
    )
