"""The plan of a cluster beside a simulation that places every task on a core.

    python benchmarks/cluster_simulation.py [--rows 1000000000] [--cluster 16x8cpu32g] [--json]

`embedmill plan` divides the work of a stage by the cores that it can use. Here each stage is cut
into its tasks, whose lengths differ as those of real tasks do (lognormal, a standard deviation of
--skew), one in a thousand fails and runs again, and each goes to the core that is free first. The
stages follow each other. What the simulation adds is the wait for the last tasks. Prints a table;
with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import heapq
from typing import Any

import numpy as np
from harness.command_line import finish, parser_of

from embedmill.pipeline.config import parse
from embedmill.pipeline.estimates import GivenLine, Machines, estimate_line
from embedmill.pipeline.estimates.line_estimate import work_of
from embedmill.pipeline.estimates.unit_costs import COSTS, StageCost
from embedmill.pipeline.store.run import Run

_FAILURE = 0.001  # share of tasks that run twice


def simulated(
    cost: StageCost, cores: int, skew: float, failure: float, draw: np.random.Generator
) -> float:
    """Seconds until the last task has ended, with tasks placed in order on the first free core.

    Args:
        cost: of the stage.
        cores: of all machines.
        skew: standard deviation of the logarithm of a task's length.
        failure: share of the tasks that run twice.
        draw: where the random numbers come from.
    """
    share = draw.lognormal(0.0, skew, cost.parts)
    length = cost.core_seconds * share / share.sum()
    length = np.where(draw.random(cost.parts) < failure, 2 * length, length)
    free = [0.0] * min(cores, cost.parts)
    for seconds in length.tolist():
        heapq.heapreplace(free, free[0] + seconds)
    return cost.fixed + cost.serial + max(free)


def run_of(args: argparse.Namespace) -> Run:
    """A run with the settings of the page on scale."""
    partitions = max(64, min(65536, 4 * Machines.of(args.cluster).cores))
    train = {"objective": "softmax", "dim": args.dim, "epochs": 1, "batch_size": args.batch,
             "softmax": {"init": "normal", "smoothing": {"weight": 0.0}}}  # fmt: skip
    events = {"paths": "none", "time": "time"}
    evaluate, export = {"users": 20_000}, {"npy": False}
    run = {"name": "simulated", "root": "/nowhere", "partitions": partitions}
    return Run(
        parse(
            {"run": run, "events": events, "train": train, "export": export, "evaluate": evaluate}
        )
    )


def compared(args: argparse.Namespace) -> dict[str, Any]:
    """Both for each stage, flat."""
    run, machines = run_of(args), Machines.of(args.cluster)
    given = GivenLine(args.rows, args.rows // 10, min(args.rows // 100, 50_000_000))
    planned = estimate_line(run, given, machines, seconds=args.seconds)
    work, draw = work_of(run, given, machines, args.seconds), np.random.default_rng(1)
    flat: dict[str, Any] = {"rows": args.rows, "cores": machines.cores}
    for stage, one in planned.stages.items():
        cost = COSTS[stage](work)
        flat[f"{stage}.planned"] = one.seconds
        # Workers of training own as many rows as each other, and wait for each other in each step.
        skew, failure = (args.skew / 10, 0.0) if stage == "train" else (args.skew, _FAILURE)
        flat[f"{stage}.simulated"] = simulated(cost, machines.cores, skew, failure, draw)
    for kind in ("planned", "simulated"):
        flat[kind] = sum(flat[f"{stage}.{kind}"] for stage in planned.stages)
    flat["planned_over_simulated"] = flat["planned"] / flat["simulated"]
    return flat


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    parser.add_argument("--cluster", default="16x8cpu32g")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="to time steps of training")
    parser.add_argument("--batch", type=int, default=16_384, help="events of a step")
    parser.add_argument("--skew", type=float, default=0.3)
    args = parser.parse_args()
    flat = compared(args)
    print(f"{args.rows:,} rows on {args.cluster}")
    print(f"{'stage':<10}{'planned s':>12}{'simulated s':>13}")
    for stage in COSTS:
        print(f"{stage:<10}{flat[f'{stage}.planned']:12,.0f}{flat[f'{stage}.simulated']:13,.0f}")
    print(f"{'all':<10}{flat['planned']:12,.0f}{flat['simulated']:13,.0f}")
    finish(args, flat)


if __name__ == "__main__":
    main()
