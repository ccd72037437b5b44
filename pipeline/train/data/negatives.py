"""Negatives shared by the whole global batch, and how often each is to be expected.

Legend: K negatives, I rows of items, M of them in the catalogue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.plan import generator

__all__ = ["NegativeSampler", "sampler"]


@dataclass(frozen=True)
class NegativeSampler:
    """Draws items with replacement, with probability in proportion to count ** power.

    `number` are drawn so; beside them come the items of `from_batch` events of the batch (of
    all of them, where it has no more). `cumulative_I` holds the running sum of count ** power
    (None for uniform), `count_I` the train events of each item. `barred_I` says which items are
    no part of the catalogue (None: all are), `open_M` holds the others: uniform draws are of
    these, and draws by count find no events of a retired one.
    """

    number: int
    seed: int
    power: float
    from_batch: int
    count_I: Tensor
    cumulative_I: Tensor | None
    barred_I: Tensor | None = None
    open_M: Tensor | None = None

    def draw(self, step: int) -> Tensor:
        """The negatives of a global step (counted over all epochs), int64 [number]."""
        source = generator(self.seed, "negatives", step)
        if self.cumulative_I is None:
            if self.open_M is None:
                return torch.randint(len(self.count_I), (self.number,), generator=source)
            return self.open_M[torch.randint(len(self.open_M), (self.number,), generator=source)]
        drawn_K = torch.rand(self.number, dtype=torch.float64, generator=source)
        rows_K = torch.searchsorted(self.cumulative_I, drawn_K * self.cumulative_I[-1], right=True)
        return rows_K.clamp_(max=len(self.count_I) - 1)

    def places(self, step: int, batch: int) -> Tensor:
        """Which of a global batch's events give their items too, rising, int64 [<= from_batch].

        They are chosen by lot, without replacement: each as likely as the others.
        """
        if self.from_batch >= batch:
            return torch.arange(batch)
        source = generator(self.seed, "in-batch", step)
        return torch.randperm(batch, generator=source)[: self.from_batch].sort().values

    def log_expected(self, rows_K: Tensor, batch: int) -> Tensor:
        """Logarithm of how often each item is expected among the negatives of one step.

        For `number` draws from p and n of the `batch` events, which come from the train
        distribution q, this is log(number * p + n * q). Subtracted from the negatives'
        logits, it makes their sum of exponentials an unbiased estimate of that over the
        catalogue (Bengio and Senécal 2008; Yi et al., RecSys 2019; the mixture of the two
        sources is the balance heuristic of Veach and Guibas 1995). The gradient, a ratio of
        two such sums, comes to that of the full softmax but for a bias of the order of one
        over the number of negatives.

        Returns:
            float32 [K].
        """
        count_K = self.count_I[rows_K]
        if self.cumulative_I is None:
            size = len(self.count_I if self.open_M is None else self.open_M)
            expected_K = torch.full_like(count_K, self.number / size)
            if self.barred_I is not None:
                expected_K[self.barred_I[rows_K]] = 0
        else:
            expected_K = self.number * count_K**self.power / self.cumulative_I[-1]
        if self.from_batch:
            shown = min(self.from_batch, batch)
            expected_K = expected_K + shown * count_K / self.count_I.sum()
        return expected_K.clamp(min=math.ulp(0.0)).log().float()


def sampler(
    count_I: Tensor,
    *,
    number: int,
    power: float,
    from_batch: int,
    seed: int,
    barred: Tensor | None = None,
) -> NegativeSampler:
    """A sampler over the catalogue.

    Args:
        count_I: train events of each item, [I].
        number: draws a step.
        power: 0 for uniform, 1 by count.
        from_batch: how many of the batch's events give their items too.
        seed: the run's.
        barred: rows that are no part of the catalogue, int64; None for none.
    """
    count_I = count_I.double()
    cumulative_I = (count_I**power).cumsum(0) if power > 0 else None
    flags_I = None
    if barred is not None:
        flags_I = torch.zeros(len(count_I), dtype=torch.bool)
        flags_I[barred] = True
    open_M = None if flags_I is None else (~flags_I).nonzero()[:, 0]
    return NegativeSampler(number, seed, power, from_batch, count_I, cumulative_I, flags_I, open_M)
