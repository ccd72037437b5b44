"""Section `events.signals`: what an event is worth, and whose events are too many."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from pydantic import Field, model_validator

from embedmill.pipeline.config.section import Section

__all__ = ["SignalsConfig"]


class SignalsConfig(Section):
    """Rules from rows of a log to weighted events, in the order in which they apply.

    `events.filter` comes before them. `types` gives each row the weight of its type, times
    `events.weight` where that is named; `min_weight` and `binary` look at this product.
    `events.drop_repeats` comes next, then `max_user_day` finds bots, by rows that differ in item
    or time; what is left decays by `half_life_days` and is merged by `events.merge_by`.
    `min_merged_weight` and `max_user_events` look at what merging made.
    """

    type: str = Field("", description="column of the event type, for types; empty for none")
    types: dict[str, float] = Field(
        {}, description="weight of each type: { view = 1, buy = 5 }; 0 drops it, and is counted"
    )
    other_types: Literal["reject", "drop"] = Field(
        "reject", description="rows of a type that types does not name: bad lines, or just dropped"
    )
    min_weight: float | None = Field(
        None, description="a row that weighs less is dropped: a rating, a dwell; absent: none"
    )
    binary: bool = Field(False, description="every row that is left weighs 1: positives alone")
    max_user_day: int = Field(
        0, ge=0, description="a user with more events on a day (UTC) is a bot; 0: nobody is"
    )
    bots: Literal["user", "day"] = Field(
        "user", description="what is dropped of a bot: all its events, or those of that day"
    )
    half_life_days: float = Field(
        0, ge=0, le=1_000_000, description="an event so old weighs half; 0: time changes nothing"
    )
    decay_until: str = Field(
        "", description="ISO time at which age is 0; empty for the log's last event"
    )
    min_merged_weight: float | None = Field(
        None, description="an event that weighs less after decay and merging is dropped"
    )
    max_user_events: int = Field(0, ge=0, description="a user keeps at most so many events; 0: all")
    keep: Literal["latest", "sample"] = Field(
        "latest", description="which it keeps: the latest, or some by a hash of user and item"
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
        """Whether it makes events of unlike weight."""
        return bool(self.half_life_days) or (not self.binary and self.ranks_types)

    @property
    def ranks_types(self) -> bool:
        """Whether rows of one type weigh more than those of another."""
        return len({weight for weight in self.types.values() if weight}) > 1
