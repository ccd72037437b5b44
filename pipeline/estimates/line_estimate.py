"""The estimate of all stages: unit costs, corrected by what finished runs took.

A run over a part of the log that has finished tells what stages take on its machine: `measured`
runs. All their stages together say how fast the machine is; by how much more or less a stage of its
own took is believed the more, the longer it took: a stage of two seconds is timed badly. Memory is
the geometric mean of what the unit costs say, and that times how far they were off in the largest
run: what a small run holds is mostly programs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from embedmill.pipeline.estimates.line_sizes import GivenLine, LineSizes
from embedmill.pipeline.estimates.machines import Machines
from embedmill.pipeline.estimates.unit_costs import COSTS, Work
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import duration, si
from embedmill.pipeline.train.estimate import Estimate, GivenSizes, estimate
from embedmill.pipeline.train.resources.available import local_workers
from embedmill.schemas.stages import STAGES

__all__ = ["LineEstimate", "StageEstimate", "estimate_line", "work_of"]

_TIMED = ("train",)  # by real steps on the machine that plans, which tells how fast it is
_SHORT = 5.0  # seconds; about so long a stage is timed to a tenth


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
    each = work.train.seconds * work.workers / max(1, work.sizes.train) / work.train.slower
    runs: list[tuple[Work, Run]] = []
    for one in measured:
        sizes = LineSizes.of(one, GivenLine())
        small = work_of(one, _given_of(sizes), Machines.of(""), 0.0)
        epoch = each * small.train.slower * sizes.train / small.workers
        timed = replace(small.train, seconds=epoch)
        runs.append((replace(small, train=timed, answered=_answered(one)), one))
    runs.sort(key=lambda pair: pair[0].sizes.rows)
    points = {stage: _points(stage, runs) for stage in STAGES}
    speed = _machine(found for stage, found in points.items() if stage not in _TIMED)
    speeds = {stage: 1.0 if stage in _TIMED else speed for stage in STAGES}
    stages = {s: _stage(s, work, machines, points[s], speeds[s]) for s in STAGES}
    return LineEstimate(work.sizes, machines, stages, work.train)


def _given_of(sizes: LineSizes) -> GivenLine:
    return GivenLine(sizes.rows, sizes.users, sizes.items, sizes.train)


def _answered(run: Run) -> float:
    """The share of the users that were drawn for evaluation who had an answer left."""
    evaluate = run.find("evaluate")
    counters = evaluate.counters if evaluate is not None else {}
    drawn = counters.get("users", 0) + counters.get("nothing_left", 0)
    return counters["users"] / drawn if drawn else 1.0


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


def _points(stage: str, measured: Sequence[tuple[Work, Run]]) -> list[_Point]:
    """What runs, by rising size, with what they were given, say of a stage."""
    points = []
    for given, run in measured:
        artifact = run.find(stage)
        if artifact is not None and artifact.manifest.seconds > 0:
            cost, manifest = COSTS[stage](given), artifact.manifest
            peak = manifest.measured.get("peak_bytes", cost.memory)
            expected = cost.seconds(given.cores)
            points.append(_Point(expected, manifest.seconds, peak / cost.memory))
    return points


def _stage(
    stage: str, work: Work, machines: Machines, points: Sequence[_Point], speed: float
) -> StageEstimate:
    """The estimate of a stage by its unit costs, corrected by what runs have taken.

    Args:
        stage: its name.
        work: what it is given.
        machines: that it will run on.
        points: what runs say of it, by rising size.
        speed: see `_machine`.
    """
    own = COSTS[stage](work)
    seconds = own.seconds(machines.cores) * _correction(points, speed)
    memory = own.memory * (points[-1].memory ** 0.5 if points else 1.0)
    if machines.nodes > 1:
        memory = own.task * min(machines.cpus, -(-own.parts // machines.nodes))
    busy = own.core_seconds + own.fixed + own.serial
    return StageEstimate(
        seconds, busy / 3600, memory, own.task, own.bytes_in, own.bytes_out, own.shuffled,
        machines.cost(seconds),
    )  # fmt: skip


@dataclass(frozen=True)
class _Point:
    """A stage of a finished run.

    Attributes:
        expected: seconds by the unit costs.
        seconds: that it took.
        memory: what it took at most, over what was expected.
    """

    expected: float
    seconds: float
    memory: float


def _machine(points: Iterable[Sequence[_Point]]) -> float:
    """Seconds of all stages of the runs, over those that were expected; 1 without runs."""
    every = [point for stage in points for point in stage]
    return sum(p.seconds for p in every) / sum(p.expected for p in every) if every else 1.0


def _correction(points: Sequence[_Point], speed: float) -> float:
    """What the seconds of a stage are multiplied by.

    That is the machine's `speed`, and by how much more than that the stage took in the runs, as the
    mean of logarithms by seconds; of the latter the part s / (s + 5) for s seconds in all.
    """
    timed = sum(point.seconds for point in points)
    if not timed:
        return speed
    own = sum(p.seconds * math.log(p.seconds / (p.expected * speed)) for p in points) / timed
    return speed * math.exp(own * timed / (timed + _SHORT))


def _bytes(size: float) -> str:
    return f"{si(size)}B" if size >= 1000 else f"{size:.0f} B"
