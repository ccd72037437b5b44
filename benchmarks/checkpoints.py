"""What checkpoints cost: the same steps without one, with one in the background, and at once.

    python benchmarks/checkpoints.py [--json] [--users 1000000] [--items 250000] [--seconds 30]

Two workers train pieces of about so many seconds in turn: without a checkpoint ("none"), with
one that is written while training goes on ("copied"), and with one that training waits for
("at_once"). `share` is the share of a piece's time that its checkpoint takes, as the piece
is longer than one without; `held_up` what the step loop itself spent on it. With
train.checkpoint_steps so that one is written every S seconds, it is seconds / S.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from harness.command_line import add_folder, finish, parser_of

from embedmill.pipeline.config import parse
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.assembly import assemble
from embedmill.pipeline.train.checkpoints.checkpoint import Checkpoints, Cursor, Identity
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.estimate import synthetic_examples
from embedmill.pipeline.train.plan import Layout, TrainingSize
from embedmill.pipeline.train.trainer import Trainer

KINDS = ("none", "copied", "at_once")
_POLL = 10  # steps: the fewest of a line of the log, after which the workers are asked
_WARM = 20  # steps


class Pieces:
    """Pieces of a training's steps, one after the other, epoch after epoch."""

    def __init__(self, trainer: Trainer, folder: str, steps: int) -> None:
        self.trainer = trainer
        self.steps = steps
        self.taken = 0
        self.stored = 0
        self.take_step = trainer.start_epoch()
        storage = Run(parse(tree_of(folder, {}))).storage.at("train")
        identity = Identity("benchmark", {}, {})
        self.checkpoints = Checkpoints(storage, identity, trainer.runtime.layout, trainer.group)

    def step(self) -> None:
        at = self.taken % self.trainer.plan.steps
        self.take_step(at)
        self.taken += 1

    def piece(self, kind: str) -> tuple[float, float]:
        """Seconds of a piece, and those that its steps did not take."""
        group = self.trainer.group
        group.max(0)  # all begin together
        group.timer.lap()
        began = time.perf_counter()
        if kind != "none":
            self.stored += 1
            cursor = Cursor(epoch=self.stored, history=[{"epoch": 1.0}])
            with group.timer("checkpoint"):
                self.checkpoints.begin(
                    cursor, self.trainer.model.copy_partition, copied=kind == "copied"
                )
        for step in range(1, self.steps + 1):
            self.step()
            if step % _POLL == 0:
                with group.timer("checkpoint"):
                    self.checkpoints.poll()
        with group.timer("checkpoint"):
            self.checkpoints.finish()
        # What the steps wait for a worker that is behind is an exchange, and in the whole.
        return time.perf_counter() - began, group.timer.lap()[1]["checkpoint"]


def tree_of(folder: str, train: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": {"name": "checkpoints", "root": folder},
        "events": {"paths": "x", "time": "t"},
        "train": train,
    }


def work(rank: int, args: argparse.Namespace, folder: str, answer: Any) -> None:
    """One worker; rank 0 answers with the seconds of all pieces."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=args.workers
    )
    train = {"dim": args.dim, "batch_size": args.batch, "negatives": args.negatives,
             "workers": args.workers, "tables": "memory", "optimizer": args.optimizer}  # fmt: skip
    run, group = Run(parse(tree_of(folder, train))), Group.current()
    layout = Layout(run.config.run.partitions, group.world, group.rank)
    size = TrainingSize(args.users, args.items, 60 * args.batch, 0)
    trainer = assemble(run, synthetic_examples(size, layout), group, Cursor())
    pieces = Pieces(trainer, folder, 1)
    for _ in range(_WARM):
        pieces.step()
    began = time.perf_counter()
    for _ in range(_WARM):
        pieces.step()
    seconds_a_step = (time.perf_counter() - began) / _WARM
    pieces.steps = max(_POLL, group.max(round(args.seconds / seconds_a_step)))
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for at in range(args.rounds):
        for kind in (KINDS, KINDS[::-1])[at % 2]:  # drift of the machine falls on all alike
            found[kind].append(pieces.piece(kind))
    if rank == 0:
        size_of = trainer.model.nbytes * args.workers
        answer.put({"found": found, "bytes": size_of, "pairs": pieces.steps * args.batch})
    dist.destroy_process_group()


def compared(args: argparse.Namespace) -> dict[str, Any]:
    """All figures, flat."""
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-", dir=args.folder) as folder:
        answer = mp.get_context("spawn").SimpleQueue()
        mp.spawn(  # type: ignore[attr-defined]
            work, (args, folder, answer), nprocs=args.workers
        )
        said = answer.get()
    flat: dict[str, Any] = {"users": args.users, "items": args.items, "dim": args.dim,
                            "checkpoint_bytes": said["bytes"]}  # fmt: skip
    middle = {k: statistics.median(s for s, _ in said["found"][k]) for k in KINDS}
    for kind in KINDS:
        flat[f"{kind}.seconds"] = middle[kind]
        flat[f"{kind}.pairs_per_second"] = said["pairs"] / middle[kind]
    for kind in KINDS[1:]:
        held = statistics.median(h for _, h in said["found"][kind])
        flat[f"{kind}.share"] = 1 - middle["none"] / middle[kind]
        flat[f"{kind}.held_up"] = held / middle[kind]
        flat[f"{kind}.checkpoint_seconds"] = middle[kind] - middle["none"]
    return flat


def shown(flat: dict[str, Any]) -> None:
    rows = flat["users"] + flat["items"]
    print(
        f"{rows:,} rows x {flat['dim']}, a checkpoint has {flat['checkpoint_bytes'] / 1e6:.0f} MB"
    )
    print(f"{'':<10}{'seconds':>9}{'pairs/s':>12}{'share':>9}{'held up':>9}")
    for kind in KINDS:
        line = (
            f"{kind:<10}{flat[f'{kind}.seconds']:>9.1f}{flat[f'{kind}.pairs_per_second']:>12,.0f}"
        )
        if f"{kind}.share" in flat:
            line += f"{flat[f'{kind}.share']:>9.1%}{flat[f'{kind}.held_up']:>9.1%}"
        print(line)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=250_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16_384, help="pairs of a step")
    parser.add_argument("--negatives", type=int, default=1024)
    parser.add_argument("--optimizer", default="adagrad")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="of a piece, about")
    parser.add_argument("--rounds", type=int, default=2)
    add_folder(parser, "on the disk to measure")
    args = parser.parse_args()
    flat = compared(args)
    shown(flat)
    finish(args, flat)
    return 0


if __name__ == "__main__":
    sys.exit(main())
