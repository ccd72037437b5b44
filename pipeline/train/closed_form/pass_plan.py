"""The steps of an objective that goes over all events in each step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

__all__ = ["PassPlan"]


@dataclass(frozen=True)
class PassPlan:
    """An epoch of `passes` steps. `sizes` are train events by partition."""

    sizes: tuple[int, ...]
    passes: int

    @cached_property
    def events(self) -> int:
        """Train events."""
        return sum(self.sizes)

    @property
    def steps(self) -> int:
        """Global steps of an epoch."""
        return self.passes

    def batch_sizes(self, step: int) -> list[int]:
        """Events of each partition that are reported for the step: all of them in an epoch."""
        return [(step + 1) * size // self.steps - step * size // self.steps for size in self.sizes]
