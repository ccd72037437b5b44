"""One global step: sample, look up, lose, exchange, update.

Legend: B events here, U distinct users, V distinct items, K negatives, D columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.data.batches import Epoch
from embedmill.pipeline.train.losses import Step
from embedmill.pipeline.train.tables.embedding import Route
from embedmill.pipeline.train.tables.optimizers import OPTIMIZERS, Update
from embedmill.pipeline.train.trainer import Trainer

__all__ = ["Steps"]

_AHEAD = 1 << 17  # events of all workers that are drawn together


class Steps:
    """The steps of an epoch, to be taken in order from any of them on.

    What a step asks for is known before it: rows, and where they are. It is drawn for several
    steps at once, so that workers wait for each other twice in a step and no more: for the rows
    and for their gradients.
    """

    def __init__(self, trainer: Trainer, order: Epoch) -> None:
        self._trainer = trainer
        self._order = order
        self._ahead: dict[int, Draw] = {}

    def take(self, step: int) -> float:
        """Take the step, changing both tables; returns the mean loss of the global batch.

        Raises:
            NotFiniteError: the loss or a gradient is not finite, at any worker. Tables are
                not what they were then.
        """
        if step not in self._ahead:
            with self._trainer.group.clock("lookup"):
                self._draw(step)
        return _take(self._trainer, step, self._ahead.pop(step))

    def _draw(self, first: int) -> None:
        trainer = self._trainer
        most = max(1, _AHEAD // trainer.config.batch_size)
        steps = range(first, min(first + most, trainer.plan.steps))
        wanted = [_wanted(trainer, step, self._order.batch(step)) for step in steps]
        routes = trainer.items.rows.routes([one.item_V for one in wanted])
        drawn = map(Draw, wanted, routes)
        self._ahead = dict(zip(steps, drawn, strict=True))


@dataclass(frozen=True)
class Wanted:
    """What a step works on, before any vector is read: `size` events of all workers.

    Distinct rows of items, and distinct users by where their rows stand; which of them are an
    event's user and item, and a negative; and the events' votes and weights.
    """

    size: int
    local_U: Tensor
    item_V: Tensor
    user_B: Tensor
    positive_B: Tensor
    negative_K: Tensor
    log_expected_K: Tensor
    vote_B: Tensor
    weight_B: Tensor


@dataclass(frozen=True)
class Draw:
    """A step's rows, and the way of those that come from other workers."""

    wanted: Wanted
    route: Route


def _take(trainer: Trainer, step: int, draw: Draw) -> float:
    """See `Steps.take`."""
    users, items, clock = trainer.users, trainer.items, trainer.group.clock
    assert trainer.objective.loss is not None  # such an objective has a sweep
    with clock("lookup"):
        part = _looked_up(trainer, draw)
    with clock("loss"):
        result = trainer.objective.loss(part, trainer.settings)
        # One number tells all workers of a NaN or infinity anywhere: it spreads through a sum.
        check = result.user_UD.sum().double() + result.item_VD.sum().double()
    # The sum is on its way while rows are updated; what is not finite is never stored.
    summed = trainer.group.summing(torch.stack([result.loss.double(), check]))
    count, rate = trainer.cursor.epoch * trainer.plan.steps + step + 1, trainer.rate(step)
    update = OPTIMIZERS[trainer.config.optimizer].update
    with clock("update"):
        local_G, item_GD = items.rows.push(draw.route, result.item_VD)
        for table, local, gradient in (
            (users, draw.wanted.local_U, result.user_UD),
            (items, local_G, item_GD),
        ):
            update(table.weight, table.state, table.columns, Update(local, gradient, rate, count))
    total, finite = summed().tolist()
    if not (math.isfinite(total) and math.isfinite(finite)):
        raise trainer.diverged(f"step {step + 1} of {trainer.plan.steps}")
    return float(total)


def _wanted(trainer: Trainer, step: int, batch_B: Tensor) -> Wanted:
    """The step's distinct rows: users from here, items from anywhere."""
    group, events, users = trainer.group, trainer.events, trainer.users
    sizes = trainer.plan.batch_sizes(step)
    item_B, weight_B = events.item_E.index_select(0, batch_B).long(), events.weight_E[batch_B]
    candidate_K = _candidates(trainer, step, item_B, sizes)
    log_expected_K = torch.zeros(len(candidate_K))
    if trainer.config.logq and len(candidate_K):
        log_expected_K = trainer.sampler.log_expected(candidate_K, sum(sizes))
    item_V, index = trainer.items.rows.distinct(torch.cat([item_B, candidate_K]))
    user_B = users.rows.local(group.here(events.user_E.index_select(0, batch_B).long()))
    local_U, user_index_B = torch.unique(user_B, return_inverse=True)
    return Wanted(
        size=sum(sizes),
        local_U=local_U,
        item_V=group.here(item_V),
        user_B=user_index_B,
        positive_B=group.here(index[: len(item_B)]),
        negative_K=group.here(index[len(item_B) :]),
        log_expected_K=group.here(log_expected_K),
        vote_B=group.here(trainer.votes.of(weight_B)),
        weight_B=group.here(weight_B),
    )


def _looked_up(trainer: Trainer, draw: Draw) -> Step:
    """The step with its vectors."""
    wanted = draw.wanted
    return Step(
        user_UD=trainer.users.weight.index_select(0, wanted.local_U),
        item_VD=trainer.items.rows.bring(draw.route),
        user_B=wanted.user_B,
        positive_B=wanted.positive_B,
        negative_K=wanted.negative_K,
        log_expected_K=wanted.log_expected_K,
        weight_B=wanted.vote_B,
        target_B=wanted.weight_B,
        size=wanted.size,
        user_decay_U=trainer.decay.users(wanted.local_U),
        item_decay_V=trainer.decay.items(wanted.item_V),
    )


def _candidates(trainer: Trainer, step: int, item_B: Tensor, sizes: list[int]) -> Tensor:
    """Negatives of the whole global batch, the same at every worker, int64 [K]."""
    count = trainer.cursor.epoch * trainer.plan.steps + step
    drawn_K = trainer.sampler.draw(count)
    if not trainer.sampler.from_batch:
        return drawn_K
    layout, size_P = trainer.layout, torch.tensor(sizes)
    place_K = trainer.sampler.places(count, sum(sizes))
    # The global batch has its events by rising partition, and so has each worker its own.
    partition_K = torch.searchsorted(size_P.cumsum(0), place_K, right=True)
    chosen = torch.bincount(partition_K, minlength=layout.partitions).tolist()
    own_P = torch.arange(layout.partitions) % layout.world == layout.rank
    skipped_P = torch.where(own_P, 0, size_P).cumsum(0)  # events of others that stand before
    mine_K = own_P[partition_K]
    place_K = (place_K - skipped_P[partition_K])[mine_K]
    own_K = trainer.group.here(item_B.index_select(0, place_K))
    every = trainer.group.by_partition_rows(own_K, layout, chosen)
    return torch.cat([drawn_K, every.cpu()])
