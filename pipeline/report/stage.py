"""The last stage: reads every artifact, writes `data.json` and `index.html`."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedmill.pipeline.log import Progress
from embedmill.pipeline.report import page
from embedmill.pipeline.report.collect import items, projection, report_data
from embedmill.pipeline.store.artifact import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["build"]

_STEPS = ("figures", "items", "map", "page")


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write the report of a run whose other stages have finished.

    `data.json` holds everything on the page that depends on the log and the config alone;
    `index.html` is the page, with times and versions, hence volatile.

    Args:
        run: the run; all stages before `report` must have finished.
        out: writer of the `report` artifact.
        progress: told of each of four steps.

    Raises:
        MissingArtifactError: a stage has not finished.
        CorruptArtifactError: a file differs from its manifest.
    """
    data: dict[str, Any] = report_data.gather(run)
    _step(progress, 1)
    catalogue = items.open_catalogue(run)
    data["neighbours"] = items.neighbours(catalogue, run.config.report.neighbours_of)
    data["bias"] = items.extremes(catalogue)
    _step(progress, 2)
    data["map"] = projection.project(catalogue, run.config.report.map_items)
    _step(progress, 3)
    out.write_json("data.json", data)
    html = page.render_report(data, report_data.times(run), run.config.report.labels)
    out.write("index.html", html.encode(), volatile=True)
    _step(progress, 4)
    counters = {
        "items_on_map": len(data["map"]["points"]),
        "neighbours_of": len(data["neighbours"]["of"]),
        "not_found": len(data["neighbours"]["not_found"]),
    }
    out.commit(counters, software={"numpy": np.__version__})


def _step(progress: Progress, done: int) -> None:
    progress.update(done, len(_STEPS), "parts of the page")
