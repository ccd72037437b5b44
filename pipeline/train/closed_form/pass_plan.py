"""The steps of an objective that goes over all events in each step."""

from __future__ import annotations

from dataclasses import dataclass

from embedmill.pipeline.train.plan import EvenPlan

__all__ = ["PassPlan"]


@dataclass(frozen=True)
class PassPlan(EvenPlan):
    """An epoch of `passes` steps; each goes over all events, and is reported for its share."""

    passes: int

    @property
    def steps(self) -> int:
        """Global steps of an epoch."""
        return self.passes
