"""Sections of what follows training: export, index, evaluate, report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from embedmill.pipeline.config.section import ELSEWHERE, Section, Size

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


class ExportConfig(Section):
    """Vectors with their ids."""

    npy: bool = Field(True, description="also write users.npy and items.npy")


class HnswConfig(Section):
    """Graphs of the kinds hnsw and hnswsq8; what ranks anew is of hnswsq8.

    With neither m nor ef_construction given, hnswsq8 tries two graphs more than that of 32 and 64.
    """

    m: int | None = Field(None, ge=2, le=256, description="links; not given: 32")
    ef_construction: int | None = Field(None, ge=8, description="not given: 64")
    ef_search: int = Field(128, ge=1)
    refine: int = Field(2, ge=1, description="candidates ranked anew, times the answers wanted")
    refine_bits: Literal[0, 16, 32] = Field(
        32, description="per coordinate of what they are ranked anew with; 0: not at all"
    )


class IvfConfig(Section):
    """Inverted lists of the kinds ivfflat, ivfsq8, opqivfpq and fastscan."""

    lists: int = Field(0, ge=0, description="0: about 4 sqrt(n), fastscan 2 sqrt(n)")
    probes: int = Field(0, ge=0, description="0: a quarter of the lists")
    segments: int = Field(0, ge=0, description="codes per vector; 0: fastscan one per dimension")
    refine: int = Field(4, ge=1, description="candidates ranked anew, times the answers wanted")
    refine_bits: Literal[0, 8, 16, 32] = Field(
        32, description="per coordinate of what they are ranked anew with; 0: not at all"
    )


class IvfPqConfig(Section):
    """FAISS IVF with product quantization, kind ivfpq."""

    lists: int = Field(0, ge=0, description="0: about 4 sqrt(n)")
    probes: int = Field(0, ge=0, description="0: a quarter of the lists")
    segments: int = Field(0, ge=0, description="bytes per vector; 0: one per two dimensions")


class IndexConfig(Section):
    """The nearest-neighbour index over the items, and what it must keep."""

    kind: str = Field(
        "auto",
        description="a name in pipeline.index.INDEXES, or auto: any that keeps the promise",
    )
    recall_at_10: float | None = Field(
        None, gt=0, le=1, description="promised; auto without any promise keeps 0.99"
    )
    max_bytes: Size | None = Field(None, description='promised: a number or "60MB", "1.5GiB"')
    max_latency_ms: float | None = Field(
        None, gt=0, description="promised, mean of single queries on one thread"
    )
    queries: int = Field(
        1000,
        ge=1,
        description="held-out users' vectors to measure with, and as many others to tune with",
    )
    carry_over: float = Field(
        0,
        ge=0,
        le=1,
        description="keep the index of the run before, until new, changed and removed items are "
        "this share of all; 0: build anew",
    )
    threads: int = Field(0, ge=0, json_schema_extra=ELSEWHERE, description="0: all cores")
    shards: int = Field(
        0,
        ge=0,
        le=4096,
        description="files of the index, at most one per 131,072 rows of items; "
        "0: one, or as many as index.shard_bytes demands",
    )
    shard_bytes: Size = Field(
        1 << 30, description="raw vectors that a shard holds at most with shards = 0"
    )
    launcher: Literal["inline", "processes", "ray"] = Field(
        "processes", json_schema_extra=ELSEWHERE, description="what builds several shards"
    )
    workers: int = Field(
        0,
        ge=0,
        le=4096,
        json_schema_extra=ELSEWHERE,
        description="processes, or Ray tasks at once; 0: as many as there are cores",
    )
    hnsw: HnswConfig = HnswConfig()
    ivf: IvfConfig = IvfConfig()
    ivfpq: IvfPqConfig = IvfPqConfig()

    @property
    def promised(self) -> bool:
        """Whether parameters are searched for, not given."""
        asked = (self.recall_at_10, self.max_bytes, self.max_latency_ms)
        return self.kind == "auto" or any(one is not None for one in asked)

    @model_validator(mode="after")
    def _exact(self) -> IndexConfig:
        if self.recall_at_10 == 1.0 and self.kind not in ("auto", "flat"):
            raise ValueError(
                f"recall_at_10: 1.0 is exact search, which kind = '{self.kind}' is not; "
                "allowed: below 1, or kind = 'flat' or 'auto'"
            )
        return self


class GatesConfig(Section):
    """What a run must reach to be published. Absent gates are not asked."""

    over_popularity: dict[str, float] = Field(
        {}, description="metric to least ratio over popularity: {'recall@10' = 1.2}"
    )
    least: dict[str, float] = Field(
        {}, description="metric to its floor: {'index.recall@10' = 0.95}"
    )
    most: dict[str, float] = Field({}, description="metric to its ceiling: {rmse = 0.95}")


class EvaluateConfig(Section):
    """Exact and through the index, on test."""

    ks: tuple[int, ...] = (10, 20, 100)
    batch_users: int = Field(1024, ge=1, json_schema_extra=ELSEWHERE)
    slices: int = Field(3, ge=1, le=20, description="item-popularity slices of equal train events")
    gates: GatesConfig = GatesConfig()

    @field_validator("ks")
    @classmethod
    def _ks(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1 or len(set(ks)) != len(ks):
            raise ValueError("positive numbers, each once")
        return tuple(sorted(ks))


class ReportConfig(Section):
    """The HTML page."""

    title: str = ""
    map_items: int = Field(2000, ge=1, description="most frequent items on the map")
    labels: int = Field(25, ge=0, description="items labelled on the map")
    neighbours_of: tuple[str, ...] = Field(
        (), description="titles or ids; empty: the most frequent items"
    )
