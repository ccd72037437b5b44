"""An index over a catalogue that is not held in memory: chosen by a sample, built in shards.

    draw     a sample by hash, while every vector is looked at once
    truth    exact answers to held-out users, part by part
    choose   as `auto`, by trials over the sample; what is built is built in shards
    tune     over all items, the shards mapped and the truth known beforehand

The driver holds the sample, the queries and the centroids; nothing in it grows with the vectors.

Legend: B queries, N items of the sample, D coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import faiss
import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index.contract import Floats, Index, K
from embedmill.pipeline.index.kinds import AUTO, INDEXES, kind_of
from embedmill.pipeline.index.selection.plans import Plan, plans_of
from embedmill.pipeline.index.selection.select import Known, check_vectors, fitting_of, hunted
from embedmill.pipeline.index.selection.selector import Choice, Hunt
from embedmill.pipeline.index.selection.target import Promise
from embedmill.pipeline.index.sharded.catalogue import (
    Catalogue,
    Part,
    PartedTruth,
    grouped,
    truths_of,
)
from embedmill.pipeline.index.sharded.index_shards import (
    LEARNED_FROM,
    Shards,
    fill_shards,
    kind_with_lists,
    learned,
)
from embedmill.pipeline.index.sharded.kmeans import LOOKED_AT
from embedmill.pipeline.index.sharded.loading import open_shards
from embedmill.pipeline.index.sharded.sample import Drawn, draw
from embedmill.pipeline.index.sharded.sharded_index import Sharded
from embedmill.pipeline.index.sharded.task_pool import Pool
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Writer
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vectors import RANGE, Vectors
from embedmill.schemas.manifest import FileEntry

__all__ = ["Site", "Spread", "shards_of", "spread"]

# Where the choice is free, kinds that would take so many times as long to build as the quickest
# that is not exact are left out.
_TOO_LONG = 8.0


def shards_of(config: IndexConfig, items: int, dim: int) -> int:
    """Files of an index over so many rows of items; pure."""
    wanted = config.shards or -(-items * dim * 4 // config.shard_bytes)
    return max(1, min(wanted, -(-items // RANGE)))


@dataclass(frozen=True)
class Spread:
    """A built index, how it was chosen where something was promised, and what it is made of."""

    kind: str
    index: Index
    choice: Choice | None
    verifying: PartedTruth
    catalogue: Catalogue
    entries: tuple[FileEntry, ...]
    estimate: int

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(entry.bytes for entry in self.entries)


@dataclass(frozen=True)
class Site:
    """What is indexed, how, and where.

    `pool` runs the tasks; files go to the storage of `out`, to which they are not added.
    """

    items: Vectors
    config: IndexConfig
    seed: int
    pool: Pool
    out: Writer
    progress: Progress


def spread(site: Site, tuning_BD: Floats, verifying_BD: Floats) -> Spread:
    """Choose and build an index over all live items, in as many shards as the config says.

    Args:
        site: the items, the kind or what is promised, and who does the work.
        tuning_BD: float32 [B, D], queries to tune with where something is promised.
        verifying_BD: others, to verify and to measure with.

    Raises:
        ConfigError: parameters that do not fit the vectors.
        InputError: no items, or numbers that are not finite.
        PromiseError: nothing keeps the promise.
        MachineError: a worker ended, or the disk is full.
    """
    config, catalogue = site.config, Catalogue.of(site.items)
    # Items are looked at where they are drawn; here, whether there are any of as many coordinates.
    one_1D = np.zeros((min(1, catalogue.items), catalogue.dim), np.float32)
    check_vectors(items=one_1D, tuning=tuning_BD, verifying=verifying_BD)
    groups = grouped(catalogue.parts, shards_of(config, site.items.count, catalogue.dim))
    plans = _plans(config, catalogue, groups)
    with _scratch(site.out) as scratch:
        drawn = draw(catalogue, site.pool, _wanted(plans), site.seed, scratch)
        builder = _Builder(site, catalogue, groups, drawn)
        try:
            if config.promised:
                return _chosen(builder, plans, tuning_BD, verifying_BD)
            (verifying,) = truths_of(catalogue, site.pool, [verifying_BD], K)
            index, _ = builder.make(plans[0])
            return builder.spread(plans[0], index, None, verifying)
        except BaseException:
            builder.remove_all_but(None)
            raise


@dataclass
class _Builder:
    """Builds plans in shards; remembers the files of each."""

    site: Site
    catalogue: Catalogue
    groups: list[tuple[Part, ...]]
    drawn: Drawn
    built: dict[tuple[str, int], list[FileEntry]] = field(default_factory=dict)

    def make(self, plan: Plan) -> tuple[Sharded, int]:
        """Build a plan and open it; the index and its bytes."""
        site, scratch, name = self.site, self.drawn.scratch, f"items-{plan.kind}-{plan.place}"
        shards = Shards(
            site.items, plan.kind, plan.parameters, site.seed, scratch, site.out.storage, name
        )
        kind = kind_with_lists(plan.kind)
        if kind is not None:
            engine = learned(kind, plan.parameters, site.seed, self.drawn, site.pool)
            shards = replace(shards, engine=f"{name}.engine")
            scratch.write(shards.engine, faiss.serialize_index(engine).tobytes())
        entries = fill_shards(shards, self.groups, site.pool)
        self.built[plan.kind, plan.place] = entries
        paths = [entry.path for entry in entries]
        index = open_shards(site.out.storage, plan.kind, plan.parameters, paths)
        return index, sum(entry.bytes for entry in entries)

    def spread(
        self, plan: Plan, index: Index, choice: Choice | None, verifying: PartedTruth
    ) -> Spread:
        """What is to be told of the index of a plan; files of all other plans are removed."""
        ours = (plan.kind, plan.place)
        self.remove_all_but(ours)
        entries = tuple(self.built[ours])
        return Spread(plan.kind, index, choice, verifying, self.catalogue, entries, plan.bytes)

    def remove_all_but(self, ours: tuple[str, int] | None) -> None:
        """Remove the files of all plans but one."""
        for entry in (e for key, every in self.built.items() if key != ours for e in every):
            self.site.out.storage.remove(entry.path)


def _chosen(
    builder: _Builder, plans: list[Plan], tuning_BD: Floats, verifying_BD: Floats
) -> Spread:
    """The best index that keeps the promise."""
    site, catalogue = builder.site, builder.catalogue
    config, verified, promise = site.config, len(verifying_BD), Promise.of(site.config)
    fitting = fitting_of(plans, config, verified, catalogue.items, catalogue.dim)
    too_long = _too_long(fitting, config)
    tuning, verifying = truths_of(catalogue, site.pool, [tuning_BD, verifying_BD], K)
    some_ND = builder.drawn.first(LEARNED_FROM)
    known = Known(some_ND, catalogue.items, tuning, verifying, tuple(too_long))
    # Of large catalogues a second kind is built where the first fails, not to be a little faster.
    hunt = Hunt(some_ND, tuning, verified, promise, builder.make, worth=0.0)
    fitting = [plan for plan in fitting if plan not in too_long]
    choice = hunted(hunt, known, plans, fitting, config, site.progress)
    if hunt.winner is None:
        raise AssertionError("a choice without a winner")
    return builder.spread(hunt.winner.plan, choice.index, choice, verifying)


def _plans(
    config: IndexConfig, catalogue: Catalogue, groups: Sequence[tuple[Part, ...]]
) -> list[Plan]:
    """Candidates, their bytes those of all shards; without a promise the one that is configured."""
    items, dim = catalogue.items, catalogue.dim
    if config.promised:
        plans = plans_of(items, dim, config)
    else:
        kind = kind_of(config.kind)
        parameters = kind.plan(items, dim, config)
        plans = [Plan(config.kind, 0, parameters, 0, kind.work(items, dim, parameters))]
    sizes = [sum(part.items for part in group) for group in groups]
    return [
        replace(
            plan,
            bytes=round(sum(INDEXES[plan.kind].estimate(n, dim, plan.parameters) for n in sizes)),
        )
        for plan in plans
    ]


def _wanted(plans: Sequence[Plan]) -> int:
    """Items to draw: for the most lists of any plan, and for codes."""
    lists = max(plan.parameters.get("lists", 0) for plan in plans)
    return max(LEARNED_FROM, lists * LOOKED_AT)


def _too_long(plans: Sequence[Plan], config: IndexConfig) -> list[Plan]:
    """Plans that are left out for the time they would take to build."""
    quick = [plan.seconds for plan in plans if not INDEXES[plan.kind].exact]
    if config.kind != AUTO or not quick:
        return []
    return [plan for plan in plans if plan.seconds > _TOO_LONG * min(quick)]


@contextmanager
def _scratch(out: Writer) -> Iterator[Storage]:
    """A folder for what tasks hand to each other, gone afterwards."""
    scratch = out.storage.at("scratch")
    scratch.clear()
    try:
        yield scratch
    finally:
        scratch.clear()
