"""Artifact `evaluate`: metrics on test, recall by slice of items, gates."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from embedmill.schemas.contract import ArtifactContract, Count, Counters
from embedmill.schemas.files import JsonFile, Number, PartFiles, Stored

__all__ = [
    "CONTRACT",
    "DRIFT",
    "GATES",
    "INTERVALS",
    "METRICS",
    "PROTOCOLS",
    "SLICES",
    "USERS",
    "Drift",
    "GateResult",
    "MovedItem",
    "Protocol",
    "Slice",
]


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
    and `got` is null. With `evaluate.gates.interval`, `got` is that of the worse end of the
    metric's interval.
    """

    gate: str
    metric: str
    wanted: Number
    got: Number | None
    passed: bool


class MovedItem(Stored):
    """An item whose vector moved far: its id, distance and events."""

    id: str
    distance: Number
    events: int


class Drift(Stored):
    """How far vectors have moved since an earlier run.

    `items` are in both runs. `jaccard` is the mean overlap of the ten nearest items of a sample,
    `users_overlap` the mean share of the ten best items of a sample of users that are the same.
    Where both runs have one space: `distance`, the mean distance relative to the mean length
    before, its `quantiles`, the share of items that `moved` farther than a tenth, and those that
    moved `farthest`.
    """

    items: int
    one_space: bool
    jaccard: Number | None = None
    users_overlap: Number | None = None
    distance: Number | None = None
    quantiles: dict[str, Number] | None = None
    moved: Number | None = None
    farthest: tuple[MovedItem, ...] = ()


class Protocol(Stored):
    """How metrics were measured, by the prefix of their names: "", "sampled.", "fold_in."."""

    prefix: str
    name: str
    measures: str
    not_comparable: str


# Flat: "recall@10", "popularity.recall@10", "through_index.recall@10", ..., "index.recall@10",
# "index.bytes", "users", "cold_users"; for ratings "rmse", "rmse.mean_baseline", ...; with
# sampled negatives "sampled.hit_rate@10", "sampled.popularity.hit_rate@10", ...; of users who were
# folded in "fold_in.recall@10", "fold_in.popularity.recall@10", ..., "fold_in.users"; beside an
# earlier run "drift.jaccard@10", "drift.distance", ..., and of users in both "earlier.recall@10",
# which is that run's, and "over_earlier.recall@10", this run's over it.
METRICS = JsonFile("metrics.json", dict[str, int | float])
SLICES = JsonFile("slices.json", list[Slice])
GATES = JsonFile("gates.json", list[GateResult])
PROTOCOLS = JsonFile("protocols.json", list[Protocol])
# Only where the vectors were to be aligned to those of an earlier run.
DRIFT = JsonFile("drift.json", Drift)
# Lower and upper end of the 95 % intervals of those metrics that are means over users.
INTERVALS = JsonFile("intervals.json", dict[str, tuple[float, float]])
# Metrics of each user by exact search: its raw id under "user", then "recall@10" and so on.
USERS = PartFiles("users")


def _status(c: Counters, n: Count) -> str:
    return f"{n(c.get('users', 0))} users on test"


CONTRACT = ArtifactContract(status=_status)
