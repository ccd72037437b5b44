"""Sections below [train] that some objectives read."""

from __future__ import annotations

from pydantic import Field

from embedmill.pipeline.config.section import Section

__all__ = ["CclConfig", "IalsConfig", "Item2VecConfig", "SmoothingConfig"]


class CclConfig(Section):
    """Keys of the cosine contrastive loss (SimpleX, arXiv 2109.12613)."""

    margin: float = Field(
        0.4, ge=-1, lt=1, description="a negative adds to the loss by how far its cosine exceeds it"
    )
    negative_weight: float = Field(
        50.0, gt=0, description="weight of the mean over the negatives; the positive has weight 1"
    )


class IalsConfig(Section):
    """Keys of implicit alternating least squares; an epoch is one sweep over both tables."""

    regularization: float = Field(
        0.011,
        gt=0,
        description="L2 of a row, multiplied by (its pairs + the weight of its unobserved pairs) "
        "to the power regularization_power",
    )
    regularization_power: float = Field(
        1.0, ge=0, le=2, description="0: the same L2 for all rows; 1: by frequency"
    )
    unobserved_weight: float = Field(
        0.0,
        ge=0,
        description="weight of a user-item pair without events; a pair with events has theirs; 0: "
        "8 times the share of pairs that have events",
    )
    block_size: int = Field(
        0,
        ge=0,
        json_schema_extra={"fingerprint_name": "block"},
        description="dimensions solved for together, as in iALS++; 0: all of them",
    )
    cg_steps: int = Field(
        3, ge=1, le=1000, description="steps of conjugate gradients for each block"
    )


class Item2VecConfig(Section):
    """Keys of training on the pairs of items that [shards.pairs] makes."""

    negatives_per_pair: float = Field(
        5.0,
        gt=0,
        json_schema_extra={"fingerprint_name": "per_pair"},
        description="negatives for each pair: those of a step are weighted to count as so many",
    )
    history: int = Field(
        0, ge=0, description="a user's vector is the mean of its last so many items; 0: of all"
    )


class SmoothingConfig(Section):
    """After training, an item's vector gets a share of the vectors of its users.

    v + weight · e^-item_power · sum of d^-user_power · u over the users u of the item v, with
    degrees d of users and e of items. Read with similarity = 'cosine'.
    """

    weight: float = Field(
        0.25,
        ge=0,
        le=100,
        description="0: no smoothing; about 1 where users have few events and no order in time",
    )
    user_power: float = Field(0.5, ge=0, le=2, description="exponent of a user's degree")
    item_power: float = Field(
        0.7,
        ge=0,
        le=2,
        description="exponent of an item's degree; a larger one ranks popular items lower",
    )
