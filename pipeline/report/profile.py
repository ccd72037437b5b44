"""The profile of a log before any training: its data stages as JSON, and a page about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from embedmill.pipeline.config import Config
from embedmill.pipeline.report import page
from embedmill.pipeline.report.collect.log_warnings import log_warnings
from embedmill.pipeline.report.collect.report_data import collect_log
from embedmill.pipeline.report.collect.timings import provenance
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
from embedmill.schemas.report import LogData

__all__ = ["ProfileData", "gather", "render"]


class ProfileData(LogData):
    """The figures of a profile.

    `files` were read, `files_outside` are of days that were not asked for; `notes` are warnings
    and what the profile lacks, in words.
    """

    files: int
    files_outside: int
    notes: list[str]


def gather(art: Mapping[str, Artifact], config: Config, lacking: Mapping[str, str]) -> ProfileData:
    """The figures of the profile.

    Args:
        art: artifacts by stage: `events`, and `vocab` and `shards` as far as they could be built.
        config: of the run.
        lacking: by the names of stages that could not be built, the reason.
    """
    measured = art["events"].manifest.measured
    figures = collect_log(art, config, config.run.name)
    return ProfileData(
        **dict(figures),
        files=int(measured.get("files", 0)),
        files_outside=int(measured.get("files_outside", 0)),
        notes=[
            *_notes(art["events"].counters, config, lacking),
            *log_warnings(art, figures.rejects, config.events),
        ],
    )


def _notes(events: Mapping[str, int], config: Config, lacking: Mapping[str, str]) -> Iterator[str]:
    """Warnings, and what the profile lacks."""
    bad = too_many_rejects(events, config.events.max_rejects)
    if bad:
        yield f"{bad}: a run would stop at them."
    if events.get("nonpositive"):
        yield (
            f"{events['nonpositive']:,} events of zero or negative weight are dropped, as they are "
            "no positives; events.signals.nonpositive = 'keep' would keep them."
        )
    if events.get("day_numbers"):
        yield (
            f"{events['day_numbers']:,} times such as 20260131 are read as seconds since 1970, in "
            "August 1970; if they are days, set events.time_unit = 'auto' or 'pattern' and "
            'events.time_patterns = ["%Y%m%d"].'
        )
    for stage, why in lacking.items():
        yield f"No figures for {stage}: {why}."
    if not config.events.time:
        yield "No figures by day: events.time names no column."


def render(data: ProfileData, art: Mapping[str, Artifact], config: Config) -> str:
    """The page as HTML.

    Args:
        data: what `gather` gives.
        art: the stages that it was gathered from.
        config: of the run.
    """
    log = data.log
    sections = [
        _notes_section(data.notes),
        row_counts.section(data),
        events_by_day.section(log),
        events_per_id.section(log),
        id_overlap.section(log),
        split_sizes.section(data),
    ]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = provenance(art.values(), config, now)
    return page.document(data, _lede(data), sections, "profiled", made)


def _notes_section(notes: list[str]) -> Section | None:
    return make_section("notes", "", "sections/notes.html", notes=notes) if notes else None


def _lede(data: ProfileData) -> str:
    events, sides = data.counters["events"], events_per_id.by_side(data.log)
    ids = [plural(one.ids, side[:-1]) for side, one in sides.items()]
    whose = f"{' of ' * bool(ids)}{' and '.join(ids)}"
    outside = data.files_outside
    rest = f"; {plural(outside, 'file')} outside the requested days" if outside else ""
    where = f"in {plural(data.files, 'file')}{rest}"
    return (
        "Profile of the log, before any training: "
        f"{plural(events['events'], 'event')}{whose} {where}."
    )
