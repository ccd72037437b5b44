"""Artifact `evaluate`: metrics on test, recall by slice of items, gates."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from embedmill.schemas.contract import ArtifactContract, Count, Counters
from embedmill.schemas.files import JsonFile, Number, Stored

__all__ = ["CONTRACT", "GATES", "METRICS", "SLICES", "GateResult", "Slice"]


class Slice(Stored):
    """A part of the items, by popularity.

    The share of its test pairs that is found is under "recall@10", "popularity.recall@10" and
    "through_index.recall@10" (of each k), null where the slice has no test pairs.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None] = Field(init=False)

    slice: str
    items: int
    train_events: int
    test_pairs: int


class GateResult(Stored):
    """A gate of the config: the metric `got` against the value `wanted`.

    `got` is null, and the gate has failed, where the run has no such figure. The gate
    "over_popularity" wants a ratio; where popularity has 0 it passes if the metric is above 0,
    and `got` is null.
    """

    gate: str
    metric: str
    wanted: Number
    got: Number | None
    passed: bool


# Flat: "recall@10", "popularity.recall@10", "through_index.recall@10", ..., "index.recall@10",
# "index.bytes", "users", "cold_users"; for ratings "rmse", "rmse.mean_baseline", ...
METRICS = JsonFile("metrics.json", dict[str, int | float])
SLICES = JsonFile("slices.json", list[Slice])
GATES = JsonFile("gates.json", list[GateResult])


def _status(c: Counters, n: Count) -> str:
    return f"{n(c.get('users', 0))} users on test"


CONTRACT = ArtifactContract(status=_status)
