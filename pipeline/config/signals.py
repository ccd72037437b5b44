"""Section events.signals: weights of event types, decay with age, limits for users."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from pydantic import Field, model_validator

from embedmill.pipeline.config.section import FINGERPRINT_IF_CHANGED, Section

__all__ = ["SignalsConfig"]


class SignalsConfig(Section):
    """Rules that turn rows of a log into weighted events, in the order in which they apply.

    1. events.filter drops rows.
    2. types gives each row the weight of its type, times events.weight where that is named;
       min_weight and binary read this product.
    3. events.drop_repeats drops repeated rows; max_user_events_per_day drops users with too
       many rows that differ in item or time.
    4. half_life_days reduces the weights of what is left by age; events.merge_by merges.
    5. nonpositive, min_merged_weight and max_user_events apply to merged events; nonpositive
       applies to rows where binary or events.merge_weight = 'count' does away with weights.
    """

    type: str = Field("", description="column of the event type, for types; empty: none")
    types: dict[str, float] = Field(
        {}, description="weight of each type: { view = 1, buy = 5 }; rows of weight 0 are dropped"
    )
    other_types: Literal["reject", "drop"] = Field(
        "reject",
        description="rows whose type is not in types: reject them as bad lines, or drop them",
    )
    min_weight: float | None = Field(
        None, description="drop rows of less weight, such as low ratings; not given: keep all"
    )
    binary: bool = Field(False, description="give every row that is left the weight 1")
    max_user_events_per_day: int = Field(
        0,
        ge=0,
        json_schema_extra={"fingerprint_name": "max_user_day"},
        description="a user with more events than this on a UTC day is a bot; 0: no limit",
    )
    bots: Literal["user", "day"] = Field(
        "user", description="what is dropped of a bot: all its events, or those of that day"
    )
    half_life_days: float = Field(
        0, ge=0, le=1_000_000, description="age at which an event weighs half; 0: no decay"
    )
    decay_until: str = Field(
        "", description="ISO time from which age is counted; empty: the log's last event"
    )
    min_merged_weight: float | None = Field(
        None, description="drop events of less weight after decay and merging; not given: keep all"
    )
    nonpositive: Literal["drop", "keep"] = Field(
        "drop",
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="events of zero or negative weight, which are no positives: drop or keep them; "
        "not given: drop, and keep for train.objective = 'rating', which learns any rating",
    )
    max_user_events: int = Field(
        0, ge=0, description="events that a user keeps at most; 0: no limit"
    )
    keep: Literal["latest", "sample"] = Field(
        "latest", description="which events it keeps: the latest, or a sample by hash"
    )

    @model_validator(mode="after")
    def _together(self) -> SignalsConfig:
        if bool(self.type) != bool(self.types):
            missing, there = ("types", "type") if self.type else ("type", "types")
            raise ValueError(f"{missing}: needed with {there}")
        if self.types and not any(self.types.values()):
            raise ValueError("types: all of them weigh 0, which drops every row")
        if self.decay_until and not self.half_life_days:
            raise ValueError("half_life_days: needed with decay_until")
        self._values()
        return self

    def _values(self) -> None:
        for name, weight in self.types.items():
            if not math.isfinite(weight):
                raise ValueError(f"types: '{name}' weighs {weight}; a finite number is needed")
        for key in ("min_weight", "min_merged_weight"):
            if not math.isfinite(getattr(self, key) or 0):
                raise ValueError(f"{key}: a finite number is needed")
        try:
            datetime.fromisoformat(self.decay_until or "1970-01-01")
        except ValueError:
            raise ValueError(f"decay_until: '{self.decay_until}' is not an ISO time") from None

    @property
    def weighs(self) -> bool:
        """Whether the rules give events different weights."""
        return bool(self.half_life_days) or (not self.binary and self.ranks_types)

    @property
    def ranks_types(self) -> bool:
        """Whether rows of one type weigh more than those of another."""
        return len({weight for weight in self.types.values() if weight}) > 1
