"""Loss and validation metrics by epoch, and where the time of training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from embedmill.pipeline.report.charts.line_charts import by_epoch
from embedmill.pipeline.report.collect.timings import Timings, TrainingTime
from embedmill.pipeline.report.formatting import count, plural
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import ReportData

__all__ = ["section"]

_NOT_METRICS = ("epoch", "train_loss", "learning_rate")
_CURVES = 2  # of validation metrics, at most
_PARTS = {
    "wait": "data of a step, and what training begins with: events, singular vectors",
    "lookup": "reading rows of the tables",
    "exchange": "communication between workers, and waiting for slower ones",
    "loss": "the loss and its gradients",
    "update": "the optimizer’s update of the tables",
    "checkpoint": "copying tables, and waiting until files are written",
    "validate": "metrics over all items, after an epoch",
    "other": "everything else, such as reading the shards",
}

Epochs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Curve:
    """A chart over epochs; `decides` where its metric chose the epoch."""

    title: str
    decides: bool
    chart: Markup


def section(data: ReportData, timings: Timings) -> Section:
    """Curves with the kept epoch marked, shares of time, and the numbers of every epoch."""
    history: Epochs = [epoch.as_json() for epoch in data.history]
    metric, best = data.model.metric, data.model.best_epoch
    names = _metrics(history, metric)
    return make_section(
        "training",
        "Training",
        "sections/training_history.html",
        history=history,
        metrics=["train_loss", *names, "learning_rate"],
        validated=bool(names),
        metric=metric,
        best=best,
        curves=_curves(history, names, metric, best),
        time=timings.training and _time(timings.training),
        parts=_PARTS,
    )


def _metrics(history: Epochs, metric: str) -> list[str]:
    """Validation metrics: the deciding one first, then recall, then the others."""
    names = [
        key
        for key in dict.fromkeys(k for row in history for k in row)
        if key not in _NOT_METRICS
        and not key.endswith(".users")
        and any(isinstance(row.get(key), int | float) for row in history)
    ]
    return sorted(names, key=lambda name: (name != metric, not name.startswith("recall@")))


def _curves(history: Epochs, names: Sequence[str], metric: str, best: int) -> list[_Curve]:
    curves = []
    for name in ["train_loss", *names[:_CURVES]]:
        points = [
            (float(row["epoch"]), float(row[name]))
            for row in history
            if isinstance(row.get(name), int | float)
        ]
        if points:
            title = "Training loss" if name == "train_loss" else f"Validation {name}"
            decides = name == metric
            kept_label = f"epoch {best}, kept" if decides else ""
            curves.append(_Curve(title, decides, by_epoch(title, points, best, kept_label)))
    return curves


def _time(training: TrainingTime) -> dict[str, Any]:
    """Seconds by part of training, with the caption of their table."""
    workers = list(dict.fromkeys(training.workers))
    caption = ", then ".join(plural(number, "worker") for number in workers)
    caption += "; means over workers" if workers != [1] else ""
    rate = count(round(training.pairs / training.seconds)) if training.seconds else "no"
    return {
        "seconds": training.parts,
        "total": sum(training.parts.values()),
        "longest": max(training.parts.values()),
        "caption": f"Training time by part ({caption}), {rate} pairs per second",
    }
