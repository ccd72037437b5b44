"""What objective `auto` tried: a chart of quality against cost, and every trial."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from embedmill.pipeline.report.charts.trial_charts import TrialPoint, quality_by_cost
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import ReportData
from embedmill.schemas.train import Trial

__all__ = ["section"]


@dataclass(frozen=True)
class _Row:
    """A trial of the table: its number, what was tried, and its metric; None if it diverged."""

    number: int
    trial: Trial
    label: str
    value: float | None


def section(data: ReportData) -> Section | None:
    """The trials in their order; None where there were none."""
    search, metric = data.trials, data.model.metric
    if search is None or not search.trials:
        return None
    rows = [
        _Row(number, trial, _label(trial), trial.metrics.get(metric))
        for number, trial in enumerate(search.trials, 1)
    ]
    spent = list(accumulate(trial.cost for trial in search.trials))
    best = max((row.value for row in rows if row.value is not None), default=None)
    points = [
        TrialPoint(cost, row.value, row.label, row.value == best)
        for cost, row in zip(spent, rows, strict=True)
        if row.value is not None
    ]
    return make_section(
        "trials",
        "Trials",
        "sections/objective_trials.html",
        rows=rows,
        metric=metric,
        objective=search.chosen["objective"],
        dim=search.chosen["dim"],
        cost=spent[-1],
        chart=quality_by_cost(metric, points) if points else "",
    )


def _label(trial: Trial) -> str:
    settings = (f"{key} {value}" for key, value in trial.settings.items())
    return ", ".join([trial.objective, f"{trial.dim} dimensions", *settings])
