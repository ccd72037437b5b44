"""Objective `auto`: trials on the validation part choose an objective and its settings."""

from __future__ import annotations

from embedmill.pipeline.train.trials.grid import largest
from embedmill.pipeline.train.trials.run_trials import choose_settings

__all__ = ["choose_settings", "largest"]
