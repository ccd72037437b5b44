"""The last stage: reads every artifact, writes `data.json` and `index.html`."""

from __future__ import annotations

import numpy as np

from embedmill.pipeline.log import Progress
from embedmill.pipeline.report import page
from embedmill.pipeline.report.collect.report_data import collect_run
from embedmill.pipeline.report.collect.timings import collect_timings
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run
from embedmill.schemas.report import DATA, PAGE

__all__ = ["build"]

_PARTS = 4


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Write the report of a run whose other stages have finished.

    `data.json` holds everything on the page that depends on the log and the config alone;
    `index.html` is the page, with times and versions, hence volatile.

    Args:
        run: the run; all stages before `report` must have finished.
        out: writer of the `report` artifact.
        progress: updated after each of four parts.

    Raises:
        MissingArtifactError: a stage has not finished.
        CorruptArtifactError: a file differs from its manifest.
    """

    def update(done: int) -> None:
        progress.update(done, _PARTS, "parts of the page")

    data = collect_run(run, update)
    out.write_json(DATA, data)
    html = page.render_report(data, collect_timings(run), run.config.report.labels)
    out.write(PAGE, html.encode(), volatile=True)
    update(_PARTS)
    counters = {
        "items_on_map": len(data.map.points),
        "neighbours_of": len(data.neighbours.items),
        "not_found": len(data.neighbours.not_found),
    }
    out.commit(counters, software={"numpy": np.__version__})
