"""How much each event counts in the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.train_events import Events, mean_over_partitions
from embedmill.pipeline.train.plan import Layout

__all__ = ["SampleWeights", "normalized_weights"]


@dataclass(frozen=True)
class SampleWeights:
    """An event's sample weight is its weight in the log to `power`, over `mean`.

    An event of weight 0 or less has sample weight 0, whatever the power. `power` None: every
    event has sample weight 1, whatever its weight. `wide`: powers are beyond float32, and are
    computed in float64.
    """

    power: float | None = None
    mean: float = 1.0
    wide: bool = False

    def of(self, weight_B: Tensor) -> Tensor:
        """Sample weights of events by their weights, float32 [B]."""
        if self.power is None:
            return torch.ones_like(weight_B)
        return (self.powers(weight_B) / self.mean).float()

    def powers(self, weight_B: Tensor) -> Tensor:
        """Weights to the power, 0 for those of 0 or less, [B]."""
        weight_B = weight_B.double() if self.wide else weight_B
        return torch.where(weight_B > 0, weight_B.clamp(min=0) ** (self.power or 0.0), 0.0)


def normalized_weights(events: Events, power: float, layout: Layout, group: Group) -> SampleWeights:
    """Sample weights with mean 1 over the events of all workers; a collective.

    Args:
        events: of the owned partitions.
        power: of an event's weight.
        layout: which partitions this worker owns.
        group: the workers.
    """
    for wide in (False, True):
        powers = SampleWeights(power, wide=wide)
        mean = mean_over_partitions(
            (powers.powers(partition.weight_E) for partition in events.partitions()),
            layout,
            group,
        )
        if 0 < mean < math.inf:
            return SampleWeights(power, mean, wide=wide)
    return SampleWeights(power)  # no event counts: all sample weights are 0
