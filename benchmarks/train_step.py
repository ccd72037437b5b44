"""A training step beside plain autograd, TorchRec, and the machine's matrix multiply.

    python benchmarks/train_step.py [--json] [--quick] [--dim 64 128] [--negatives 1024 64]
    python benchmarks/train_step.py --loss bsl [bsl+top_k] [psl]

Two workers of one thread each, over gloo on this machine; 8,192 events a worker and step, 1 M
users, 250 k items, ids by a power law, negatives uniform and shared. All contenders live at
once and take their turns in rounds; ratios are medians over rounds. The optimizer is the
configured default of ours and the peers' of the same family (row-wise Adagrad; plain torch has
SparseAdam, and its Adagrad beside it). Keys with `n64.` are with 64 negatives, with `d128.` of
128 dimensions. With `--loss`, our steps with these losses stand beside ours with softmax loss, and
no peer runs; "+top_k" weighs events as in SL@K.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from harness.command_line import finish, parser_of
from harness.peer_environments import ROOT, python_of
from steps.products import FLOPS
from steps.turns import Task

STEPS = Path(__file__).parent / "steps"
WORLD = 2
CONTENDERS = {  # name: script, optimizer, steps of a turn
    "ours": ("ours.py", "", 4),
    "autograd": ("plain.py", "adam", 2),
    "autograd_adagrad": ("plain.py", "adagrad", 2),
    "torchrec": ("sharded.py", "adagrad", 2),
    "products": ("products.py", "", 8),
}
LOSSES = dict.fromkeys(("bsl", "bsl+top_k", "psl", "softmax+top_k"), ("ours.py", "", 4))


class Ranks:
    """The processes of one contender, which wait for their turn."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self.processes = processes

    def answers(self, word: str) -> list[str]:
        """What each rank says next that begins with `word`; libraries print things as well."""
        return [next(self._lines(process, word)) for process in self.processes]

    def seconds(self, steps: int) -> float:
        """Take so many steps; seconds for one, of the slowest rank."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        return max(map(float, self.answers("seconds"))) / steps

    @staticmethod
    def _lines(process: subprocess.Popen[str], word: str) -> Iterator[str]:
        assert process.stdout is not None
        for line in process.stdout:
            first, _, rest = line.partition(" ")
            if first.strip() == word:
                yield rest
        sys.exit(f"{process.args!r} ended with {process.wait()}; run it by hand")


@contextmanager
def started(name: str, task: Task, folder: str) -> Iterator[Ranks]:
    script, optimizer, _ = (CONTENDERS | LOSSES)[name]
    loss = name if name in LOSSES else "softmax"
    python = python_of("torchrec") if name == "torchrec" else Path(sys.executable)
    path = f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(task.world):
        own = replace(task, rank=rank, optimizer=optimizer, loss=loss, store=f"{folder}/{name}")
        processes.append(
            subprocess.Popen(
                [str(python), str(STEPS / script), json.dumps(asdict(own))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, env=environment,
            )
        )  # fmt: skip
    try:
        ranks = Ranks(processes)
        ranks.answers("ready")
        yield ranks
    finally:
        for process in processes:
            process.kill()
            process.wait()


def rounds(
    task: Task, number: int, contenders: Mapping[str, tuple[str, str, int]]
) -> list[dict[str, float]]:
    """Seconds of a step by contender, for each round."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="embedmill-bench-"))
        ranks = {name: stack.enter_context(started(name, task, folder)) for name in contenders}
        for contender in ranks.values():
            contender.seconds(2)
        return [
            {name: ranks[name].seconds(contenders[name][2]) for name in ranks}
            for _ in range(number)
        ]


def figures(task: Task, seconds: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds."""
    batch = task.batch * task.world
    # Logits, and from them the gradients of users and of negatives: a product each.
    needed = 3 * 2 * batch * task.negatives * task.dim
    peak = [task.world * FLOPS / one["products"] for one in seconds]

    def over(name: str) -> float:
        return statistics.median(one[name] / one["ours"] for one in seconds)

    return {
        "pairs_per_second": statistics.median(batch / one["ours"] for one in seconds),
        "over_autograd": over("autograd"),
        "over_autograd_adagrad": over("autograd_adagrad"),
        "over_torchrec": over("torchrec"),
        "share_of_matmul_peak": statistics.median(
            needed / one["ours"] / most for one, most in zip(seconds, peak, strict=True)
        ),
        **{
            f"ms.{name}": 1e3 * statistics.median(one[name] for one in seconds)
            for name in CONTENDERS
            if name != "products"
        },
        "matmul_gflops": statistics.median(peak) / 1e9,
    }


def loss_figures(seconds: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds: of the steps, and of the ratios to that of softmax loss."""
    names = list(seconds[0])
    return {
        **{
            f"{name}_over_softmax": statistics.median(one[name] / one["ours"] for one in seconds)
            for name in names
            if name != "ours"
        },
        **{f"ms.{name}": 1e3 * statistics.median(one[name] for one in seconds) for name in names},
    }


def show(title: str, found: dict[str, float]) -> None:
    print(f"\n{title}: {found['pairs_per_second']:,.0f} pairs/s")
    for name, label in (
        ("ours", "ours, row-wise Adagrad"),
        ("autograd", "plain autograd, SparseAdam"),
        ("autograd_adagrad", "plain autograd, Adagrad"),
        ("torchrec", "TorchRec, row-wise Adagrad"),
    ):
        times = found.get(f"over_{name}", 1.0)
        print(f"  {label:<28}{found[f'ms.{name}']:9.1f} ms a step {times:8.2f} ×")
    print(
        f"  share of matrix-multiply peak {found['share_of_matmul_peak']:.0%} "
        f"of {found['matmul_gflops']:.0f} GFLOP/s"
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="small tables, few rounds: a trial")
    parser.add_argument("--dim", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--negatives", type=int, nargs="+", default=[1024, 64])
    parser.add_argument(
        "--loss", choices=[*LOSSES], nargs="+", help="compare these with softmax loss, no peers"
    )
    parser.add_argument("--rounds", type=int, default=0, help="9 unless given; 3 if --quick")
    args = parser.parse_args()
    task = Task(0, WORLD, "", 1_000_000, 250_000, 64, 8192, 1024, 24, "")
    if args.quick:
        task = replace(task, users=20_000, items=5_000, batch=1024)
    number = args.rounds or (3 if args.quick else 9)
    flat: dict[str, float] = {}
    for dim in args.dim:
        for negatives in args.negatives:
            one = replace(task, dim=dim, negatives=negatives)
            title = f"{dim} dimensions, {negatives:,} negatives"
            if args.loss:
                steps = {"ours": CONTENDERS["ours"], **{name: LOSSES[name] for name in args.loss}}
                found = loss_figures(rounds(one, number, steps))
                for name in args.loss:
                    print(f"{title}: {name} {found[f'{name}_over_softmax']:.3f} × softmax loss")
            else:
                found = figures(one, rounds(one, number, CONTENDERS))
                show(title, found)
            prefix = f"d{dim}." * (dim != 64) + f"n{negatives}." * (negatives != 1024)
            flat |= {f"{prefix}{key}": value for key, value in found.items()}
    finish(args, flat)


if __name__ == "__main__":
    main()
