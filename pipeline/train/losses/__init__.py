"""Losses: functions of the distinct rows of a step that return a loss and its gradients."""

from __future__ import annotations

from embedmill.pipeline.train.losses.bpr import bpr
from embedmill.pipeline.train.losses.ccl import ccl
from embedmill.pipeline.train.losses.loss import Loss, LossInput, LossResult, LossSettings
from embedmill.pipeline.train.losses.negative_sampling import negative_sampling
from embedmill.pipeline.train.losses.rating import rating
from embedmill.pipeline.train.losses.softmax import sampled_softmax

__all__ = [
    "Loss",
    "LossInput",
    "LossResult",
    "LossSettings",
    "bpr",
    "ccl",
    "negative_sampling",
    "rating",
    "sampled_softmax",
]
