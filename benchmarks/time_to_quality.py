"""Time to quality: how soon ours and peers reach what quality, in one run on one public set.

    python benchmarks/time_to_quality.py SET [--only NAME] [--without NAME] [--plot OUT.png]
        [--keep FOLDER] [--json]

SET is one of `benchmarks/sets/*.toml` of kind "ranking", or a path to such a file of your own. The
log is read and split once. All methods are fitted to its train events on two cores; the same code
measures Recall@20 and NDCG@20 of each on validation and on test events, over all items but those
that the user has by then.

Ours is the stage `train` as every run has it, once for each entry of OURS, with the settings tuned
for the objective where the set has some: its wall seconds are those of the whole stage, start of
workers and validation included, its CPU-seconds those of the command and all its workers, Python's
start included. Peers are `implicit`'s ALS, EASE, RP3beta and gensim's item2vec, each in an
environment of its own; their seconds are from the pairs in a file to factors or weights, without
Python's start.
Theirs are the settings of the set's file ([peers.NAME]), or the best of GRIDS by Recall@20 on
validation; the search is not in their time. EASE is left out beyond EASE_ITEMS items.

NAME.seconds_to_95 are the least wall seconds at which a method has .95 of the best Recall@20 on
test that any method had in the run, null where it never has. NAME.recall@20 is on test, at the
method's point that is best on validation.

Prints a table; with --json one flat JSON object last, and --plot draws the curves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from harness.command_line import finish, parser_of
from harness.cpu_time import CpuTime
from harness.line import COMMAND, run, wait_for
from harness.peer_environments import ask
from harness.ranking import Holdout, Scorer, item_scorer, pairs_of, vector_scorer
from harness.sets import PublicSet, load_set, set_names, write_config

from embedmill.pipeline.config.objectives import ObjectiveName
from embedmill.pipeline.store.run import Run, open_run
from embedmill.pipeline.views.vectors import Vectors

PEERS = Path(__file__).parent / "peers"
THREADS, K, SHARE = 2, 20, 0.95
EASE_ITEMS = 20_000
OBJECTIVES = get_args(ObjectiveName)
# Overrides of [train]: a point of the curve each.
OURS: dict[str, list[list[str]]] = {
    "auto": [[]],
    "spectral": [[f"train.dim={dim}"] for dim in (64, 256)],
    "ials": [[f"train.epochs={n}"] for n in (2, 5, 10)],
    "softmax": [[f"train.epochs={n}"] for n in (2, 5, 20)],
}
Settings = dict[str, Any]
# What is tried for a peer where the set has no settings for it.
GRIDS: dict[str, list[Settings]] = {
    "implicit": [
        {"alpha": alpha, "regularization": regularization}
        for alpha, regularization in (
            (1, 10), (1, 50), (3, 10), (3, 50), (10, 10), (10, 100), (40, 10), (40, 100),
            (100, 30), (100, 100),
        )
    ],
    "ease": [{"l2": l2} for l2 in (50, 150, 400, 1000, 2000)],
    "rp3beta": [
        {"alpha": alpha, "beta": beta, "neighbours": 200}
        for alpha, beta in ((1, 0.2), (1, 0.4), (1, 0.6), (1, 0.8), (0.7, 0.4), (0.7, 0.6))
    ],
    "gensim": [
        {"window": 10, "alpha": alpha, "ns_exponent": ns, "sample": 1e-3}
        for alpha, ns in ((0.025, 0.75), (0.1, 0.75), (0.1, 0.0), (0.1, -0.5))
    ],
}  # fmt: skip
FIXED: dict[str, Settings] = {
    "implicit": {"dim": 256, "threads": THREADS, "iterations": [1, 2, 3, 5, 8, 12, 15]},
    "ease": {},
    "rp3beta": {},
    "gensim": {"dim": 128, "threads": THREADS, "epochs": [1, 3, 10, 20]},
}
# While settings are searched: fewer passes.
SEARCHED: dict[str, Settings] = {"implicit": {"iterations": [5]}, "gensim": {"epochs": [10]}}
ENVIRONMENTS = {"implicit": "implicit", "ease": "scipy", "rp3beta": "scipy", "gensim": "gensim"}


@dataclass(frozen=True)
class Point:
    """A state of a method: after how much time, and how good it is by then."""

    method: str
    at: str
    seconds: float
    cpu_seconds: float
    valid: dict[str, float]
    test: dict[str, float]

    def flat(self) -> dict[str, float | str]:
        """The point as `--keep` stores it and the plot reads it."""
        scores = {f"{s}.{k}": v for s in ("valid", "test") for k, v in getattr(self, s).items()}
        seconds = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        return {"at": self.at, **seconds, **scores}


@dataclass(frozen=True)
class Bench:
    """The set, its run up to shards, and who is measured."""

    one: PublicSet
    run: Run
    config: Path
    folder: Path
    valid: Holdout
    test: Holdout

    @staticmethod
    def of(one: PublicSet, folder: Path) -> Bench:
        """Read and split the log."""
        config = folder / f"{one.name}.toml"
        write_config(config, one.tree(), one.raw(), one.name)
        run(config, ["train.refit=false"], last="shards")
        found = open_run(str(folder / one.name))
        valid, test = (Holdout.of(found, split) for split in ("valid", "test"))
        return Bench(one, found, config, folder, valid, test)

    def shape(self) -> tuple[int, int]:
        """Number of users and of items."""
        counters = self.run.artifact("vocab").counters
        return counters["users"], counters["items"]


def ours(bench: Bench, objective: str) -> list[Point]:
    """Run the stage `train` for each entry of OURS."""
    tuned = objective if objective in bench.one.tuned else ""
    tree = {**bench.one.tree(tuned), "shards": bench.one.tree()["shards"]}
    write_config(bench.config, tree, bench.one.raw(), bench.one.name)
    points = []
    for overrides in OURS[objective]:
        sets = [*([] if tuned else [f"train.objective={objective}"]), *overrides]
        words = [word for one in (*sets, "train.refit=false") for word in ("--set", one)]
        command = [*COMMAND, "run", str(bench.config), "--rebuild", *words]
        train = subprocess.Popen(
            [*command, "--from", "train", "--to", "train"],
            stdout=sys.stderr,
            stderr=subprocess.PIPE,
            text=True,
        )
        with CpuTime(train.pid) as cpu:
            wait_for(train)
        # Both leave the same artifacts current: only what is behind `train` is built.
        run(bench.config, [*sets, "train.refit=false"], last="export")
        found = open_run(str(bench.folder / bench.one.name))
        manifest = found.manifest("train")
        assert manifest is not None
        sides = (Vectors.of(found.artifact("export"), side).load() for side in ("users", "items"))
        at = " ".join(one.removeprefix("train.") for one in overrides) or "as it comes"
        points.append(
            _point(bench, objective, at, (manifest.seconds, cpu.seconds()), vector_scorer(*sides))
        )
    return points


def _point(
    bench: Bench, method: str, at: str, seconds: tuple[float, float], scorer: Scorer
) -> Point:
    """Measure a state of a method; `seconds` are of the wall and of the cores."""
    valid, test = (holdout.quality(scorer, K) for holdout in (bench.valid, bench.test))
    point = Point(method, at, *seconds, valid, test)
    print(json.dumps({"method": method, **point.flat()}), file=sys.stderr, flush=True)
    return point


def peer(bench: Bench, name: str, settings: Settings) -> list[Point]:
    """Fit a peer to the train events in its own environment; returns its points."""
    folder = bench.folder / name
    folder.mkdir(exist_ok=True)
    pairs, shape = pairs_of(bench.run, "train"), bench.shape()
    for column, side in zip(pairs, ("users", "items"), strict=True):
        np.save(folder / f"{side}.npy", column)
    given = {**FIXED[name], "users": shape[0], "items": shape[1], **settings}
    threads = "1" if name == "implicit" else str(THREADS)
    words = (str(folder), json.dumps(given))
    script = PEERS / f"curve_{name}.py"
    answer = ask(
        ENVIRONMENTS[name], script, *words, OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads
    )
    points = []
    for found in answer["points"]:
        path = folder / found["name"]
        if path.suffix:
            scorer = item_scorer(path, *pairs, shape)
        else:
            sides = (np.load(f"{path}-{side}.npy") for side in ("users", "items"))
            scorer = vector_scorer(*sides)
        seconds = (found["seconds"], found["cpu_seconds"])
        points.append(_point(bench, name, str(found["at"]), seconds, scorer))
    return points


def settings_of(bench: Bench, name: str) -> Settings:
    """A peer's settings: those of the set's file, or the best of its grid on validation."""
    if name in bench.one.peers:
        return bench.one.peers[name]

    def recall(settings: Settings) -> float:
        found = peer(bench, name, {**settings, **SEARCHED.get(name, {})})
        return found[-1].valid[f"recall@{K}"]

    return max(GRIDS[name], key=recall)


def measure(bench: Bench, names: Sequence[str]) -> tuple[list[Point], dict[str, Settings]]:
    """All points of the methods in turn, and the settings of the peers among them."""
    chosen = {name: settings_of(bench, name) for name in names if name in GRIDS}
    points: list[Point] = []
    for name in names:
        points += peer(bench, name, chosen[name]) if name in chosen else ours(bench, name)
    return points, chosen


def figures(points: Sequence[Point]) -> dict[str, float | str | None]:
    """The flat object: seconds to .95 of the best, and quality, by method."""
    metric = f"recall@{K}"
    best = max(point.test[metric] for point in points)
    flat: dict[str, float | str | None] = {f"best.{metric}": best}
    flat["best.method"] = max(points, key=lambda point: point.test[metric]).method
    for name in dict.fromkeys(point.method for point in points):
        own = [point for point in points if point.method == name]
        there = [point for point in own if point.test[metric] >= SHARE * best]
        for key in ("seconds", "cpu_seconds"):
            least = min((getattr(point, key) for point in there), default=None)
            flat[f"{name}.{key}_to_95"] = least
        chosen = max(own, key=lambda point: point.valid[metric])
        flat |= {f"{name}.{key}": value for key, value in chosen.test.items()}
        flat |= {f"{name}.valid.{key}": value for key, value in chosen.valid.items()}
        flat |= {f"{name}.seconds": chosen.seconds, f"{name}.cpu_seconds": chosen.cpu_seconds}
    return flat


def show(bench: Bench, points: Sequence[Point], chosen: dict[str, Settings]) -> None:
    metric = f"recall@{K}"
    print(f"{bench.one.name}: {bench.shape()[0]:,} users, {bench.shape()[1]:,} items")
    titles = ("wall s", "CPU s", f"valid {metric}", f"test {metric}", f"ndcg@{K}")
    print(f"{'':12}{'after':>14}" + "".join(f"{title:>18}" for title in titles))
    for point in points:
        values = (point.valid[metric], point.test[metric], point.test[f"ndcg@{K}"])
        times = f"{point.seconds:18.2f}{point.cpu_seconds:18.2f}"
        print(f"{point.method:12}{point.at:>14}{times}" + "".join(f"{v:18.4f}" for v in values))
    for name, settings in chosen.items():
        print(f"  {name}: {json.dumps(settings)}")


def plot(bench: Bench, points: Sequence[Point], least: float, out: Path) -> None:
    """Draw the curves in an environment that has matplotlib."""
    by_method: dict[str, list[Any]] = {point.method: [] for point in points}
    for point in points:
        by_method[point.method].append(point.flat())
    curves = bench.folder / "curves.json"
    title = f"{bench.one.name}: Recall@{K} by time from shards"
    curves.write_text(json.dumps({"title": title, "least": least, "points": by_method}))
    ask("plots", PEERS / "plot_curves.py", str(curves), str(out.resolve()))


def methods(bench: Bench, args: argparse.Namespace) -> list[str]:
    """Who takes part: ours as far as there is such an objective, then peers."""
    every = [name for name in OURS if name in OBJECTIVES] + list(GRIDS)
    if bench.shape()[1] > EASE_ITEMS:
        print(f"EASE is left out: more than {EASE_ITEMS:,} items", file=sys.stderr)
        every.remove("ease")
    return [n for n in every if n not in args.without and (not args.only or n in args.only)]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("set", help=f"a path, or one of {', '.join(set_names())}")
    names = [*OURS, *GRIDS]
    parser.add_argument("--only", action="append", default=[], choices=names)
    parser.add_argument("--without", action="append", default=[], choices=names)
    parser.add_argument("--plot", type=Path, help="PNG of the curves")
    parser.add_argument("--keep", default="", help="folder for the run; a temporary one if empty")
    args = parser.parse_args()
    one = load_set(args.set)
    if one.kind != "ranking":
        parser.error(f"{one.name} is a set of {one.kind}, not of rankings")
    with tempfile.TemporaryDirectory(prefix="embedmill-time-") as temporary:
        bench = Bench.of(one, Path(args.keep or temporary))
        points, chosen = measure(bench, methods(bench, args))
        flat = figures(points)
        show(bench, points, chosen)
        if args.plot:
            plot(bench, points, SHARE * float(flat[f"best.recall@{K}"] or 0), args.plot)
    flat |= {f"{name}.settings": json.dumps(settings) for name, settings in chosen.items()}
    finish(args, flat)


if __name__ == "__main__":
    main()
