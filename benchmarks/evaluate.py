"""Evaluation on a sample of the test users, beside all of them.

    python benchmarks/evaluate.py gowalla [--users 5000] [--draws 100] [--folder DIR] [--json]

The set is trained once, as it comes, and evaluated on all test users, with the metrics of each
kept (`evaluate.keep_users`). Then samples are drawn as stage `evaluate` does, with other seeds, and
for each the 95 % interval of its mean Recall@20 is compared with the mean over all users: an
interval for users as drawn from all there could be, so it is wider than a sample of a finite
set needs, and holds more often than 95 times in a hundred.

Then the stage itself is run on all users and on samples, and on catalogues of random vectors of
several sizes the ranking alone: seconds, users a second and the peak of memory.

Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from harness.command_line import finish, parser_of
from harness.line import COMMAND, run
from harness.sets import load_set, set_names, write_config
from numpy.typing import NDArray

from embedmill.pipeline.evaluate.holdout import UserSample
from embedmill.pipeline.mean_intervals import mean_interval
from embedmill.pipeline.score import RowLists, top_k
from embedmill.pipeline.store.run import Run, open_run
from embedmill.pipeline.views.evaluate import Evaluation
from embedmill.pipeline.views.vectors import Vectors

Rows = NDArray[np.int64]
Doubles = NDArray[np.float64]

METRIC = "recall@20"
CATALOGUES = (50_000, 200_000, 800_000)
DIM, ASKED, SEEN = 64, 1024, 20


def by_user(found: Run) -> tuple[Rows, Doubles]:
    """Rows of the evaluated users, and the metric of each."""
    table = Evaluation(found.artifact("evaluate")).users()
    users = Vectors.of(found.artifact("export"), "users").vocabulary
    ids = table["user"].combine_chunks()
    return users.rows_of(ids), table[METRIC].to_numpy()


def draws(row_U: Rows, value_U: Doubles, users: int, number: int) -> dict[str, float]:
    """How often the interval of a sample has the mean of all, and how far the means are apart."""
    whole, inside, errors, widths = float(value_U.mean()), 0, [], []
    for seed in range(number):
        own_U = value_U[UserSample(users / len(row_U), seed).of(row_U)]
        low, high = mean_interval(float(own_U.sum()), float(np.square(own_U).sum()), len(own_U))
        inside += low <= whole <= high
        errors.append(abs(float(own_U.mean()) - whole))
        widths.append((high - low) / 2)
    return {
        "draws": number,
        "inside": inside,
        "mean_error": float(np.mean(errors)),
        "half_width": float(np.mean(widths)),
    }


def stage(config: Path, users: str) -> dict[str, float]:
    """Seconds, users a second and peak memory of stage `evaluate` on so many users."""
    command = [*COMMAND, "run", str(config), "--from", "evaluate", "--to", "evaluate", "--rebuild"]
    sets = ["--set", f"evaluate.users={users}", "--set", "evaluate.keep_users=true"]
    script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); " \
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"  # fmt: skip
    words = [sys.executable, "-c", script, *command, *sets]
    answer = subprocess.run(words, check=True, capture_output=True, text=True)
    found = open_run(str(config.parent / config.stem))
    manifest = found.manifest("evaluate")
    assert manifest is not None
    return {
        "users": manifest.counters["users"],
        "seconds": manifest.seconds,
        "users_per_second": manifest.counters["users"] / manifest.seconds,
        "peak_mib": int(answer.stdout.split()[-1]) / 1024,
        METRIC: Evaluation(found.artifact("evaluate")).metrics[METRIC],
    }


def ranking(items: int) -> dict[str, float]:
    """The exact search of a batch of users over a catalogue of random vectors."""
    source = torch.Generator().manual_seed(items)
    item_ND = torch.randn(items, DIM, generator=source)
    user_BD = torch.randn(ASKED, DIM, generator=source)
    of_B = torch.arange(ASKED).repeat_interleave(SEEN)
    seen = RowLists.of(of_B, torch.randint(items, (len(of_B),), generator=source), ASKED)
    began = time.perf_counter()
    top_k(user_BD, [(0, item_ND)], 100, seen)
    return {"users_per_second": ASKED / (time.perf_counter() - began)}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("set", help=f"a path, or one of {', '.join(set_names())}")
    parser.add_argument("--users", type=int, default=5000, help="of a sample")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--folder", help="keeps the run; default: a temporary one")
    args = parser.parse_args()
    one = load_set(args.set)
    with tempfile.TemporaryDirectory(prefix="embedmill-evaluate-") as scratch:
        folder = Path(args.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / f"{one.name}.toml"
        write_config(config, one.tree(), one.raw(), one.name)
        run(config, ["evaluate.users=0", "evaluate.keep_users=true"], last="evaluate")
        flat = draws(*by_user(open_run(str(folder / one.name))), args.users, args.draws)
        print(
            f"{flat['inside']} of {flat['draws']} intervals of {args.users:,} users have the mean "
            f"of all; |error| {flat['mean_error']:.4f}, half width {flat['half_width']:.4f}"
        )
        for users in (0, args.users, args.users // 5):
            found = stage(config, str(users))
            flat |= {f"{key}.{users or 'all'}": value for key, value in found.items()}
            print(
                f"{found['users']:8,} users: {METRIC} {found[METRIC]:.4f}, {found['seconds']:.1f} "
                f"s, {found['users_per_second']:,.0f} users a second, {found['peak_mib']:,.0f} MiB"
            )
    for items in CATALOGUES:
        speed = ranking(items)["users_per_second"]
        flat[f"users_per_second.items_{items}"] = speed
        print(f"{items:10,} items of {DIM} dimensions: {speed:,.0f} users a second by exact search")
    finish(args, flat)


if __name__ == "__main__":
    main()
