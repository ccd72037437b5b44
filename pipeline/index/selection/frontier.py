"""What became of every candidate, for the artifact and for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.index.selection.plans import Plan

__all__ = ["Candidate", "Measured", "frontier", "lines"]

# Points in an error.
_SHOWN = 8


@dataclass(frozen=True)
class Measured:
    """An operating point: of searching (`parameters`), and what was found with it.

    `recall` is of the queries of tuning, `microseconds` counted, `milliseconds` by the clock.
    """

    parameters: Mapping[str, int]
    recall: float
    microseconds: float
    milliseconds: float


@dataclass(frozen=True)
class Candidate:
    """A plan and its outcome.

    `verdict` says why it was built or was not; `expected` are microseconds by the trial, None
    without one or where it fell short; `bytes` and `seconds` are those of the built index.
    """

    plan: Plan
    verdict: str
    expected: float | None = None
    bytes: int | None = None
    seconds: float | None = None
    points: tuple[Measured, ...] = ()

    def as_json(self, slowness: float) -> dict[str, Any]:
        """What is stored; seconds are estimated for a machine so much slower."""
        best = max(self.points, key=lambda p: (p.recall, -p.microseconds), default=None)
        return {
            "kind": self.plan.kind,
            "parameters": dict(self.plan.parameters),
            "verdict": self.verdict,
            "expected_us": self.expected,
            "estimated_bytes": self.plan.bytes,
            "bytes": self.bytes,
            "estimated_seconds": round(self.plan.seconds * slowness, 3),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "ms_per_query": best.milliseconds if best else None,
        }


def frontier(candidates: Iterable[Candidate]) -> list[tuple[Candidate, Measured]]:
    """Points that no other beats in recall, time and bytes at once, by rising recall."""
    every = [(one, point) for one in candidates for point in one.points]
    kept = [pair for pair in every if not any(_beats(other, pair) for other in every)]
    return sorted(kept, key=lambda pair: (pair[1].recall, -pair[1].microseconds))


def lines(candidates: Sequence[Candidate]) -> str:
    """The best points of the frontier as lines of at most 80 columns, parameters wrapped."""
    said = [f"{'recall@10':>11} {'ms':>8} {'bytes':>14}  kind and parameters"]
    for one, point in frontier(candidates)[-_SHOWN:]:
        parameters = " ".join(f"{k}={v}" for k, v in point.parameters.items())
        figures = f"{point.recall:11.4f} {point.milliseconds:8.3f} {one.bytes or 0:14,}  "
        said += textwrap.wrap(
            f"{one.plan.kind} {parameters}",
            80,
            initial_indent=figures,
            subsequent_indent=" " * (len(figures) + 2),
        )
    return "\n".join(said)


def _beats(one: tuple[Candidate, Measured], other: tuple[Candidate, Measured]) -> bool:
    first, second = _figures(*one), _figures(*other)
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def _figures(one: Candidate, point: Measured) -> tuple[Any, ...]:
    return -point.recall, point.microseconds, one.bytes or 0
