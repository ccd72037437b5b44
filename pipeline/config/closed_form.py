"""Sections of the objectives whose vectors are computed in closed form."""

from __future__ import annotations

from pydantic import Field

from embedmill.pipeline.config.section import FINGERPRINT_IF_CHANGED, Section

__all__ = ["SpectralConfig"]


class SpectralConfig(Section):
    """Keys of vectors from a truncated singular value decomposition; an epoch is `passes` passes.

    R has the sample weights of users and items, d and e are their sums by user and by item, and
    S, V the leading singular values and right singular vectors of d^-user_power R e^-item_power.
    Users get d^-user_power R e^-item_power V f and items e^popularity_power V f, where f^2 is
    S^2 / (S^2 + ridge · the mean of all squared singular values).
    """

    user_power: float = Field(
        0.35, ge=0, le=2, description="exponent by which a user's degree scales its events down"
    )
    item_power: float = Field(
        0.35, ge=0, le=2, description="exponent by which an item's degree scales its events down"
    )
    popularity_power: float = Field(
        0.2,
        ge=0,
        le=2,
        description="exponent by which an item's degree scales its vector up; a larger one ranks "
        "popular items higher",
    )
    ridge: float = Field(
        6.0,
        ge=0,
        le=1e6,
        description="directions are damped whose squared singular value is not far above so many "
        "times the mean of all of them; 0: none is",
    )
    passes: int = Field(
        5,
        ge=1,
        le=1000,
        description="products with the events and their transpose; more find the singular "
        "vectors of the smallest values more exactly",
    )
    start_passes: int = Field(
        1,
        ge=1,
        le=1000,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="passes, at most, where training starts from an earlier run (train.start); 1: "
        "items are moved by the events that that run did not have alone, users are computed anew",
    )
