"""Negatives shared by the whole global batch, and how often each is expected in a step.

Legend: K negatives, I rows of items, M active ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.plan import generator

__all__ = ["NegativeSampler", "negative_sampler"]


@dataclass(frozen=True)
class NegativeSampler:
    """Draws items with replacement, with probability in proportion to count ** power.

    A step has `number` drawn items as negatives, and with them the items of `from_batch`
    events of its batch (of all, if it has fewer). `count_I` counts the train events of each
    item; `cumulative_I` is the running sum of count ** power, None for uniform draws.

    `inactive_I` flags the rows that are no candidates, such as retired items, and `active_M`
    lists all others; both are None where every row is a candidate. Only uniform draws need
    them: an inactive row has no events, so draws by count never return it.
    """

    number: int
    seed: int
    power: float
    from_batch: int
    count_I: Tensor
    cumulative_I: Tensor | None
    inactive_I: Tensor | None = None
    active_M: Tensor | None = None

    def draw(self, step: int) -> Tensor:
        """The drawn negatives of a global step, counted over all epochs; int64 [number]."""
        source = generator(self.seed, "negatives", step)
        if self.cumulative_I is None:
            if self.active_M is None:
                return torch.randint(len(self.count_I), (self.number,), generator=source)
            index_K = torch.randint(len(self.active_M), (self.number,), generator=source)
            return self.active_M[index_K]
        uniform_K = torch.rand(self.number, dtype=torch.float64, generator=source)
        target_K = uniform_K * self.cumulative_I[-1]
        rows_K = torch.searchsorted(self.cumulative_I, target_K, right=True)
        return rows_K.clamp_(max=len(self.count_I) - 1)

    @property
    def candidates(self) -> int:
        """Number of active items."""
        return len(self.count_I if self.active_M is None else self.active_M)

    def sample(self, number: int, source: torch.Generator) -> Tensor:
        """Distinct active items, drawn uniformly, ascending: at most `number`; int64 [K].

        All of them, where there are not more than `number`.
        """
        index_K = torch.arange(self.candidates)
        if len(index_K) > number:
            index_K = torch.unique(torch.randint(len(index_K), (number,), generator=source))
        return index_K if self.active_M is None else self.active_M[index_K]

    def batch_positions(self, step: int, batch: int) -> Tensor:
        """Which events of a global batch of `batch` give their items as negatives, ascending.

        They are drawn without replacement, each with the same probability.

        Returns:
            int64 [min(from_batch, batch)].
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
        two such sums, equals that of the full softmax up to a bias of the order of one over
        the number of negatives.

        Returns:
            float32 [K].
        """
        count_K = self.count_I[rows_K]
        if self.cumulative_I is None:
            expected_K = torch.full_like(count_K, self.number / self.candidates)
            if self.inactive_I is not None:
                expected_K[self.inactive_I[rows_K]] = 0
        else:
            expected_K = self.number * count_K**self.power / self.cumulative_I[-1]
        if self.from_batch:
            in_batch = min(self.from_batch, batch)
            expected_K = expected_K + in_batch * count_K / self.count_I.sum()
        return expected_K.clamp(min=math.ulp(0.0)).log().float()


def negative_sampler(
    count_I: Tensor,
    *,
    number: int,
    power: float,
    from_batch: int,
    seed: int,
    inactive: Tensor | None = None,
) -> NegativeSampler:
    """A sampler over all active items.

    Args:
        count_I: train events of each item, [I].
        number: items drawn for a step.
        power: of the counts: 0 for uniform draws, 1 for draws in proportion to the counts.
        from_batch: how many of a batch's events give their items as negatives.
        seed: the run's seed.
        inactive: rows that are no candidates, int64; None where all are candidates.
    """
    count_I = count_I.double()
    cumulative_I = (count_I**power).cumsum(0) if power > 0 else None
    inactive_I = active_M = None
    if inactive is not None:
        inactive_I = torch.zeros(len(count_I), dtype=torch.bool)
        inactive_I[inactive] = True
        active_M = (~inactive_I).nonzero()[:, 0]
    return NegativeSampler(
        number, seed, power, from_batch, count_I, cumulative_I, inactive_I, active_M
    )
