"""Events of a share of the users, drawn by a hash: the same for any number of workers."""

from __future__ import annotations

import torch
from torch import Tensor

from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.plan import seed_of

__all__ = ["events_of_users"]

_BITS = 31


def events_of_users(events: Events, share: float, seed: int) -> Events:
    """The events of the users whose hash is below `share`; partitions stay what they are.

    Users of a smaller share are among those of a larger one.
    """
    limit = int(share * (1 << _BITS))
    parts = [part.select(_hash(part.user_E, seed) < limit) for part in events.partitions()]
    if not parts:
        return events
    return Events(
        torch.cat([part.user_E for part in parts]),
        torch.cat([part.item_E for part in parts]),
        torch.cat([part.weight_E for part in parts]),
        tuple(len(part) for part in parts),
    )


def _hash(row_N: Tensor, seed: int) -> Tensor:
    """A hash of each row, int64 [N] from 0 to 2 ** 31 - 1; multiplications wrap around."""
    mixed_N = row_N.long() + seed_of(seed, "trial users")
    for multiplier in (-4658895280553007687, -7723592293110705685):  # of splitmix64, signed
        mixed_N = (mixed_N ^ ((mixed_N >> 29) & ((1 << 35) - 1))) * multiplier
    return (mixed_N >> 32) & ((1 << _BITS) - 1)
