"""A library's process, from outside, and recall of its answers against exact ones.

Legend: N vectors, B queries, k answers each, D coordinates.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import faiss
import numpy as np
from harness.peer_environments import python_of
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

# The environment of each library; the others run in ours.
ENVIRONMENTS = {"autofaiss": "autofaiss", "hnswlib": "graphs", "usearch": "graphs"}


class FailedError(Exception):
    """A library could not do what it was asked to."""


class Process:
    """Indexes of one library, in a process of its own."""

    def __init__(self, library: str, folder: Path, threads: int) -> None:
        self.contender = library
        self._folder = folder
        known = ENVIRONMENTS.get(library)
        python = str(python_of(known)) if known else sys.executable
        script = Path(__file__).parent / "server.py"
        self._child = subprocess.Popen(
            [python, str(script), library, str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self._child.stdin
        self._child.stdin.close()
        self._child.wait()

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """Have it do one thing; FailedError where it cannot."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(json.dumps({"do": do, **words}) + "\n")
        line = self._child.stdout.readline()
        if not line:
            sys.exit(f"{self.contender}: its process ended while it had to {do}; see above")
        found: dict[str, Any] = json.loads(line)
        if "failed" in found:
            raise FailedError(f"{self.contender}: {found['failed']}")
        return found

    def answers(self, **words: Any) -> tuple[Rows, float]:
        """Rows [B, k] of all queries of a part, and the seconds they took on all threads."""
        seconds = self.ask("answer", **words)["seconds"]
        return np.load(self._folder / "answers.npy"), seconds


@dataclass(frozen=True)
class Exact:
    """The k-th best scores of queries, over the raw vectors."""

    vector_ND: Floats
    query_BD: Floats
    score_BK: Floats

    @staticmethod
    def of(vector_ND: Floats, query_BD: Floats, k: int) -> Exact:
        """By comparing all."""
        score_BK, _ = faiss.knn(query_BD, vector_ND, k, metric=faiss.METRIC_INNER_PRODUCT)
        return Exact(vector_ND, query_BD, score_BK)

    def recall(self, row_Bk: Rows) -> float:
        """Share of answers as good as the k-th best, their scores computed from the vectors.

        Whichever of equal vectors it is, as ann-benchmarks counts; a row that comes twice
        counts once.
        """
        k = row_Bk.shape[1]
        least_B = self.score_BK[:, k - 1].astype(np.float64)
        slack_B = 1e-6 * np.maximum(1.0, np.abs(least_B))
        found = 0
        for b in range(0, len(row_Bk), 256):
            part = slice(b, b + 256)
            near = self.vector_ND[row_Bk[part]].astype(np.float64)
            score = np.einsum("bkd,bd->bk", near, self.query_BD[part].astype(np.float64))
            good = (score >= (least_B - slack_B)[part, None]) & (row_Bk[part] >= 0)
            good &= ~_again(row_Bk[part])
            found += int(good.sum())
        return found / row_Bk.size


def _again(row_Bk: Rows) -> NDArray[np.bool_]:
    """Which answers repeat one of the same query."""
    order = np.argsort(row_Bk, axis=1, kind="stable")
    rising = np.take_along_axis(row_Bk, order, 1)
    same = np.zeros(row_Bk.shape, bool)
    same[:, 1:] = rising[:, 1:] == rising[:, :-1]
    again = np.empty_like(same)
    np.put_along_axis(again, order, same, 1)
    return again
