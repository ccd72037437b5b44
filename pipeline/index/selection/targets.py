"""What an index has to meet: target recall, size and latency."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.schemas.index import Target

__all__ = ["DEFAULT_RECALL", "Targets"]

# Recall to tune to where the config names none: more costs much and shows little.
DEFAULT_RECALL = 0.99


@dataclass(frozen=True)
class Targets:
    """Least recall@10, most bytes, most milliseconds of a query on one thread; 0: no target."""

    recall: float = 0.0
    bytes: int = 0
    milliseconds: float = 0.0

    @staticmethod
    def of(config: IndexConfig) -> Targets:
        """Those of the config; a recall of 0.99 where it has none at all."""
        recall, size, milliseconds = config.recall_at_10, config.max_bytes, config.max_latency_ms
        if recall is None and size is None and milliseconds is None:
            recall = DEFAULT_RECALL
        return Targets(recall or 0.0, size or 0, milliseconds or 0.0)

    @property
    def tuning_recall(self) -> float:
        """Recall to tune to; above it, only the cost counts."""
        return self.recall or DEFAULT_RECALL

    @property
    def max_cost_us(self) -> float:
        """Most microseconds of a search, counted; infinity where there is no latency target."""
        return 1000 * self.milliseconds - cost.CALL_US if self.milliseconds else math.inf

    def __str__(self) -> str:
        parts = (
            (self.recall, f"recall@10 {self.recall:g}"),
            (self.bytes, f"{self.bytes:,} bytes"),
            (self.milliseconds, f"{self.milliseconds:g} ms a query"),
        )
        return ", ".join(text for value, text in parts if value)

    def stored(self) -> Target:
        """As stored in the artifact; null where there is no target."""
        return Target(
            recall_at_10=self.recall or None,
            max_bytes=self.bytes or None,
            max_latency_ms=self.milliseconds or None,
        )
