"""Sections of the stages after training: export, index, evaluate, report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from embedmill.pipeline.config.index_keys import KindName, read_index
from embedmill.pipeline.config.section import (
    FINGERPRINT_IF_CHANGED,
    NOT_IN_FINGERPRINT,
    Section,
    Size,
)

__all__ = [
    "EvaluateConfig",
    "ExportConfig",
    "GatesConfig",
    "HnswConfig",
    "IndexConfig",
    "IvfConfig",
    "IvfPqConfig",
    "ReportConfig",
]


# With evaluate.users = "auto", more scores than this (a quarter of an hour of two cores) are not
# computed: so many users are drawn, whose means are within .002 of those of all with 95 %
# confidence.
_MOST_SCORES, _DRAWN_USERS = 10**11, 200_000

# Where the tasks of a stage run, and how many at once.
_Launcher = Annotated[
    Literal["auto", "inline", "processes", "ray"],
    Field(
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="where its tasks run: in this process, in others, or on Ray; auto: in this "
        "process where that is short, else on the cluster of RAY_ADDRESS, else in processes",
    ),
]
_Workers = Annotated[
    int,
    Field(
        ge=0,
        le=4096,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="processes, or Ray tasks at once; 0: as many as there are cores",
    ),
]


class ExportConfig(Section):
    """Stage export: vectors with their ids."""

    npy: bool = Field(True, description="also write users.npy and items.npy")
    align: str | None = Field(
        None,
        max_length=4096,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="run onto whose vectors these are rotated, so that both have one space: its "
        "name, folder or URL, or 'published'; empty: none; not given: train.start",
    )
    align_limit: float = Field(
        0.5,
        gt=0,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="greatest distance that may be left then, relative to the vectors' length; "
        "beyond it the vectors are not rotated and their space is a new one",
    )
    launcher: _Launcher = "auto"
    workers: _Workers = 0


class HnswConfig(Section):
    """Graphs: kinds hnsw and hnswsq8. Only hnswsq8, which stores codes, reranks.

    Where neither m nor ef_construction is given, hnswsq8 also tries two other graphs beside
    the one of 32 and 64.
    """

    m: int | None = Field(None, ge=2, le=256, description="links of a node; not given: 32")
    ef_construction: int | None = Field(
        None, ge=8, description="candidates looked at when a node is linked; not given: 64"
    )
    ef_search: int = Field(
        128, ge=1, description="candidates looked at in a search, where no target is set"
    )
    refine: int = Field(
        2, ge=1, description="candidates reranked: this many times the results wanted"
    )
    refine_bits: Literal[0, 16, 32] = Field(
        32, description="bits for each coordinate of the vectors that rerank; 0: no reranking"
    )


class IvfConfig(Section):
    """Inverted lists: kinds ivfflat, ivfsq8, opqivfpq and fastscan."""

    lists: int = Field(
        0, ge=0, description="inverted lists; 0: about 4 sqrt(n) for n items, fastscan 2 sqrt(n)"
    )
    probes: int = Field(
        0, ge=0, description="lists searched, where no target is set; 0: a quarter of them"
    )
    segments: int = Field(
        0, ge=0, description="codes of a vector; 0: for fastscan one for each dimension"
    )
    refine: int = Field(
        4, ge=1, description="candidates reranked: this many times the results wanted"
    )
    refine_bits: Literal[0, 8, 16, 32] = Field(
        32, description="bits for each coordinate of the vectors that rerank; 0: no reranking"
    )


class IvfPqConfig(Section):
    """Inverted lists with product quantization: kind ivfpq."""

    lists: int = Field(0, ge=0, description="inverted lists; 0: about 4 sqrt(n) for n items")
    probes: int = Field(
        0, ge=0, description="lists searched, where no target is set; 0: a quarter of them"
    )
    segments: int = Field(0, ge=0, description="bytes of a vector; 0: one for two dimensions")


class IndexConfig(Section):
    """Stage index: a nearest-neighbour index over the items, and the targets that it must meet.

    Keys of the sections below that its kind does not read are refused.
    """

    kind: KindName = Field(
        "auto", description="kind of index; auto: the fastest of all that meets the targets"
    )
    recall_at_10: float | None = Field(
        None, gt=0, le=1, description="target: least recall@10; auto without any target takes 0.99"
    )
    max_bytes: Size | None = Field(
        None, description='target: greatest size, a number of bytes or "60MB", "1.5GiB"'
    )
    max_latency_ms: float | None = Field(
        None, gt=0, description="target: greatest mean time of single queries on one thread"
    )
    queries: int = Field(
        1000,
        ge=1,
        description="users with test events whose vectors measure the index; as many others tune "
        "it",
    )
    carry_over: float = Field(
        0,
        ge=0,
        le=1,
        description="keep the index of the previous run until new, changed and removed items "
        "are this share of all; 0: always build a new one",
    )
    carry_epsilon: float = Field(
        0,
        ge=0,
        le=1,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="with carry_over: an item whose vector is within this distance of the one in "
        "the index, relative to the mean length, keeps its place; 0: only with the same bytes",
    )
    threads: int = Field(
        0,
        ge=0,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="threads that build; 0: all cores",
    )
    shards: int = Field(
        0,
        ge=0,
        le=4096,
        description="files of the index, at most one for 131,072 rows of items; 0: one, or as "
        "many as index.shard_bytes demands",
    )
    shard_bytes: Size = Field(
        1 << 30, description="raw vectors that a shard holds at most, with shards = 0"
    )
    launcher: Literal["inline", "processes", "ray"] = Field(
        "processes",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="where several shards are built: in this process, in others, by Ray tasks; an "
        "index of one file is built in this process, or with ray on a node of the cluster",
    )
    workers: _Workers = 0
    hnsw: HnswConfig = HnswConfig()
    ivf: IvfConfig = IvfConfig()
    ivfpq: IvfPqConfig = IvfPqConfig()

    @property
    def has_targets(self) -> bool:
        """Whether there are targets: parameters are then searched for, not given."""
        targets = (self.recall_at_10, self.max_bytes, self.max_latency_ms)
        return self.kind == "auto" or any(target is not None for target in targets)

    @model_serializer(mode="wrap")
    def _as_section(self, dump: Callable[[IndexConfig], dict[str, Any]]) -> dict[str, Any]:
        """The section of a TOML, without keys that the kind does not read."""
        return read_index(dump(self))

    @model_validator(mode="after")
    def _exact(self) -> IndexConfig:
        if self.recall_at_10 == 1.0 and self.kind not in ("auto", "flat"):
            raise ValueError(
                f"recall_at_10: 1.0 is exact search, which kind = '{self.kind}' is not; "
                "allowed: below 1, or kind = 'flat' or 'auto'"
            )
        return self


class GatesConfig(Section):
    """What a run must reach to be published; a gate that is not given is not checked."""

    over_popularity: dict[str, float] = Field(
        {}, description="metric to its least ratio to popularity's: {'recall@10' = 1.2}"
    )
    least: dict[str, float] = Field(
        {}, description="metric to its least value: {'index.recall@10' = 0.95}"
    )
    most: dict[str, float] = Field({}, description="metric to its greatest value: {rmse = 0.95}")
    interval: bool = Field(
        False,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="ask the gates of the worse end of a metric's 95 % interval, where it has one",
    )


class EvaluateConfig(Section):
    """Stage evaluate: metrics on test events, by exact search and through the index."""

    ks: tuple[int, ...] = Field(
        (10, 20, 100), description="lengths of recommendation lists: recall@10 and so on"
    )
    batch_users: int = Field(
        1024, ge=1, json_schema_extra=NOT_IN_FINGERPRINT, description="users ranked together"
    )
    slices: int = Field(
        3,
        ge=1,
        le=20,
        description="slices of items by popularity, each with as many train events",
    )
    sampled_negatives: int = Field(
        0,
        ge=0,
        le=100_000,
        description="also rank each test item among so many random items without events of the "
        "user (99: the protocol of NCF); 0: not measured",
    )
    fold_in: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="also measure users without train events: this share of their test events "
        "makes their vectors, the rest is recommended; 0: not measured; not given: 0.8 for "
        "shards.split = 'users'",
    )
    users: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="about so many test users are drawn by a hash of their row and evaluated, "
        "with intervals that say how sure the figures are; 0: all; 'auto': 200,000 where all users "
        "would be more than 10^11 scores, else all",
    )
    keep_users: bool = Field(
        False,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="also store the metrics of each user, which `embedmill compare` tests in pairs",
    )
    launcher: _Launcher = "auto"
    workers: _Workers = 0
    gates: GatesConfig = GatesConfig()

    def evaluated(self, users: int, items: int) -> int:
        """About how many of some users with test events are evaluated.

        Args:
            users: that there are.
            items: that are ranked for each.
        """
        wanted = self.users
        if wanted == "auto":
            wanted = _DRAWN_USERS if users * items > _MOST_SCORES else 0
        return min(users, wanted) if wanted else users

    @field_validator("ks")
    @classmethod
    def _ks(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1 or len(set(ks)) != len(ks):
            raise ValueError("positive numbers, each once")
        return tuple(sorted(ks))


class ReportConfig(Section):
    """Stage report: the HTML page."""

    title: str = Field("", description="title of the page; empty: the run's name")
    map_items: int = Field(2000, ge=1, description="items on the map, the most frequent ones")
    labels: int = Field(25, ge=0, description="items on the map that have a label")
    neighbours_of: tuple[str, ...] = Field(
        (), description="titles or ids whose neighbours are shown; empty: the most frequent items"
    )
