"""Implicit alternating least squares (iALS): rows are solved for, one side at a time."""

from __future__ import annotations

from embedmill.pipeline.train.als.sweep import Sweep, SweepPlan, prepared

__all__ = ["Sweep", "SweepPlan", "prepared"]
