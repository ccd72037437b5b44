"""Negatives shared by the whole global batch, and how often each is to be expected.

Legend: K negatives, I items of the catalogue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.train.plan import generator

__all__ = ["NegativeSampler", "sampler"]


@dataclass(frozen=True)
class NegativeSampler:
    """Draws items with replacement, with probability in proportion to count ** power.

    `cumulative_I` holds the running sum of count ** power (None for uniform), `count_I` the
    train events of each item.
    """

    number: int
    seed: int
    power: float
    in_batch: bool
    count_I: Tensor
    cumulative_I: Tensor | None

    def draw(self, step: int) -> Tensor:
        """The negatives of a global step (counted over all epochs), int64 [number]."""
        source = generator(self.seed, "negatives", step)
        if self.cumulative_I is None:
            return torch.randint(len(self.count_I), (self.number,), generator=source)
        drawn_K = torch.rand(self.number, dtype=torch.float64, generator=source)
        rows_K = torch.searchsorted(self.cumulative_I, drawn_K * self.cumulative_I[-1], right=True)
        return rows_K.clamp_(max=len(self.count_I) - 1)

    def log_expected(self, rows_K: Tensor, batch: int) -> Tensor:
        """Logarithm of how often each item is expected among the negatives of one step.

        For `number` draws from p and, with in-batch negatives, `batch` events from the train
        distribution q, this is log(number * p + batch * q). Subtracted from the negatives'
        logits, it makes their sum of exponentials an unbiased estimate of that over the
        catalogue (Bengio and Senécal 2008; Yi et al., RecSys 2019; the mixture of the two
        sources is the balance heuristic of Veach and Guibas 1995).

        Returns:
            float32 [K].
        """
        count_K = self.count_I[rows_K]
        if self.cumulative_I is None:
            expected_K = torch.full_like(count_K, self.number / len(self.count_I))
        else:
            expected_K = self.number * count_K**self.power / self.cumulative_I[-1]
        if self.in_batch:
            expected_K = expected_K + batch * count_K / self.count_I.sum()
        return expected_K.clamp(min=math.ulp(0.0)).log().float()


def sampler(
    count_I: Tensor, *, number: int, power: float, in_batch: bool, seed: int
) -> NegativeSampler:
    """A sampler over the catalogue.

    Args:
        count_I: train events of each item, [I].
        number: draws a step.
        power: 0 for uniform, 1 by count.
        in_batch: whether the batch's items are negatives too.
        seed: the run's.
    """
    count_I = count_I.double()
    cumulative_I = (count_I**power).cumsum(0) if power > 0 else None
    return NegativeSampler(number, seed, power, in_batch, count_I, cumulative_I)
