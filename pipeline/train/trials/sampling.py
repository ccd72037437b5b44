"""Events of a share of the users, drawn by a hash: the same for any number of workers."""

from __future__ import annotations

from embedmill.pipeline.train.data.hash_sample import in_sample
from embedmill.pipeline.train.data.train_events import Events, joined
from embedmill.pipeline.train.plan import seed_of

__all__ = ["events_of_users"]


def events_of_users(events: Events, share: float, seed: int) -> Events:
    """The events of the users whose hash is below `share`; partitions stay what they are.

    Users of a smaller share are among those of a larger one.
    """
    salt = seed_of(seed, "trial users")
    parts = [part.select(in_sample(part.user_E, share, salt)) for part in events.partitions()]
    return joined(parts) if parts else events
