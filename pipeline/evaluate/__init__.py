"""Metrics on test, by exact search and through the index, and the gates."""

from embedmill.pipeline.evaluate.gates import check_gates, judge, metric_names
from embedmill.pipeline.evaluate.stage import Recommender, build

__all__ = ["Recommender", "build", "check_gates", "judge", "metric_names"]
