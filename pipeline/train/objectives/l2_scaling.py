"""How L2 falls on rows that have been met more or less often.

Legend: L user rows held here, I items of the catalogue, U and V rows of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.data.batches import Events, item_counts
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["Decay", "decay_of"]


@dataclass(frozen=True)
class Decay:
    """What each event of a row multiplies its L2 by; None: by 1, for all rows.

    A row of n train events that gets L2 from each of them has n times as much in an epoch
    (Zhou et al. 2008, "weighted-λ"); with n ** (power - 1) from each it has n ** power times
    as much. Between 0 and 1, rows met often are held less tightly, and yet not left alone.
    """

    user_L: Tensor | None = None
    item_I: Tensor | None = None

    def users(self, local_U: Tensor) -> Tensor | None:
        """Of user rows, by where they stand in this worker's table; float32 [U]."""
        return None if self.user_L is None else self.user_L[local_U]

    def items(self, rows_V: Tensor) -> Tensor | None:
        """Of items, by row; float32 [V]."""
        return None if self.item_I is None else self.item_I[rows_V]


def decay_of(
    events: Events, power: float, users: ShardedEmbedding, items: ShardedEmbedding
) -> Decay:
    """The factors for `events`, the same for any number of workers (a collective of all).

    Args:
        events: of the owned partitions; with them, all events of the users held here.
        power: of a row's events; at 1 nothing is counted or held.
        users: table of the users.
        items: table of the items.
    """
    if power == 1:
        return Decay()
    held, device = len(users.weight), users.group.device
    count_L = torch.zeros(held, dtype=torch.int64, device=device)
    for part in events.parts():
        local_E = users.local(part.user_E.long().to(device))
        count_L += torch.bincount(local_E, minlength=held)
    count_I = item_counts(events, items.rows, items.group)
    return Decay(_factors(count_L, power), _factors(count_I.to(device), power))


def _factors(count_N: Tensor, power: float) -> Tensor:
    # A row without events has none to multiply; 1 keeps it finite.
    return count_N.clamp(min=1).double().pow(power - 1).float()
