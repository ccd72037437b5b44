"""Metrics of a finished run as one flat mapping."""

from __future__ import annotations

from embedmill.pipeline.store.run import Run
from embedmill.schemas.evaluate import METRICS
from embedmill.schemas.stages import STAGES

__all__ = ["metrics_of"]


def metrics_of(run: Run) -> dict[str, float | int | str]:
    """Metrics of `evaluate`, figures of the index, seconds by stage: flat."""
    metrics = run.artifact("evaluate").read_json(METRICS)
    flat: dict[str, float | int | str] = {**metrics}
    for stage in ("index", "evaluate"):
        for name, value in run.artifact(stage).manifest.measured.items():
            flat[f"{stage}.{name}"] = value
    seconds = {s: m.seconds for s in STAGES if (m := run.manifest(s)) is not None}
    flat |= {f"seconds.{stage}": value for stage, value in seconds.items()}
    flat["seconds.total"] = round(sum(seconds.values()), 3)
    return flat
