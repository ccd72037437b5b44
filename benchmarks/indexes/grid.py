"""What is tried of each library by hand, and the least effort of each that reaches a recall.

Points are judged on the very queries they are told with: no user could tune as well. Ours and
autofaiss's pick have not seen them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from indexes.process import Exact, Process

Settings = dict[str, Any]

# A target is no longer looked for where the first step beyond it was this good.
ENOUGH = 0.998
STEP = 1.5
FINE = 1.06  # ratio of efforts between which no third is tried


@dataclass(frozen=True)
class Build:
    """An index to build: `parameter` is what effort is called, from `least` to `most`.

    `views` are other settings of a search, each of which gets a ladder of efforts of its own.
    """

    name: str
    settings: Settings
    parameter: str = "ef"
    least: int = 10
    most: int = 2000
    views: tuple[Settings, ...] = ({},)


@dataclass(frozen=True)
class Point:
    """One build at one effort, `k` answers asked for; a rough qps."""

    contender: str
    build: str
    effort: Settings
    k: int
    recall: float
    qps: float
    built: dict[str, Any] = field(compare=False)

    @property
    def label(self) -> str:
        """Short, for tables: hnsw32 ef 40, or what a build says of itself."""
        told = self.built.get("label", self.build)
        return " ".join([told, *(f"{k} {v}" for k, v in self.effort.items())])


def faiss(count: int, dim: int) -> list[Build]:
    """Graphs, lists, and lists of 4-bit codes with the raw vectors behind them."""
    lists = min(4096, round(4 * math.sqrt(count)))
    codes = dim // 2 if dim <= 128 else dim // 4
    most = lists // 2
    refine = tuple({"k_factor": factor} for factor in (4, 10, 30))
    packed = {"factory": f"IVF{lists},PQ{codes}x4fs,RFlat"}
    return [
        Build("default", {"factory": "HNSW32"}, least=16),
        *(
            Build(f"hnsw{links}", {"factory": f"HNSW{links}", "construction": 100})
            for links in graphs(count)
        ),
        Build(f"ivf{lists}", {"factory": f"IVF{lists},Flat"}, "probes", 1, most),
        Build(f"ivf{lists}pqfs", packed, "probes", 1, most, refine),
    ]


def hnswlib(count: int, dim: int) -> list[Build]:
    """Links of its examples and twice as many."""
    return [Build(f"m{m}", {"links": m, "construction": 100}) for m in graphs(count)]


def usearch(count: int, dim: int) -> list[Build]:
    """Its default of 16 links and twice as many, in full precision and in half."""
    sized = [(m, "f32") for m in graphs(count)] + [(16, "f16")]
    return [
        Build(f"m{m}{kind}", {"links": m, "construction": 100, "dtype": kind}) for m, kind in sized
    ]


def graphs(count: int) -> tuple[int, ...]:
    """Links a vector; a million vectors are linked once."""
    return (16, 32) if count < 1_000_000 else (16,)


GRIDS: dict[str, Callable[[int, int], list[Build]]] = {
    "faiss": faiss,
    "hnswlib": hnswlib,
    "usearch": usearch,
}


@dataclass
class Search:
    """Tries the builds of a library one after another, keeping what may be the best."""

    process: Process
    exact: Exact
    targets: Sequence[float]
    points: list[Point] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)

    def over(self, builds: Sequence[Build]) -> None:
        """Build and try all."""
        for build in builds:
            built = self.process.ask("build", name=build.name, settings=build.settings)
            for view in build.views:
                self._ladder(build, view, built, 10)
            best = [self.best(target) for target in self.targets]
            self.kept = {p.build for p in best if p} | {"default"} & {b.name for b in builds}
            self.process.ask("keep", names=sorted(self.kept))
            if build.name in self.kept:
                for view in build.views:
                    self._ladder(build, view, built, 100)

    def best(self, target: float, k: int = 10) -> Point | None:
        """The fastest point that keeps it."""
        able = [p for p in self.points if p.k == k and p.recall >= target]
        return max(able, key=lambda p: p.qps, default=None)

    def drawn(self, k: int) -> list[Point]:
        """Points of builds that are still there which none beats in recall and speed."""
        found: list[Point] = []
        here = [p for p in self.points if p.k == k and (p.build in self.kept or not self.kept)]
        for point in sorted(here, key=lambda p: (-p.recall, -p.qps)):
            if not found or point.qps > found[-1].qps:
                found.append(point)
        return found[::-1]

    def again(self, point: Point) -> float:
        """Queries per second of a point, measured anew."""
        words = {"name": point.build, "part": "test", "k": point.k, "effort": point.effort}
        rows, seconds = self.process.answers(**words)
        return len(rows) / seconds

    def try_one(self, name: str, effort: Settings, built: dict[str, Any], k: int) -> Point:
        """Ask the test queries once."""
        rows, seconds = self.process.answers(name=name, part="test", k=k, effort=effort)
        point = Point(
            self.process.contender, name, effort, k, self.exact.recall(rows), len(rows) / seconds,
            built,
        )  # fmt: skip
        self.points.append(point)
        return point

    def _ladder(self, build: Build, view: Settings, built: dict[str, Any], k: int) -> None:
        def at(effort: int) -> float:
            return self.try_one(build.name, {**view, build.parameter: effort}, built, k).recall

        effort = max(build.least, k if build.parameter == "ef" else 1)
        tried = {effort: at(effort)}
        while tried[effort] < ENOUGH and effort < build.most and not _flat(list(tried.values())):
            effort = min(build.most, math.ceil(effort * STEP))
            tried[effort] = at(effort)
        for target in self.targets if k == 10 else ():
            self._narrow(at, tried, target)

    def _narrow(self, at: Callable[[int], float], tried: dict[int, float], target: float) -> None:
        """Halve the gap in which the target begins to be met."""
        below = max((e for e, recall in tried.items() if recall < target), default=0)
        above = min((e for e, recall in tried.items() if recall >= target), default=0)
        while below > 0 and below + 1 < above and above > below * FINE:
            middle = round(math.sqrt(below * above))
            middle = min(max(middle, below + 1), above - 1)
            tried[middle] = at(middle)
            below, above = (below, middle) if tried[middle] >= target else (middle, above)


def _flat(recalls: list[float]) -> bool:
    """Whether more effort has stopped to help: codes that cannot tell neighbours apart."""
    return len(recalls) > 4 and recalls[-1] - recalls[-3] < 1e-4
