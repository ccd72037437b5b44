"""Our index beside autofaiss, FAISS, hnswlib and USearch: recall, speed, bytes, build time.

    python benchmarks/index.py SET [--vectors RUN] [--keep FOLDER] [--max-bytes 60MB]
        [--targets 0.95 ...] [--rows N] [--without NAME] [--plot FILE.svg] [--rounds 5] [--json]

SET: gowalla (places by their trained vectors, asked by users'), glove (396,000 words by angle,
asked by others), fashion-mnist (60,000 images by angle, asked by those of its test part),
synthetic (2 M vectors in clusters).

Queries are not among the vectors. Of 10,000 ours sees 8,000: 4,000 to tune and 4,000 to verify
with (`[index] queries = 4000`). All figures are of the other 2,000. autofaiss picks kind and effort
by itself under the same budget of bytes, once; its point stands beside every target. FAISS,
hnswlib and USearch are tuned by hand, on those 2,000 themselves: for each target the fastest point
of a grid with the least effort that reaches it there. `faiss_default` is HNSW32 as FAISS has it by
default.

Every library is a process of its own, on two threads; the points that are told are timed in turns,
all in each round, the median of the rounds is told, ratios are medians of each round's ratio.
Latency is of single queries on one thread. `build s` is what the told index took; `all s`, of ours
and autofaiss, with all that was tried to choose it. With --max-bytes only ours and autofaiss
compete, for the best recall in so many bytes. gowalla is trained first (--keep keeps the run)
unless --vectors names a run. The picture has the points of the told builds that no other of the
same library beats, timed in turns as well.

Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from harness.command_line import finish, parser_of
from indexes.curves import svg
from indexes.grid import GRIDS, Point, Search
from indexes.process import Exact, FailedError, Process
from indexes.vectors import SETS, Set, Source

from embedmill.pipeline.config import IndexConfig

TARGETS = (0.90, 0.95, 0.99)
LIBRARIES = ("auto", "autofaiss", *GRIDS)
THREADS = 2
MEGA = 1_000_000

Flat = dict[str, float | int | str]
Chosen = dict[str, dict[str, Point]]
Figures = tuple[float, float]


def load(args: argparse.Namespace, folder: Path) -> Set:
    """The set, cut to --rows, laid out for the libraries' processes."""
    keep = Path(args.keep) if args.keep else folder
    found = SETS[args.set].load(Source(args.vectors, keep))
    if args.rows:
        found = Set(found.vector_ND[: args.rows], found.tuning_BD, found.test_BD)
    for name, part in zip(("vectors", "tuning", "test"), vars(found).values(), strict=True):
        np.save(folder / f"{name}.npy", part)
    return found


def tried(args: argparse.Namespace, one: Set, searches: Mapping[str, Search]) -> Chosen:
    """By target, each library's point; those without one are left out."""
    own: dict[str, Point] = {}
    budget = SETS[args.set].budget
    best: dict[str, dict[str, Point]] = {f"{target:.2f}": {} for target in args.targets}
    for name, search in searches.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name == "autofaiss":
            own[name] = picked(search, "own", {"max_bytes": budget})
        elif name in GRIDS:
            search.over(GRIDS[name](*one.vector_ND.shape))
        for target, points in best.items():
            if name in GRIDS and (found := search.best(float(target))):
                points[name] = found
            elif name == "auto":
                asked = {"recall_at_10": float(target), "max_bytes": budget}
                try:
                    points[name] = picked(search, target, asked)
                except FailedError as error:
                    print(f"{target}: {error}")
        if name == "faiss":
            own["faiss_default"] = next(p for p in search.points if p.build == "default")
    return {target: {**points, **own} for target, points in best.items()}


def within(most: str, searches: Mapping[str, Search]) -> Chosen:
    """Ours and autofaiss's pick in so many bytes, without a target of recall.

    One that finds none is told of and left out.
    """
    asked = {"max_bytes": IndexConfig.model_validate({"max_bytes": most}).max_bytes}
    points: dict[str, Point] = {}
    for name in (name for name in ("auto", "autofaiss") if name in searches):
        try:
            points[name] = picked(searches[name], "own", asked)
        except FailedError as error:
            print(f"{name}, {most}: {error}")
    return {most: points}


def picked(search: Search, name: str, settings: dict[str, Any]) -> Point:
    """A build that knows its own effort; others that it tells are tried for the picture."""
    built = search.process.ask("build", name=name, settings=settings)
    point = search.try_one(name, {}, built, 10)
    search.try_one(name, {}, built, 100)
    for effort in built.get("efforts", []):
        for k in (10, 100):
            search.try_one(name, effort, built, k)
    return point


def timed(chosen: Chosen, searches: Mapping[str, Search], rounds: int) -> Flat:
    """All points in turns, several times over; medians, and medians of ratios."""
    flat: Flat = {}
    for target, points in chosen.items():
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in points}
        for _ in range(rounds):
            for name, point in points.items():
                process = searches[point.contender].process
                words = {"name": point.build, "part": "test", "effort": point.effort}
                taken[name].append(process.ask("time", **words))
        for name, point in points.items():
            flat |= {f"{name}.{target}.{key}": v for key, v in told(point, taken[name]).items()}
            at = searches[point.contender]
            hundred = at.try_one(point.build, point.effort, point.built, 100)
            flat[f"{name}.{target}.recall@100"] = round(hundred.recall, 4)
        flat |= compared(target, points, taken)
    return flat


