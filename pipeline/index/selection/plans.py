"""Candidate plans: estimated bytes and build time, before anything is built.

Legend: N items, D coordinates.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import IndexTargetError
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds import AUTO, INDEXES, kind_of
from embedmill.pipeline.index.selection.targets import Targets

__all__ = ["Plan", "PlanSet", "all_plans", "feasible_plans", "machine_slowdown", "within_budget"]


@dataclass(frozen=True)
class Plan:
    """A kind with parameters, and what building it is estimated to take.

    `number` counts the candidates of a kind, usually from the finest codes; `build_seconds` are
    of one core of the machine that `embedmill.pipeline.index.cost` describes.
    """

    kind: str
    number: int
    parameters: Mapping[str, int]
    bytes: int
    build_seconds: float

    @property
    def key(self) -> tuple[str, int]:
        """Identifies a plan among those of one selection."""
        return self.kind, self.number


@dataclass(frozen=True)
class PlanSet:
    """All plans of a selection, and those worth trying.

    `feasible` ones may meet the targets and are not `too_slow` to build.
    """

    every: Sequence[Plan]
    feasible: Sequence[Plan]
    too_slow: Sequence[Plan] = ()


def all_plans(items: int, dim: int, config: IndexConfig) -> list[Plan]:
    """Every candidate of the configured kind, or of all kinds with "auto"; pure.

    Raises:
        ConfigError: no such kind, or parameters that do not fit the vectors.
    """
    plans = []
    for name in INDEXES if config.kind == AUTO else (config.kind,):
        kind = kind_of(name)
        for number, parameters in enumerate(kind.candidates(items, dim, config)):
            size = round(kind.estimate_bytes(items, dim, parameters))
            seconds = kind.build_seconds(items, dim, parameters)
            plans.append(Plan(name, number, parameters, size, seconds))
    return plans


def feasible_plans(
    plans: Sequence[Plan], targets: Targets, verifying_queries: int, items: int, dim: int
) -> list[Plan]:
    """The plans that may meet the targets.

    Args:
        plans: of one selection.
        targets: what the index has to meet.
        verifying_queries: number of queries to verify recall with; without any, and for a
            target recall of 1, only exact search will do.
        items: number of items.
        dim: coordinates of the vectors.

    Raises:
        IndexTargetError: there are none.
    """
    if targets.recall == 1.0 or not verifying_queries:
        plans = _exact(plans)
    return within_budget(plans, targets.bytes, items, dim)


def _exact(plans: Sequence[Plan]) -> list[Plan]:
    exact = [plan for plan in plans if INDEXES[plan.kind].exact]
    if not exact:
        raise IndexTargetError(
            f"there are no queries to verify index.kind = '{plans[0].kind}' with",
            todo="Set index.kind = 'flat' or 'auto', or hold out events of known users",
        )
    return exact


def within_budget(plans: Sequence[Plan], max_bytes: int, items: int, dim: int) -> list[Plan]:
    """The plans of at most `max_bytes` bytes; 0: all.

    Args:
        plans: of one selection.
        max_bytes: of the index.
        items: number of items, for the message.
        dim: coordinates of the vectors, for the message.

    Raises:
        IndexTargetError: there are none; the message names the smallest.
    """
    small_enough = [plan for plan in plans if not max_bytes or plan.bytes <= max_bytes]
    if not small_enough:
        smallest = min(plans, key=lambda plan: plan.bytes)
        raise IndexTargetError(
            f"index.max_bytes: {max_bytes:,} bytes are not enough for {items:,} items of {dim} "
            f"coordinates: the smallest index, {smallest.kind}, takes about {smallest.bytes:,}",
            todo="Allow more bytes or export vectors of fewer coordinates",
        )
    return small_enough


def machine_slowdown() -> float:
    """How many times as long this machine takes as the one of `cost`, by a short benchmark."""
    matrix = np.ones((512, 512), np.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return min(seconds) / (512**3 * cost.MULTIPLY_ADD_NS * 1e-9)
