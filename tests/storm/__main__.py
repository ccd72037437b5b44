"""Rounds of faults until the time is over; seeds are printed, and a line of JSON for each round."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from embedmill.pipeline.config import Config
from tests.storm.faults import FAULTS, Round
from tests.storm.servers import Engine, sail_server, spark_executors
from tests.storm.world import EPOCHS, FoundError, Place, Reader, ask, contents
from tests.support.s3_server import S3Server, serving

# Kind of round → how often, and sections of its config.
KINDS: dict[str, tuple[int, dict[str, dict[str, Any]]]] = {
    "local": (8, {"train": {"launcher": "inline"}}),
    "processes": (6, {"train": {"launcher": "processes", "workers": 2, "max_failures": 3}}),
    "s3": (4, {"run": {"store_deadline": 10.0}}),
    "ray": (2, {"train": {"launcher": "ray", "workers": 2, "epochs": 150, "max_failures": 3}}),
    "spark": (1, {"run": {"engine": "spark"}}),
    "executors": (2, {}),
    "sail": (2, {}),
}
# Kind of round → the server of its engine, which is another one for each round.
ENGINES = {"executors": spark_executors, "sail": sail_server}
CHANGED: dict[str, dict[str, Any]] = {"vocab": {"min_item_count": 3}}


@dataclass
class Storm:
    """What undisturbed runs hold, and what was found."""

    folder: Path
    log: TextIO
    faults: tuple[str, ...] = ()  # to choose from; none for all of a kind
    last: float = 9.0  # seconds of an undisturbed run, at least
    calm: dict[str, tuple[dict[str, str], list[str]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[int] = field(default_factory=list)

    def round(self, seed: int, kind: str) -> None:
        """One round: faults, the same command to its end, and what must hold then."""
        began = time.monotonic()
        line: dict[str, Any] = {"seed": seed, "kind": kind, "struck": [], "found": ""}
        draw = random.Random(seed)
        with _place(self.folder / f"round-{seed}", kind) as (place, server):
            try:
                self._strike(draw, kind, place, server, line)
            except FoundError as found:
                line["found"] = str(found)
            finally:
                for driver in place.drivers:
                    if driver.poll() is None:
                        os.killpg(driver.pid, signal.SIGKILL)
            line["drivers"] = place.said
        line["seconds"] = round(time.monotonic() - began, 1)
        if line["found"]:
            self.findings.append(seed)
        self.counts.update(line["struck"])
        self.counts.update({"rounds": 1, "drivers": len(place.drivers)})
        print(json.dumps(line), file=self.log, flush=True)
        state = line["found"][:2000] or "held"
        print(f"seed {seed} {kind}: {', '.join(line['struck'])}: {state}", flush=True)

    def _strike(
        self, draw: random.Random, kind: str, place: Place, server: S3Server | Engine | None,
        line: dict[str, Any],
    ) -> None:  # fmt: skip
        rebuilds = draw.random() < 0.4
        names = [name for name in sorted(FAULTS[kind]) if name in (self.faults or FAULTS[kind])]
        known = [self._calm(kind, changed=False)]
        if rebuilds:
            known.append(self._calm(kind, changed=True))
            place.finish(place.config(**KINDS[kind][1]))
        config = _config(place, kind, changed=rebuilds)
        reader = Reader(place.root, [answer for _, answer in known])
        with nullcontext() if isinstance(server, S3Server) else reader.reading():
            words = ("--rebuild",) if rebuilds else ()
            turn = Round(place, config, words, draw, self.last, server)
            for _ in range(draw.choice([1, 1, 2, 3])):
                name = draw.choice(names)
                line["struck"].append(name)
                FAULTS[kind][name](turn)
            run = place.finish(config, *words)
        if contents(run) != known[-1][0]:
            raise FoundError(f"contents are {contents(run)}, undisturbed {known[-1][0]}")
        if (answer := ask(place.root)) != known[-1][1]:
            raise FoundError(f"recommends {answer}, undisturbed {known[-1][1]}")
        if reader.found:
            raise FoundError(reader.found[0])
        place.check_gone()
        read = {"questions": reader.asked, "answers": reader.answered, "verified": reader.verified}
        line |= read
        self.counts.update(read)

    def _calm(self, kind: str, *, changed: bool) -> tuple[dict[str, str], list[str]]:
        """Contents of an undisturbed run and what it recommends, whatever engine and launcher.

        The number of workers decides in which order floats are added.
        """
        train = {"epochs": EPOCHS, "workers": 1, **KINDS[kind][1].get("train", {})}
        name = f"calm-{train['epochs']}-{train['workers']}{'-changed' if changed else ''}"
        if name not in self.calm:
            train["launcher"] = "inline" if train["workers"] == 1 else "processes"
            with _place(self.folder / name, "local") as (place, _):
                began = time.monotonic()
                run = place.finish(place.config(train=train, **(CHANGED if changed else {})))
                self.calm[name] = contents(run), ask(place.root)
                self.last = max(self.last, time.monotonic() - began)
        return self.calm[name]


def _config(place: Place, kind: str, *, changed: bool) -> Config:
    return place.config(**KINDS[kind][1], **(CHANGED if changed else {}))


@contextmanager
def _place(folder: Path, kind: str) -> Iterator[tuple[Place, S3Server | Engine | None]]:
    folder.mkdir(parents=True)
    if kind == "s3":
        with serving(folder / "journal") as server:
            yield Place(folder, f"{server.bucket('storm')}/runs"), server
    elif kind in ENGINES:
        with ENGINES[kind](folder) as engine:
            yield Place(folder, str(folder / "runs"), engine.url), engine
    else:
        yield Place(folder, str(folder / "runs")), None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the storm; exit 1 where something was found."""
    parser = argparse.ArgumentParser(prog="tests.storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument(
        "--seed", type=int, default=None, help="of the first round; then counted up"
    )
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of rounds")
    parser.add_argument("--faults", default="", help="faults to choose from; '' for all of a kind")
    parser.add_argument("--log", type=Path, default=Path("storm.jsonl"))
    args = parser.parse_args(argv)
    seed = args.seed if args.seed is not None else int(time.time())
    kinds = [kind for kind in args.kinds.split(",") for _ in range(KINDS[kind][0])]
    end = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory(prefix="storm-") as folder, args.log.open("a") as log:
        storm = Storm(Path(folder), log, tuple(filter(None, args.faults.split(","))))
        for number in range(args.rounds):
            if time.monotonic() > end:
                break
            storm.round(seed + number, random.Random(seed + number).choice(kinds))
        counts = dict(sorted(storm.counts.items()))
        print(json.dumps({"counts": counts, "findings": storm.findings}), file=log)
    print(f"{counts}\nfindings: {storm.findings or 'none'}")
    return 1 if storm.findings else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started
    sys.exit(main())
