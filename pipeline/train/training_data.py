"""What steps and validation read, as a worker holds it in memory."""

from __future__ import annotations

from dataclasses import dataclass

from embedmill.pipeline.train.data.l2_scaling import L2Scaling
from embedmill.pipeline.train.data.negatives import NegativeSampler
from embedmill.pipeline.train.data.sample_weights import SampleWeights
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.plan import Plan
from embedmill.pipeline.train.validation import Validation

__all__ = ["TrainingData"]


@dataclass(frozen=True)
class TrainingData:
    """The examples of a worker and how steps use them.

    `events` are train events, or pairs of items as events of the center with the context.
    `taken` are those of them that the steps of an epoch take. `new` are those that the run which
    training starts from did not have, where the objective asks for them.
    """

    events: Events
    taken: Events
    new: Events | None
    plan: Plan
    sample_weights: SampleWeights
    l2_scaling: L2Scaling
    negatives: NegativeSampler
    validation: Validation
