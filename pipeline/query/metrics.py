"""Metrics of a finished run as one flat mapping."""

from __future__ import annotations

from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.evaluate import Evaluation
from embedmill.pipeline.views.train import Training
from embedmill.schemas.stages import STAGES

__all__ = ["metrics_of"]


def metrics_of(run: Run) -> dict[str, float | int | str]:
    """Metrics of `evaluate`, what training chose, figures of the index, seconds by stage: flat.

    "train.epochs" and "train.refit_epochs" count epochs. Where there is a validation part,
    "train.best_epoch" is the chosen epoch, and "valid.ndcg@10" and so on are its metrics there.
    "recall@10.low" and "recall@10.high" are the ends of a metric's 95 % interval, for those of the
    model that are means over users. "protocol" says how the metrics were measured,
    "sampled.protocol" and "fold_in.protocol" how those with that prefix were.
    """
    evaluation = Evaluation(run.artifact("evaluate"))
    metrics = evaluation.metrics
    flat: dict[str, float | int | str] = {**metrics, **_of_training(run)}
    for name, (low, high) in evaluation.intervals.items():
        if "." not in name:
            flat |= {f"{name}.low": low, f"{name}.high": high}
    flat |= {f"{one.prefix}protocol": one.name for one in evaluation.protocols}
    for stage in ("index", "evaluate"):
        for name, value in run.artifact(stage).manifest.measured.items():
            flat[f"{stage}.{name}"] = value
    seconds = {s: m.seconds for s in STAGES if (m := run.manifest(s)) is not None}
    flat |= {f"seconds.{stage}": value for stage, value in seconds.items()}
    flat["seconds.total"] = round(sum(seconds.values()), 3)
    return flat


def _of_training(run: Run) -> dict[str, float | int | str]:
    """The objective, the epochs, and the validation metrics of the best one."""
    training = Training(run.artifact("train"))
    model, history = training.model, training.history
    flat: dict[str, float | int | str] = {
        "train.objective": model.objective,
        "train.epochs": len(history),
        "train.refit_epochs": len(model.refit),
    }
    if not model.metric:
        return flat
    best = history[model.best_epoch - 1].metrics
    return {
        **flat,
        "train.best_epoch": model.best_epoch,
        **{f"valid.{name}": value for name, value in best.items()},
    }
