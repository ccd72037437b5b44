"""A table larger than memory: pairs per second under a limit, beside the run in memory.

    python benchmarks/beyond_memory.py [--json] [--rows 50000000] [--limit 4]

Two workers train the same steps twice: with their tables in memory, without a limit (left out
where memory does not suffice), and with mapped tables under a limit of so many GiB. Events are
drawn by a power law, the r-th row in proportion to r ** -0.8. The optimizer keeps a number a row:
with Adam's moments beside them such tables are three times as large and fit no memory of this size.
They begin with normal values: a spectral start goes over mapped tables many times.
Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from harness.children import Result, call, serve
from harness.command_line import add_folder, finish, parser_of

from embedmill.pipeline.config import parse
from embedmill.pipeline.memory import free_memory
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.assembly import assemble
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.estimate import synthetic_examples
from embedmill.pipeline.train.plan import Layout, TrainingSize
from embedmill.pipeline.train.resources.budget import budget_of
from embedmill.pipeline.train.trainer import Trainer

_WARM = 0.25  # share of the steps before the clock starts


def config_of(args: argparse.Namespace, tables: str, folder: str) -> Run:
    """The run: softmax with the defaults, at this size."""
    train = {
        "dim": args.dim, "batch_size": args.batch, "negatives": args.negatives,
        "workers": args.workers, "tables": tables, "scratch": folder, "optimizer": "adagrad",
        "init": "normal",
    }  # fmt: skip
    name = {"name": "beyond-memory", "root": folder, "partitions": 256}
    tree = {"run": name, "events": {"paths": "x", "time": "t"}}
    return Run(parse({**tree, "train": train}))


def size_of(args: argparse.Namespace) -> TrainingSize:
    """A twentieth of the rows, at most a million, is items."""
    items = min(args.rows // 20, 1_000_000)
    return TrainingSize(args.rows - items, items, args.steps * args.batch, 0)


def work(rank: int, args: argparse.Namespace, tables: str, folder: str, answer: Any) -> None:
    """One worker: make the tables, take the steps."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store-{tables}", rank=rank, world_size=args.workers
    )
    run, group = config_of(args, tables, folder), Group.current()
    layout = Layout(run.config.run.partitions, group.world, group.rank)
    began = time.perf_counter()
    trainer = assemble(run, synthetic_examples(size_of(args), layout), group, Cursor())
    group.max(0)
    made = time.perf_counter() - began
    pairs, seconds, loss = stepped(trainer)
    if rank == 0:
        answer.put({"pairs_per_second": pairs / seconds, "made": made, "loss": loss})
    dist.destroy_process_group()


def stepped(trainer: Trainer) -> tuple[int, float, float]:
    """Take all steps; pairs and seconds after the warm ones, and the last loss."""
    take_step = trainer.start_epoch()
    warm, pairs, began, loss = int(_WARM * trainer.plan.steps), 0, 0.0, math.nan
    for step in range(trainer.plan.steps):
        if step == warm:
            began = time.perf_counter()
        loss = take_step(step)
        if step >= warm:
            pairs += sum(trainer.plan.batch_sizes(step))
    return pairs, time.perf_counter() - began, loss


def trained(argument: dict[str, Any]) -> dict[str, float]:
    """All workers of one run, in a process of their own that may be limited."""
    args = argparse.Namespace(**argument)
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-", dir=args.folder) as folder:
        answer = mp.get_context("spawn").SimpleQueue()
        mp.spawn(  # type: ignore[attr-defined]
            work, (args, args.tables, folder, answer), nprocs=args.workers
        )
        found: dict[str, float] = answer.get()
    return found


def measured(args: argparse.Namespace, tables: str, limit_bytes: int = 0) -> Result:
    """One run."""
    return call(__file__, "trained", {**vars(args), "tables": tables}, limit_bytes=limit_bytes)


def compared(args: argparse.Namespace) -> dict[str, Any]:
    """Both runs, flat."""
    budget = budget_of(size_of(args), config_of(args, "memory", args.folder).config, args.workers)
    flat: dict[str, Any] = {"rows": args.rows, "dim": args.dim, "table_bytes": budget.files,
                            "limit_bytes": int(args.limit * 2**30)}  # fmt: skip
    if not args.only and budget.memory("memory") <= free_memory():
        flat |= {f"memory.{key}": v for key, v in measured(args, "memory").value.items()}
    mapped = measured(args, "mapped", flat["limit_bytes"])
    flat |= {f"mapped.{key}": value for key, value in mapped.value.items()}
    flat |= {"limit_by": mapped.limited_by, "mapped.peak_bytes": mapped.peak_bytes}
    if "memory.loss" in flat:
        flat["mapped_over_memory"] = (
            flat["mapped.pairs_per_second"] / flat["memory.pairs_per_second"]
        )
        flat["same_loss"] = flat["mapped.loss"] == flat["memory.loss"]
    return flat


def shown(flat: dict[str, Any]) -> None:
    print(f"{flat['rows']:,} rows x {flat['dim']}, {flat['table_bytes'] / 2**30:.1f} GiB of tables")
    print(f"limit {flat['limit_bytes'] / 2**30:.1f} GiB by {flat['limit_by']}, "
          f"peak {flat['mapped.peak_bytes'] / 2**30:.2f} GiB")  # fmt: skip
    for name in ("memory", "mapped"):
        if f"{name}.made" in flat:
            speed, made = flat[f"{name}.pairs_per_second"], flat[f"{name}.made"]
            print(f"{name:<8} {speed:>12,.0f} pairs/s   tables made in {made:.0f} s")
    if "mapped_over_memory" in flat:
        same = "the same loss" if flat["same_loss"] else "ANOTHER LOSS"
        print(f"mapped over memory: {flat['mapped_over_memory']:.2f}, {same}")
    else:
        print("in memory: not run (--only, or too little is free)")


def main() -> None:
    serve({"trained": trained})
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16_384, help="pairs of a step")
    parser.add_argument("--negatives", type=int, default=256)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=4.0, help="GiB for the mapped run")
    add_folder(parser)
    parser.add_argument("--only", action="store_true", help="leave the run in memory out")
    args = parser.parse_args()
    flat = compared(args)
    shown(flat)
    finish(args, flat)


if __name__ == "__main__":
    main()
