"""What a worker has read: the examples that it trains on, and the events that it validates on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from embedmill.pipeline.train.data.histories import Histories
from embedmill.pipeline.train.data.train_events import Events

__all__ = ["Examples"]


@dataclass(frozen=True)
class Examples:
    """Examples of the partitions that a worker owns.

    Args:
        users: rows of the first table: users, or centers of pairs.
        items: rows of the second table: items, or contexts of pairs.
        train: what is trained on: events, or pairs of items.
        known: events of the splits that are trained on; where `train` are events, the same.
        valid: validation events.
        histories: the events that users' vectors are computed from; None where users have rows
            of their own.
        inactive: rows of items that are no candidates, ascending; None where all items are.
        replayed: of `train`, what an epoch takes where training starts from an earlier run and
            `train.replay` leaves old events out; None: all.
        new: of `train`, what that run was not trained on, where the objective asks; else None.
    """

    users: int
    items: int
    train: Events
    known: Events
    valid: Events
    histories: Histories | None = None
    inactive: Tensor | None = None
    replayed: Events | None = None
    new: Events | None = None

    @property
    def taken(self) -> Events:
        """What an epoch takes."""
        return self.train if self.replayed is None else self.replayed
