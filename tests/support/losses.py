"""Losses with settings that show all they do, and a step for them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from embedmill.pipeline.train.losses import LossInput, LossResult, LossSettings
from embedmill.pipeline.train.objectives import OBJECTIVES
from embedmill.pipeline.train.objectives.gradient_descent import GradientDescent

METHODS = {
    name: objective.method
    for name, objective in OBJECTIVES.items()
    if isinstance(objective.method, GradientDescent)
}
SETTINGS = {
    "softmax cosine": ("softmax", LossSettings(similarity="cosine", temperature=0.5)),
    "softmax dot": ("softmax", LossSettings(similarity="dot", temperature=2.0)),
    "softmax cosine bias": (
        "softmax",
        LossSettings(biased=True, similarity="cosine", temperature=0.5, l2=0.01),
    ),
    "softmax dot bias": ("softmax", LossSettings(biased=True, temperature=1.0, l2=0.1)),
    "bsl cosine": (
        "softmax",
        LossSettings(similarity="cosine", temperature=0.5, temperature_ratio=1.25, l2=0.01),
    ),
    "bsl dot bias": ("softmax", LossSettings(biased=True, temperature=2.0, temperature_ratio=0.75)),
    "psl relu": (
        "softmax",
        LossSettings(similarity="cosine", temperature=0.4, activation="relu", l2=0.01),
    ),
    "psl tanh": ("softmax", LossSettings(similarity="cosine", temperature=0.1, activation="tanh")),
    "psl atan": ("softmax", LossSettings(similarity="cosine", temperature=0.3, activation="atan")),
    "slatk dot bias": (
        "softmax",
        LossSettings(biased=True, temperature=2.0, threshold_temperature=0.5),
    ),
    "slatk bsl": (
        "softmax",
        LossSettings(
            similarity="cosine", temperature=0.5, temperature_ratio=1.25, threshold_temperature=0.1
        ),
    ),
    "slatk psl": (
        "softmax",
        LossSettings(
            similarity="cosine", temperature=0.4, activation="relu", threshold_temperature=0.3
        ),
    ),
    "bpr dot": ("bpr", LossSettings(temperature=2.0, l2=0.1)),
    "bpr cosine bias": ("bpr", LossSettings(biased=True, similarity="cosine", temperature=0.5)),
    "ccl": ("ccl", LossSettings(margin=-0.8, negative_weight=3.0, l2=0.1, similarity="cosine")),
    "item2vec dot": ("item2vec", LossSettings(temperature=2.0, per_pair=5.0, l2=0.1)),
    "item2vec cosine": (
        "item2vec",
        LossSettings(similarity="cosine", temperature=0.5, per_pair=2.0),
    ),
    "item2vec-softmax": ("item2vec-softmax", LossSettings(similarity="cosine", temperature=0.5)),
    "rating": ("rating", LossSettings(biased=True, mean=3.5, l2=0.1)),
    "rating biases apart": (
        "rating",
        LossSettings(biased=True, mean=3.5, l2=0.1, l2_bias=0.03),
    ),
    "rating biases alone": ("rating", LossSettings(biased=True, mean=3.5, l2_bias=0.3)),
}


def a_step(seed: int = 0, scale: float = 1.0) -> LossInput:
    """Three events of two users; negatives are items 2, 3, and item 0, a hit for some."""
    source = torch.Generator().manual_seed(seed)
    return LossInput(
        user_UD=torch.randn(2, 4, generator=source) * scale,
        item_VD=torch.randn(4, 4, generator=source) * scale,
        user_B=torch.tensor([0, 1, 1]),
        positive_B=torch.tensor([0, 1, 0]),
        negative_K=torch.tensor([2, 3, 0]),
        log_expected_K=torch.tensor([0.1, -0.2, 0.3]),
        weight_B=torch.tensor([1.0, 0.5, 2.0]),
        target_B=torch.tensor([4.0, 1.0, 5.0]),
        size=5,
        user_l2_U=torch.tensor([0.5, 0.25]),
        item_l2_V=torch.tensor([1.0, 0.75, 0.5, 2.0]),
        threshold_U=torch.tensor([0.2, -0.3]),
    )


def lost(case: str, step: LossInput) -> LossResult:
    name, settings = SETTINGS[case]
    return METHODS[name].loss(step, settings)


def settled(case: str, step: LossInput) -> tuple[str, LossInput, LossSettings]:
    """The objective, and the step and settings with weights of thresholds among the events' own.

    Those weights are constants of a step: its gradients are those of the loss with them as they
    are.
    """
    name, settings = SETTINGS[case]
    if settings.threshold_temperature is None:
        return name, step, settings
    end = step.user_UD.shape[1] - int(settings.biased)
    user_BD, item_BD = step.user_UD[step.user_B, :end], step.item_VD[step.positive_B, :end]
    if settings.similarity == "cosine":
        user_BD, item_BD = functional.normalize(user_BD), functional.normalize(item_BD)
    score_B = (user_BD * item_BD).sum(1)
    if settings.biased:
        score_B = score_B + step.item_VD[step.positive_B, end]
    assert step.threshold_U is not None
    above_B = (score_B - step.threshold_U[step.user_B]) / settings.threshold_temperature
    weighted = replace(step, weight_B=step.weight_B * torch.sigmoid(above_B))
    return name, weighted, replace(settings, threshold_temperature=None)
