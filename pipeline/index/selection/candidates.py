"""What became of every candidate plan, for the artifact and for error messages."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from embedmill.pipeline.index.selection.plans import Plan
from embedmill.schemas.index import CandidateResult

__all__ = ["Candidate", "MeasuredPoint", "Outcome", "frontier", "frontier_table"]

# Operating points shown in an error.
_SHOWN = 8


class Outcome(enum.Enum):
    """What became of a plan; the values are stored."""

    BUILT = "built"
    BUILT_TOO_LARGE = "over max_bytes once built"
    NOT_EXPECTED_TO_WIN = "not expected to win"
    EARLIER_PLAN_TAKEN = "an earlier one of its kind did"
    TOO_SLOW_TO_BUILD = "takes too long to build"
    OVER_BUDGET = "over max_bytes"


@dataclass(frozen=True)
class MeasuredPoint:
    """An operating point of a built index, and what was measured there.

    `recall` is that of the tuning queries, `cost_us` is counted, `milliseconds` are measured.
    """

    parameters: Mapping[str, int]
    recall: float
    cost_us: float
    milliseconds: float


@dataclass(frozen=True)
class Candidate:
    """A plan and its outcome.

    `expected_us` is the cost of a search that its trial predicted, None where there was no trial
    or where it fell short of the target recall; `bytes` and `seconds` are those of the built
    index, None where it was not built.
    """

    plan: Plan
    outcome: Outcome
    expected_us: float | None = None
    bytes: int | None = None
    seconds: float | None = None
    points: tuple[MeasuredPoint, ...] = ()

    def stored(self, slowdown: float) -> CandidateResult:
        """As stored in the artifact; `slowdown` scales the estimated seconds to this machine."""
        best = max(self.points, key=lambda p: (p.recall, -p.cost_us), default=None)
        return CandidateResult(
            kind=self.plan.kind,
            parameters=dict(self.plan.parameters),
            verdict=self.outcome.value,
            expected_us=self.expected_us,
            estimated_bytes=self.plan.bytes,
            bytes=self.bytes,
            estimated_seconds=round(self.plan.build_seconds * slowdown, 3),
            seconds=None if self.seconds is None else round(self.seconds, 3),
            ms_per_query=best.milliseconds if best else None,
        )


def frontier(candidates: Iterable[Candidate]) -> list[tuple[Candidate, MeasuredPoint]]:
    """The Pareto frontier of recall, cost and bytes over all operating points, by rising recall."""
    every = [(candidate, point) for candidate in candidates for point in candidate.points]
    best = [pair for pair in every if not any(_dominates(other, pair) for other in every)]
    return sorted(best, key=lambda pair: (pair[1].recall, -pair[1].cost_us))


def frontier_table(candidates: Sequence[Candidate]) -> str:
    """The end of the frontier as a table of at most 80 columns, parameters wrapped."""
    lines = [f"{'recall@10':>11} {'ms':>8} {'bytes':>14}  kind and parameters"]
    for candidate, point in frontier(candidates)[-_SHOWN:]:
        parameters = " ".join(f"{k}={v}" for k, v in point.parameters.items())
        numbers = f"{point.recall:11.4f} {point.milliseconds:8.3f} {candidate.bytes or 0:14,}  "
        lines += textwrap.wrap(
            f"{candidate.plan.kind} {parameters}",
            80,
            initial_indent=numbers,
            subsequent_indent=" " * (len(numbers) + 2),
        )
    return "\n".join(lines)


def _dominates(
    one: tuple[Candidate, MeasuredPoint], other: tuple[Candidate, MeasuredPoint]
) -> bool:
    first, second = _costs(*one), _costs(*other)
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def _costs(candidate: Candidate, point: MeasuredPoint) -> tuple[float, ...]:
    return -point.recall, point.cost_us, candidate.bytes or 0
