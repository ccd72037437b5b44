"""What every candidate will take, before anything is built: bytes, and seconds of building.

Legend: N items, D coordinates.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import PromiseError
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds import INDEXES, kind_of

__all__ = ["Plan", "plans_of", "slowness", "within"]


@dataclass(frozen=True)
class Plan:
    """A candidate: kind, parameters, and what is estimated of it.

    `place` is its place among the candidates of its kind, finest first; `seconds` are of one
    core of the machine that `embedmill.pipeline.index.cost` describes.
    """

    kind: str
    place: int
    parameters: Mapping[str, int]
    bytes: int
    seconds: float


def plans_of(items: int, dim: int, config: IndexConfig) -> list[Plan]:
    """Every candidate of the configured kind, or of all kinds; pure.

    Raises:
        ConfigError: no such kind, or parameters that do not fit the vectors.
    """
    names = list(INDEXES) if config.kind == "auto" else [config.kind]
    found = []
    for name in names:
        kind = kind_of(name)
        for place, parameters in enumerate(kind.candidates(items, dim, config)):
            size, seconds = (f(items, dim, parameters) for f in (kind.estimate, kind.work))
            found.append(Plan(name, place, parameters, round(size), seconds))
    return found


def within(plans: Sequence[Plan], most: int, items: int, dim: int) -> list[Plan]:
    """The candidates of at most so many bytes; 0: all.

    Raises:
        PromiseError: there is none; names the smallest.
    """
    kept = [plan for plan in plans if not most or plan.bytes <= most]
    if not kept:
        least = min(plans, key=lambda plan: plan.bytes)
        raise PromiseError(
            f"index.max_bytes: {most:,} bytes are not enough for {items:,} items of {dim} "
            f"coordinates: the smallest index, {least.kind}, takes about {least.bytes:,}",
            todo="Allow more bytes or export vectors of fewer coordinates",
        )
    return kept


def slowness() -> float:
    """How much longer than the machine of `index.cost` this one takes, by a short look."""
    left = np.ones((512, 512), np.float32)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        left @ left
        taken.append(time.perf_counter() - start)
    return min(taken) / (512**3 * cost.MULTIPLY * 1e-9)