def told(point: Point, taken: list[dict[str, float]]) -> Flat:
    """The figures of one point."""

    def median(key: str) -> float:
        return statistics.median(one[key] for one in taken)

    return {
        "point": point.label,
        "recall": round(point.recall, 4),
        "qps": round(median("qps"), 1),
        "qps@100": round(median("qps@100"), 1),
        "ms": round(median("ms"), 4),
        "ms_p99": round(median("ms_p99"), 4),
        "bytes": point.built["bytes"],
        "build_seconds": round(point.built["build_seconds"], 2),
        "all_seconds": round(point.built["all_seconds"], 2),
    }


def compared(
    target: str, points: Mapping[str, Point], taken: Mapping[str, list[dict[str, float]]]
) -> Flat:
    """Ours over autofaiss and over the fastest of those tuned by hand, which is named."""
    flat: Flat = {}
    hand = [name for name in points if name in GRIDS]
    speed = {name: statistics.median(one["qps"] for one in taken[name]) for name in points}
    against = {"autofaiss": "autofaiss"} if "autofaiss" in points else {}
    if hand:
        best = max(hand, key=lambda name: speed[name])
        against["best"] = best
        flat[f"best.{target}"] = best
    if "auto" not in points:
        return flat
    for title, name in against.items():
        pairs = zip(taken["auto"], taken[name], strict=True)
        ratio = statistics.median(ours["qps"] / theirs["qps"] for ours, theirs in pairs)
        flat[f"auto.{target}.qps_over_{title}"] = round(ratio, 3)
        kind = "build_seconds" if title == "best" else "all_seconds"
        seconds = [points[n].built[kind] for n in ("auto", name)]
        flat[f"auto.{target}.build_over_{title}"] = round(seconds[0] / seconds[1], 3)
    return flat


COLUMNS = {
    "recall": ("@10", "8.3f"), "recall@100": ("@100", "7.3f"), "qps": ("qps", "9,.0f"),
    "ms": ("ms", "8.3f"), "bytes": ("MB", "6.0f"),
    "build_seconds": ("build s", "8.1f"), "all_seconds": ("all s", "7.1f"),
}  # fmt: skip


def show(args: argparse.Namespace, one: Set, chosen: Chosen, flat: Flat) -> None:
    """A block for each target."""
    count, dim = one.vector_ND.shape
    print(f"{args.set}: {count:,} x {dim}, {len(one.test_BD):,} queries, {THREADS} threads")
    heads = "".join(f"{head:>{int(f.split('.')[0].strip(','))}}" for head, f in COLUMNS.values())
    for target, points in chosen.items():
        print(f"\n{target:<24}{heads}")
        for name in points:
            row = {key: flat[f"{name}.{target}.{key}"] for key in ("point", *COLUMNS)}
            print(line_of(name, row))
        for title in ("autofaiss", "best"):
            if (key := f"auto.{target}.qps_over_{title}") in flat:
                named = flat[f"best.{target}"] if title == "best" else title
                longer = flat[f"auto.{target}.build_over_{title}"]
                print(f"  ours over {named}: {flat[key]} x qps, {longer} x build time")


def line_of(name: str, row: Mapping[str, Any]) -> str:
    """One row of a block."""
    numbers = {**row, "bytes": row["bytes"] / MEGA}
    cells = "".join(f"{numbers[key]:{form}}" for key, (_, form) in COLUMNS.items())
    title = f"{name} {row['point']}"[:23]
    return f"{title:<24}{cells}"


def curves(searches: Mapping[str, Search], k: int, rounds: int) -> dict[str, list[Figures]]:
    """Recall and qps of the points worth drawing, timed in turns: medians of the rounds."""
    lists = [[(name, p) for p in search.drawn(k)] for name, search in searches.items()]
    turns = [pair for row in itertools.zip_longest(*lists) for pair in row if pair]
    taken: list[list[float]] = [[] for _ in turns]
    for _ in range(rounds):
        for place, (name, point) in enumerate(turns):
            taken[place].append(searches[name].again(point))
    found: dict[str, list[Figures]] = {name: [] for name in searches}
    for (name, point), qps in zip(turns, taken, strict=True):
        found[name].append((point.recall, statistics.median(qps)))
    return found


def draw(args: argparse.Namespace, searches: Mapping[str, Search]) -> None:
    """Write the pictures: recall@10 where it was asked for, recall@100 beside it."""
    path = Path(args.plot)
    for k, name in ((10, path.name), (100, f"{path.stem}-100{path.suffix}")):
        found = curves(searches, k, min(3, args.rounds))
        text = svg(f"{args.set}, {THREADS} threads", found, f"recall@{k}")
        path.with_name(name).write_text(text, encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--vectors", default="", help="gowalla: a run to take the vectors of")
    parser.add_argument("--keep", default="", help="gowalla: folder that keeps the trained run")
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--max-bytes", default="", help="only ours and autofaiss, in 60MB, say")
    parser.add_argument("--rows", type=int, default=0, help="the first so many vectors alone")
    parser.add_argument("--without", action="append", default=[], choices=LIBRARIES)
    parser.add_argument("--plot", default="", help="an SVG: recall@10; recall@100 beside it")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    args = parsed()
    with tempfile.TemporaryDirectory(prefix="embedmill-index-") as made, ExitStack() as stack:
        folder = Path(made)
        one = load(args, folder)
        exact = Exact.of(one.vector_ND, one.test_BD, 100)
        searches = {
            name: Search(stack.enter_context(Process(name, folder, THREADS)), exact, args.targets)
            for name in (LIBRARIES[:2] if args.max_bytes else LIBRARIES)
            if name not in args.without
        }
        chosen = within(args.max_bytes, searches) if args.max_bytes else tried(args, one, searches)
        flat = timed(chosen, searches, args.rounds)
        show(args, one, chosen, flat)
        if args.plot:
            draw(args, searches)
    finish(args, flat)


if __name__ == "__main__":
    main()
