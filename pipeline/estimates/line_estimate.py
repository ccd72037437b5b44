"""The estimate of all stages: unit costs, corrected by what finished runs took.

A run over a part of the log that has finished tells what stages take on its machine: `measured`
runs. With one, a stage's time and memory are multiplied by how far the unit costs were off there;
with several, time follows the line through the two largest runs over the estimated time, and memory
their power law, as buffers are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from embedmill.pipeline.estimates.line_sizes import GivenLine, LineSizes
from embedmill.pipeline.estimates.machines import Machines
from embedmill.pipeline.estimates.unit_costs import COSTS, StageCost, Work
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import duration, si
from embedmill.pipeline.train.estimate import Estimate, GivenSizes, estimate
from embedmill.pipeline.train.resources.available import local_workers
from embedmill.schemas.stages import STAGES

__all__ = ["LineEstimate", "StageEstimate", "estimate_line", "work_of"]


@dataclass(frozen=True)
class StageEstimate:
    """What a stage will take.

    Attributes:
        seconds: on these machines.
        core_hours: of work.
        memory: bytes of all processes where there is one machine; else of the busiest node.
        task: bytes of one task.
        bytes_in: read.
        bytes_out: written, which the run's disk keeps.
        shuffled: bytes sent from task to task.
        cost: money for all machines over its time; 0 where no price is given.
    """

    seconds: float
    core_hours: float
    memory: float
    task: float
    bytes_in: float
    bytes_out: float
    shuffled: float
    cost: float


@dataclass(frozen=True)
class LineEstimate:
    """What all stages will take, and the training in detail."""

    sizes: LineSizes
    machines: Machines
    stages: dict[str, StageEstimate]
    train: Estimate

    def as_json(self) -> dict[str, Any]:
        """One flat object: figures of the training, and `stages.STAGE.FIGURE`."""
        flat = self.train.as_json() | {f"log.{k}": v for k, v in asdict(self.sizes).items()}
        flat |= {"cores": self.machines.cores, "nodes": self.machines.nodes}
        for stage, one in self.stages.items():
            flat |= {f"stages.{stage}.{k}": round(v, 3) for k, v in asdict(one).items()}
        return flat | {
            "seconds": round(self.seconds, 1),
            "peak_memory": round(max(one.memory for one in self.stages.values())),
            "disk": round(sum(one.bytes_out for one in self.stages.values())),
            "core_hours": round(sum(one.core_hours for one in self.stages.values()), 3),
            "cost": round(sum(one.cost for one in self.stages.values()), 2),
        }

    @property
    def seconds(self) -> float:
        """Of all stages, one after the other."""
        return sum(one.seconds for one in self.stages.values())

    def lines(self) -> list[tuple[str, ...]]:
        """A table: a head, a line for each stage, and all of them together; 80 columns."""
        head = ("stage", "time", "core-h", "memory", "a task", "read", "shuffled", "written")
        priced = self.machines.price > 0
        lines = [head + ("cost",) * priced]
        for stage, one in self.stages.items():
            sizes = (one.memory, one.task, one.bytes_in, one.shuffled, one.bytes_out)
            line = (stage, duration(one.seconds), f"{one.core_hours:.2f}", *map(_bytes, sizes))
            lines.append(line + (f"{one.cost:.2f}",) * priced)
        every = list(self.stages.values())
        total = (
            "all", duration(self.seconds), f"{sum(one.core_hours for one in every):.2f}",
            _bytes(max(one.memory for one in every)), "", "", "",
            _bytes(sum(one.bytes_out for one in every)),
        )  # fmt: skip
        lines.append(total + (f"{sum(one.cost for one in every):.2f}",) * priced)
        return lines


def estimate_line(
    run: Run,
    given: GivenLine,
    machines: Machines,
    *,
    measured: Sequence[Run] = (),
    seconds: float = 3.0,
) -> LineEstimate:
    """Estimate all stages of a run.

    Args:
        run: its config, and its finished stages.
        given: sizes for stages that have not finished.
        machines: that it will run on.
        measured: finished runs of the same config over parts of the log, or of other logs.
        seconds: how long to calibrate training with real steps; 0: not at all.

    Raises:
        ConfigError: sizes are neither stored nor given.
    """
    work = work_of(run, given, machines, seconds)
    train_seconds = work.train.seconds / max(1, work.sizes.train)
    found: list[tuple[Work, Run]] = []
    for one in measured:
        sizes = LineSizes.of(one, GivenLine())
        small = work_of(one, _given_of(sizes), Machines.of(""), 0.0)
        per_event = train_seconds * work.workers / small.workers
        timed = replace(small.train, seconds=per_event * sizes.train)
        found.append((replace(small, train=timed), one))
    found.sort(key=lambda pair: pair[0].sizes.rows)
    stages = {stage: _stage(stage, work, machines, found) for stage in STAGES}
    return LineEstimate(work.sizes, machines, stages, work.train)


def _given_of(sizes: LineSizes) -> GivenLine:
    return GivenLine(sizes.rows, sizes.users, sizes.items, sizes.train)


def work_of(run: Run, given: GivenLine, machines: Machines, seconds: float) -> Work:
    """What the stages of a run are given. Args and errors as of `estimate_line`."""
    sizes = LineSizes.of(run, given)
    known = GivenSizes(sizes.users, sizes.items, sizes.train)
    finished = run.find("shards") is not None and given == GivenLine()
    workers, of_cluster = local_workers(run.config), 0
    if machines.nodes > 1:
        most = machines.cores // run.config.train.threads
        workers = of_cluster = max(1, min(most, run.config.run.partitions))
    train = estimate(
        run, GivenSizes() if finished else known, seconds=seconds, cluster_workers=of_cluster
    )
    return Work(sizes, run.config, train, machines.cores, workers, machines.cpus)


def _stage(
    stage: str, work: Work, machines: Machines, measured: Sequence[tuple[Work, Run]]
) -> StageEstimate:
    """The estimate of a stage by its unit costs, corrected by what runs have taken.

    Args:
        stage: its name.
        work: what it is given.
        machines: that it will run on.
        measured: runs by rising size, with what they were given.
    """
    own = COSTS[stage](work)
    seconds, memory = own.seconds(machines.cores), own.memory
    points = []
    for given, run in measured:
        artifact = run.find(stage)
        if artifact is not None and artifact.manifest.seconds > 0:
            cost, manifest = COSTS[stage](given), artifact.manifest
            peak = manifest.measured.get("peak_bytes", cost.memory)
            points.append(_Point(cost, given.cores, manifest.seconds, peak))
    if points:
        # The line is one of a single machine: more of them share the work of the measured one.
        here = own.seconds(points[-1].cores)
        seconds *= _line([(p.expected, p.seconds) for p in points], here) / here
        memory = _power_law([(p.cost.memory, p.peak) for p in points], memory)
    if machines.nodes > 1:
        memory = own.task * min(machines.cpus, -(-own.parts // machines.nodes))
    busy = own.core_seconds + own.fixed + own.serial
    return StageEstimate(
        seconds, busy / 3600, memory, own.task, own.bytes_in, own.bytes_out, own.shuffled,
        machines.cost(seconds),
    )  # fmt: skip


@dataclass(frozen=True)
class _Point:
    """A stage of a finished run: what was to be expected of it, and what it took."""

    cost: StageCost
    cores: int
    seconds: float
    peak: float

    @property
    def expected(self) -> float:
        return self.cost.seconds(self.cores)


def _line(points: Sequence[tuple[float, float]], at: float) -> float:
    """What is to be expected at `at`: by the line through the two last points, or in proportion.

    The line's slope is never below that of the last point by more than a half, as short stages
    are timed badly.
    """
    (x, y) = points[-1]
    if len(points) == 1 or points[-2][0] == x:
        return at * y / x
    before_x, before_y = points[-2]
    slope = max((y - before_y) / (x - before_x), y / x / 2)
    return max(y + slope * (at - x), at * y / x / 2)


def _power_law(points: Sequence[tuple[float, float]], at: float) -> float:
    """The same for memory, in logarithms; the exponent is between 0 and 1."""
    (x, y) = points[-1]
    if len(points) == 1 or points[-2][0] == x:
        return at * y / x
    before_x, before_y = points[-2]
    slope = math.log(y / before_y) / math.log(x / before_x)
    return float(y * (at / x) ** min(1.0, max(0.0, slope)))


def _bytes(size: float) -> str:
    return f"{si(size)}B" if size >= 1000 else f"{size:.0f} B"
