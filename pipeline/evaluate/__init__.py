"""Exact and through the index, on test; gates."""

from embedmill.pipeline.evaluate.gates import check_gates, judge, metric_names
from embedmill.pipeline.evaluate.stage import Recommender, build

__all__ = ["Recommender", "build", "check_gates", "judge", "metric_names"]
