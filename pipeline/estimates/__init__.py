"""What all stages of a run will take: time, memory, disk and money, here or on a cluster."""

from __future__ import annotations

from embedmill.pipeline.estimates.line_estimate import LineEstimate, StageEstimate, estimate_line
from embedmill.pipeline.estimates.line_sizes import GivenLine, LineSizes
from embedmill.pipeline.estimates.machines import Machines

__all__ = [
    "GivenLine",
    "LineEstimate",
    "LineSizes",
    "Machines",
    "StageEstimate",
    "estimate_line",
]
