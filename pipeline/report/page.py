"""The page: sections in order, one style sheet, one script, nothing from the network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from markupsafe import Markup

from embedmill.pipeline.report.collect.timings import Provenance, Timings
from embedmill.pipeline.report.sections import (
    bias_extremes,
    events_by_day,
    events_per_id,
    id_overlap,
    index_recall,
    item_map,
    moved_vectors,
    neighbours,
    objective_trials,
    ranking_quality,
    result,
    row_counts,
    slices,
    split_sizes,
    stage_costs,
    training_history,
)
from embedmill.pipeline.report.templating import Section, asset, render
from embedmill.schemas.report import LogData, ReportData

__all__ = ["document", "render_report"]


def render_report(data: ReportData, timings: Timings, labels: int) -> str:
    """The report of a run as HTML.

    Args:
        data: what `data.json` holds.
        timings: what depends on the machine.
        labels: items to label on the map.
    """
    sections = [
        result.section(data, timings),
        item_map.section(data, labels),
        neighbours.section(data),
        bias_extremes.section(data),
        ranking_quality.section(data),
        slices.section(data),
        moved_vectors.section(data),
        index_recall.section(data, timings),
        objective_trials.section(data),
        training_history.section(data, timings),
        stage_costs.section(data, timings),
        row_counts.section(data),
        events_by_day.section(data.log),
        events_per_id.section(data.log),
        id_overlap.section(data.log),
        split_sizes.section(data),
    ]
    return document(data, _lede(data, timings), sections, "evaluated", timings.provenance)


def document(
    data: LogData,
    lede: str,
    sections: Iterable[Section | None],
    done: str,
    provenance: Provenance,
) -> str:
    """A page on its own, with what made it at its foot; it fetches nothing.

    Args:
        data: has the title, the name of the run and the fingerprint of its config.
        lede: what stands below the heading; Markup, or text to be escaped.
        sections: in order; those that are None are left out.
        done: what was done with the run, before its date: "evaluated".
        provenance: what made the page.
    """
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = render(
        "page.html",
        name=data.title,
        lede=lede,
        sections=[section for section in sections if section is not None],
        style=asset("page.css"),
        script=script,
        script_hash=digest,
        run=data.run,
        fingerprint=data.fingerprint[:16],
        done=done,
        created=provenance.created,
        software=provenance.software,
        config=provenance.config,
    )
    return f"{page}\n"


def _lede(data: ReportData, timings: Timings) -> Markup:
    """The run in two or three sentences."""
    counters, metrics, k = data.counters, data.metrics, data.ks[0]
    return render(
        "lede.html",
        events=counters["events"].get("events"),
        users=counters["vocab"].get("users_live"),
        items=counters["vocab"].get("items_live"),
        dim=data.model.dim,
        seconds=timings.seconds,
        rmse=metrics.get("rmse"),
        recall=metrics.get(f"recall@{k}"),
        popularity=metrics.get(f"popularity.recall@{k}"),
        k=k,
        gates=len(data.gates),
        failed=sum(not gate.passed for gate in data.gates),
    )
