"""Objective `auto`: trials on the validation part choose an objective and its settings."""

from __future__ import annotations

from embedmill.pipeline.train.trials.grid import largest
from embedmill.pipeline.train.trials.run_trials import candidate_of, choose_settings
from embedmill.pipeline.train.trials.timed_search import Tuned, tune_settings

__all__ = ["Tuned", "candidate_of", "choose_settings", "largest", "tune_settings"]
