"""A look at a log before any training: the figures of the data stages, and a page of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from embedmill.pipeline.config import Config, to_toml
from embedmill.pipeline.report import activity, figures, intake, page, sections
from embedmill.pipeline.report.wording import escape, plural
from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.events import too_many_rejects

__all__ = ["gather", "render"]


def gather(art: Mapping[str, Artifact], config: Config, lacking: Mapping[str, str]) -> Any:
    """All figures as JSON.

    Args:
        art: `events`, and `vocab` and `shards` as far as they could be built.
        config: of the run.
        lacking: why a stage could not be built.
    """
    measured = art["events"].manifest.measured
    return {
        **figures.of_log(art, config),
        "title": config.run.name,
        **{name: int(measured.get(name, 0)) for name in ("files", "files_outside")},
        "notes": [*_limits(art["events"].counters, config), *_lacks(art, config, lacking)],
    }


def _limits(events: Mapping[str, int], config: Config) -> list[str]:
    """Whether a run would stop at the bad lines."""
    bad = too_many_rejects(events, config.events.max_rejects)
    return [f"{bad}: a run would stop at them."] if bad else []


def _lacks(art: Mapping[str, Artifact], config: Config, lacking: Mapping[str, str]) -> list[str]:
    said = [f"Nothing is told of {stage}: {why}." for stage, why in lacking.items()]
    if not config.events.time:
        said.append("Nothing is told of days: events.time names no column.")
    return said


def render(data: Mapping[str, Any], art: Mapping[str, Artifact], config: Config) -> str:
    """The page as HTML."""
    log = data["log"]
    notes = "".join(f'<p class="warn">{escape(note)}</p>' for note in data["notes"])
    body = (
        (f'<section id="notes" aria-label="Notes">{notes}</section>' if notes else "")
        + intake.ingested(data)
        + activity.activity(log)
        + activity.who(log)
        + activity.continued(log)
        + intake.splits(data)
    )
    software: dict[str, str] = {}
    for one in art.values():
        software |= one.manifest.software
    times = {
        "software": dict(sorted(software.items())),
        "config": to_toml(config),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    footer = sections.footer(data, times, "looked at")
    return page.document(data["title"], _lede(data), body, footer)


def _lede(data: Mapping[str, Any]) -> str:
    events, log = data["counters"]["events"], data["log"]
    ids = [plural(log[side]["ids"], side[:-1]) for side in activity.SIDES if side in log]
    said = f"{plural(events['events'], 'event')}{' of ' * bool(ids)}{' and '.join(ids)}"
    outside = data["files_outside"]
    rest = f"; {plural(outside, 'file')} outside the days asked for" if outside else ""
    where = f"in {plural(data['files'], 'file')}{rest}"
    return f"A look at the log, before any training: {said} {where}."
