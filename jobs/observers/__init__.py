"""Who is told of stages and results: lineage, metrics, spans, registries, commands, webhooks."""

from embedmill.jobs.observers.notices import notify
from embedmill.jobs.observers.observer import (
    Observer,
    RunEnd,
    StageEnd,
    StageFailure,
    is_observed,
)
from embedmill.jobs.observers.watch import OBSERVERS, ObserverKind, Observers

__all__ = [
    "OBSERVERS",
    "Observer",
    "ObserverKind",
    "Observers",
    "RunEnd",
    "StageEnd",
    "StageFailure",
    "is_observed",
    "notify",
]
