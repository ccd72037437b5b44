"""Forgotten ids are taken out of what was measured of them, and off the report's page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from embedmill.pipeline.forget.rewrite import Changed
from embedmill.pipeline.forget.spellings import names_one
from embedmill.pipeline.report.collect.report_data import collect_log
from embedmill.pipeline.report.collect.timings import collect_timings
from embedmill.pipeline.report.page import render_report
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.forgotten_ids import ForgottenIds
from embedmill.pipeline.store.parquet import parquet_bytes
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.report import Report
from embedmill.schemas.evaluate import DRIFT, USERS
from embedmill.schemas.report import DATA, PAGE
from embedmill.schemas.stages import STAGES

__all__ = ["erase_evaluate", "erase_report"]


def erase_evaluate(evaluate: Artifact, forgotten: ForgottenIds) -> Iterator[Changed]:
    """Metrics of single users without forgotten ones, and drift without forgotten items.

    Args:
        evaluate: the artifact. Its other metrics stay what they were measured to be.
        forgotten: forgotten ids.
    """
    for entry in evaluate.files(USERS.folder):
        table = evaluate.read_table(entry.path)
        bad_E = forgotten.mask("users", table["user"])
        if bad_E.any():
            left = table.filter(pa.array(~bad_E)).combine_chunks()
            yield Changed(entry.path, parquet_bytes(left), left.num_rows)
    if evaluate.has(DRIFT.path):
        drift = evaluate.read_json(DRIFT)
        names = forgotten.named("items", [one.id for one in drift.farthest])
        if names:
            farthest = tuple(one for one in drift.farthest if one.id not in names)
            now = drift.model_copy(update={"farthest": farthest})
            yield Changed(DRIFT.path, DRIFT.encode(now))


def erase_report(
    run: Run, report: Artifact, pattern: re.Pattern[bytes] | None
) -> Iterator[Changed]:
    """The page and its figures, with what they say of the log taken anew from the other stages.

    Args:
        run: whose other stages have been written anew.
        report: the artifact.
        pattern: matches text that names an id.
    """
    data = Report(report).data
    artifacts = {stage: run.artifact(stage) for stage in STAGES if stage != "report"}
    log = dict(collect_log(artifacts, run.config, data.title))
    now = data.model_copy(update=log)
    if now != data or names_one(pattern, report.read(PAGE)):
        yield Changed(DATA.path, DATA.encode(now))
        page = render_report(now, collect_timings(run), run.config.report.labels)
        yield Changed(PAGE, page.encode())
