"""Implicit alternating least squares (iALS): one side is solved for while the other is fixed."""

from __future__ import annotations

from embedmill.pipeline.train.als.sweep import Sweep, SweepPlan, prepare_sweep

__all__ = ["Sweep", "SweepPlan", "prepare_sweep"]
