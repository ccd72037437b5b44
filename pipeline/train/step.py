"""One global step: sample, look up, lose, exchange, update.

Legend: B events here, U distinct users, V distinct items, K negatives, D columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.train.losses import Step
from pipeline.train.optim import OPTIMIZERS, Update
from pipeline.train.tables import Route
from pipeline.train.trainer import Trainer

__all__ = ["take_step"]


def take_step(trainer: Trainer, step: int, batch_B: Tensor) -> float:
    """Take the step, changing both tables; returns the mean loss of the global batch.

    Args:
        trainer: the training.
        step: of the cursor's epoch.
        batch_B: which of this worker's events.

    Raises:
        NotFiniteError: the loss or a gradient is not finite, at any worker.
    """
    users, items, clock = trainer.users, trainer.items, trainer.group.clock
    assert trainer.objective.loss is not None  # such an objective has a sweep
    with clock("lookup"):
        local_U, part, route = _looked_up(trainer, step, batch_B)
    with clock("loss"):
        result = trainer.objective.loss(part, trainer.settings)
    # One number tells all workers of a NaN or infinity anywhere: it spreads through a sum.
    check = result.user_UD.sum().double() + result.item_VD.sum().double()
    total, finite = trainer.group.sum(torch.stack([result.loss.double(), check])).tolist()
    if not (math.isfinite(total) and math.isfinite(finite)):
        raise trainer.diverged(f"step {step + 1} of {trainer.plan.steps}")
    count, rate = trainer.cursor.epoch * trainer.plan.steps + step + 1, trainer.rate(step)
    update = OPTIMIZERS[trainer.config.optimizer].update
    with clock("update"):
        local_G, item_GD = items.rows.push(route, result.item_VD)
        for table, local, gradient in ((users, local_U, result.user_UD), (items, local_G, item_GD)):
            update(table.weight, table.state, table.columns, Update(local, gradient, rate, count))
    return float(total)


def _looked_up(trainer: Trainer, step: int, batch_B: Tensor) -> tuple[Tensor, Step, Route]:
    """The step's distinct rows: users from here, items from their owners."""
    group, events, users = trainer.group, trainer.events, trainer.users
    sizes = trainer.plan.batch_sizes(step)
    item_B, weight_B = events.item_E.index_select(0, batch_B).long(), events.weight_E[batch_B]
    candidate_K = _candidates(trainer, step, item_B, sizes)
    log_expected_K = torch.zeros(len(candidate_K))
    if trainer.config.logq and len(candidate_K):
        log_expected_K = trainer.sampler.log_expected(candidate_K, sum(sizes))
    rows_V, index = trainer.items.rows.distinct(torch.cat([item_B, candidate_K]))
    asked_V = group.here(rows_V)
    item_VD, route = trainer.items.rows.fetch(asked_V)
    user_B = users.rows.local(group.here(events.user_E.index_select(0, batch_B).long()))
    local_U, user_index_B = torch.unique(user_B, return_inverse=True)
    part = Step(
        user_UD=users.weight.index_select(0, local_U),
        item_VD=item_VD,
        user_B=user_index_B,
        positive_B=group.here(index[: len(item_B)]),
        negative_K=group.here(index[len(item_B) :]),
        log_expected_K=group.here(log_expected_K),
        weight_B=group.here(trainer.votes.of(weight_B)),
        target_B=group.here(weight_B),
        size=sum(sizes),
        user_decay_U=trainer.decay.users(local_U),
        item_decay_V=trainer.decay.items(asked_V),
    )
    return local_U, part, route


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
