"""Losses: functions of the distinct rows of a step that return a loss and its gradients."""

from __future__ import annotations

from embedmill.pipeline.train.losses.bpr import bpr
from embedmill.pipeline.train.losses.ccl import ccl
from embedmill.pipeline.train.losses.contract import LossSettings, Objective, Step, StepLoss
from embedmill.pipeline.train.losses.logistic import negative_sampling
from embedmill.pipeline.train.losses.rating import rating
from embedmill.pipeline.train.losses.softmax import sampled_softmax

__all__ = ["LOSSES", "LossSettings", "Objective", "Step", "StepLoss"]

LOSSES: dict[str, Objective] = {
    "softmax": Objective(sampled_softmax, ranking=True, negatives=True),
    "bpr": Objective(bpr, ranking=True, negatives=True),
    "ccl": Objective(ccl, ranking=True, negatives=True, biased=False, similarity="cosine"),
    "item2vec": Objective(
        negative_sampling, ranking=True, negatives=True, biased=False, pairs=True
    ),
    "item2vec-softmax": Objective(
        sampled_softmax, ranking=True, negatives=True, biased=False, pairs=True
    ),
    "rating": Objective(rating, ranking=False, negatives=False, biased=True, similarity="dot"),
}
