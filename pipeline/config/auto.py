"""Section of the objective that chooses another one."""

from __future__ import annotations

from pydantic import Field

from embedmill.pipeline.config.section import Section

__all__ = ["AutoConfig"]


class AutoConfig(Section):
    """Keys of the choice of an objective by trials on the validation part.

    `train.dim` is then the greatest dimension, and `train.epochs` the greatest number of epochs.
    Without a validation part there are no trials: ials is trained, with settings for the share of
    pairs that have events.
    """

    budget: float = Field(
        0.5,
        gt=0,
        le=1000,
        description="what all trials cost together, at most, as a share of the dearest "
        "training among those that had a chance; counted, not timed, so the choice is the "
        "same on each machine",
    )
    trial_events: int = Field(
        2_000_000,
        ge=1000,
        description="train events of a trial, at most: of a larger log, trials use the events of "
        "a share of the users",
    )
