"""The weight of an unobserved pair where the config has none: it grows with the log's density."""

from __future__ import annotations

from embedmill.pipeline.config import IalsConfig

__all__ = ["with_unobserved_weight"]

# A user's unobserved pairs weigh so many times its events, on average. Then one number of
# `regularization` fits logs of all densities, too.
_TIMES = 8.0


def with_unobserved_weight(ials: IalsConfig, events: int, users: int, items: int) -> IalsConfig:
    """The section with a number for `unobserved_weight`: its own, or 8 times the density.

    Args:
        ials: the section.
        events: that are trained on.
        users: rows of the users' table.
        items: rows of the items' table.
    """
    if ials.unobserved_weight:
        return ials
    weight = min(1.0, _TIMES * max(1, events) / max(1, users * items))
    return ials.model_copy(update={"unobserved_weight": weight})
