"""Two runs compared over the same test users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.mean_intervals import PairedDifference, paired_difference
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.evaluate import Evaluation

__all__ = ["Comparison", "compare_runs"]


@dataclass(frozen=True)
class Comparison:
    """How two runs differ.

    Attributes:
        differences: by metric that both runs have, in the order of the first.
        only_before: users that only the first run evaluated.
        only_after: users that only the second one evaluated.
    """

    differences: dict[str, PairedDifference]
    only_before: int
    only_after: int


def compare_runs(before: Run, after: Run) -> Comparison:
    """Compare the metrics of two runs over the users that both evaluated, matched by raw id.

    The runs ought to have the same test events: a metric of other events is another metric.

    Raises:
        InputError: a run has not kept the metrics of its users, or they share fewer than two.
    """
    tables = [Evaluation(run.artifact("evaluate")).users() for run in (before, after)]
    names = [n for n in tables[0].column_names[1:] if n in tables[1].column_names]
    at = pc.index_in(tables[1]["user"], tables[0]["user"].combine_chunks())
    shared = pc.is_valid(at)
    one = tables[0].take(at.filter(shared).cast(pa.int64()))
    other = tables[1].filter(shared)
    if one.num_rows < 2:
        raise InputError(
            f"fewer than two users were evaluated in both runs: {tables[0].num_rows:,} in "
            f"{before.storage.root}, {tables[1].num_rows:,} here",
            where=after.storage.root,
            todo="Compare runs over the same log and split",
        )
    differences = {
        name: paired_difference(_values(one, name), _values(other, name)) for name in names
    }
    only = [table.num_rows - one.num_rows for table in tables]
    return Comparison(differences, only[0], only[1])


def _values(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(table[name].to_numpy(), np.float64)
