"""Holds one library's indexes and does what it is told, a JSON object a line; answers likewise.

    python server.py LIBRARY FOLDER threads

FOLDER has vectors.npy and the queries, tuning.npy and test.npy. What the library itself prints
goes to stderr. Seconds are those of the call alone: neither loading nor writing is in them.
"""

from __future__ import annotations

import gc
import json
import math
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from libraries import LIBRARIES, Library, Rows  # its own folder is on the path

SINGLE = 300  # queries that are asked one by one
PASSES, PASSES_SECONDS = 5, 0.3


class Server:
    """Engines by name."""

    def __init__(self, library: Library, folder: Path, threads: int) -> None:
        self.contender = library
        self.folder = folder
        self.threads = threads
        self.engines: dict[str, Any] = {}
        self.queries = {n: np.load(folder / f"{n}.npy") for n in ("tuning", "test")}

    def build(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Build an engine under a name; seconds, bytes and what is worth telling."""
        vector_ND = np.load(self.folder / "vectors.npy")
        settings["queries"] = str(self.folder / "tuning.npy")
        began = time.perf_counter()
        engine, told = self.contender.build(vector_ND, settings, self.threads)
        seconds = time.perf_counter() - began
        self.engines[name] = engine
        sizes = {"bytes": self.contender.size(engine), "all_seconds": seconds}
        return {**sizes, "build_seconds": seconds, **told}

    def answer(self, name: str, part: str, k: int, effort: dict[str, Any]) -> dict[str, Any]:
        """Answer all queries of a part on all threads; rows are left in answers.npy.

        Seconds are the least of a few passes where they are short.
        """
        self.contender.limit(self.threads)
        rows, taken = self._passes(name, part, k, effort, PASSES)
        np.save(self.folder / "answers.npy", rows)
        return {"seconds": min(taken)}

    def time(self, name: str, part: str, effort: dict[str, Any]) -> dict[str, Any]:
        """Queries a second, all at once on all threads; milliseconds of single ones on one.

        All queries again and again for a while, the median of these passes: one of 40 ms would be
        told by how fast threads wake and by what the library before has left of the cache.
        """
        self.contender.limit(self.threads)
        speed = {}
        for key, k in (("qps", 10), ("qps@100", 100)):
            rows, passes = self._passes(name, part, k, effort)
            speed[key] = len(rows) / statistics.median(passes)
        self.contender.limit(1)
        taken = []
        for query_D in self.queries[part][:SINGLE]:
            began = time.perf_counter()
            self.contender.search(self.engines[name], query_D[None], 10, effort)
            taken.append(1000 * (time.perf_counter() - began))
        return {
            **speed,
            "ms": float(np.mean(taken)),
            "ms_p99": float(np.quantile(taken, 0.99)),
        }

    def keep(self, names: list[str]) -> dict[str, Any]:
        """Drop all engines but these."""
        self.engines = {name: self.engines[name] for name in names}
        gc.collect()
        return {}

    def _passes(
        self, name: str, part: str, k: int, effort: dict[str, Any], most: float = math.inf
    ) -> tuple[Rows, list[float]]:
        """What is found, and the seconds of each pass: one at least, then until they add up."""
        taken: list[float] = []
        while sum(taken) < PASSES_SECONDS and len(taken) < most:
            began = time.perf_counter()
            rows = self._search(name, part, k, effort)
            taken.append(time.perf_counter() - began)
        return rows, taken

    def _search(self, name: str, part: str, k: int, effort: dict[str, Any]) -> Rows:
        return self.contender.search(self.engines[name], self.queries[part], k, effort)


def main() -> None:
    library, folder, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    server = Server(LIBRARIES[library](), Path(folder), int(threads))
    calls: dict[str, Callable[..., dict[str, Any]]] = {
        "build": server.build,
        "answer": server.answer,
        "time": server.time,
        "keep": server.keep,
    }
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = calls[asked.pop("do")](**asked)
        except Exception as error:  # told to who asked, with what can be read of it here
            traceback.print_exc()
            answer = {"failed": str(error)}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
