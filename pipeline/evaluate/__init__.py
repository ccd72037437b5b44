"""Exact and through the index, on test; gates."""

from pipeline.evaluate.build import Recommender, build
from pipeline.evaluate.gates import check_gates, judge, metric_names

__all__ = ["Recommender", "build", "check_gates", "judge", "metric_names"]
