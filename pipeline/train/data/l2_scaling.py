"""How a row's L2 regularisation grows with the number of its events.

Legend: L user rows of this worker, I items, U and V rows of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.data.train_events import Events, item_counts
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["L2Scaling", "l2_scaling"]


@dataclass(frozen=True)
class L2Scaling:
    """The factor of the L2 that each event of a row adds to the loss; None: 1 for all rows.

    L2 is added once for each event, so a row with n train events gets n times as much in an
    epoch (Zhou et al. 2008, "weighted-λ"). With the factor n ** (power - 1) it gets n ** power
    times as much: between 0 and 1, frequent rows are regularised more than rare ones, but less
    than in proportion to their events.
    """

    user_L: Tensor | None = None
    item_I: Tensor | None = None

    def users(self, local_U: Tensor) -> Tensor | None:
        """Factors of users, by their positions in this worker's table; float32 [U]."""
        return None if self.user_L is None else self.user_L[local_U]

    def items(self, rows_V: Tensor) -> Tensor | None:
        """Factors of items, by row; float32 [V]."""
        return None if self.item_I is None else self.item_I[rows_V]


def l2_scaling(
    events: Events, power: float, users: ShardedEmbedding, items: ShardedEmbedding
) -> L2Scaling:
    """The factors for `events`, the same for any number of workers; a collective.

    Args:
        events: of the owned partitions, hence all events of the users in them.
        power: of a row's number of events; with 1, all factors are 1 and nothing is counted.
        users: table of the users.
        items: table of the items.
    """
    if power == 1:
        return L2Scaling()
    rows, device = len(users.weight), users.group.device
    count_L = torch.zeros(rows, dtype=torch.int64, device=device)
    for partition in events.partitions():
        local_N = users.local_index(partition.user_E.long().to(device))
        count_L += torch.bincount(local_N, minlength=rows)
    count_I = item_counts(events, items.rows, items.group)
    return L2Scaling(_factors(count_L, power), _factors(count_I.to(device), power))


def _factors(count_N: Tensor, power: float) -> Tensor:
    # A row without events gets no L2 at all; counting it as 1 keeps its factor finite.
    return count_N.clamp(min=1).double().pow(power - 1).float()
