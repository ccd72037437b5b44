"""The objectives by name: what each is trained on, by which method, and how it is validated."""

from __future__ import annotations

from embedmill.pipeline.train.als.spectral_start import set_spectral_factors
from embedmill.pipeline.train.graph.spectral import set_spectral
from embedmill.pipeline.train.losses import (
    bpr,
    ccl,
    negative_sampling,
    rating,
    sampled_softmax,
)
from embedmill.pipeline.train.objectives.closed_form_method import SpectralMethod
from embedmill.pipeline.train.objectives.example_sources import ITEM_PAIRS
from embedmill.pipeline.train.objectives.gradient_descent import GradientDescent
from embedmill.pipeline.train.objectives.least_squares import AlternatingLeastSquares
from embedmill.pipeline.train.objectives.objective import Objective
from embedmill.pipeline.train.objectives.prediction_tasks import RATINGS

__all__ = ["OBJECTIVES", "Objective"]

OBJECTIVES: dict[str, Objective] = {
    "softmax": Objective(
        GradientDescent(sampled_softmax), uses_graph=True, spectral_start=set_spectral
    ),
    "bpr": Objective(GradientDescent(bpr), uses_graph=True, spectral_start=set_spectral),
    "ccl": Objective(
        GradientDescent(ccl),
        bias=False,
        similarity="cosine",
        uses_graph=True,
        spectral_start=set_spectral,
    ),
    "item2vec": Objective(GradientDescent(negative_sampling), ITEM_PAIRS, bias=False),
    "item2vec-softmax": Objective(GradientDescent(sampled_softmax), ITEM_PAIRS, bias=False),
    "rating": Objective(
        GradientDescent(rating, negatives=False), task=RATINGS, bias=True, similarity="dot"
    ),
    "ials": Objective(
        AlternatingLeastSquares(), bias=False, similarity="dot", spectral_start=set_spectral_factors
    ),
    "spectral": Objective(SpectralMethod(), bias=False, similarity="dot"),
}
