"""How far vectors have moved since an earlier run.

Measured over the items that are in use in both: how many of the ten nearest items are the same,
which does not depend on the space; how many of the ten best items of users are the same;
and, where both runs have one space, the distance of a vector from what it was, relative to the mean
length before.

Legend: R items in both runs, S items or users of a sample, D coordinates of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.score import RowLists, top_k
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.earlier_run import earlier_rows
from embedmill.pipeline.views.vectors import Vectors, space_of, spec_of
from embedmill.schemas.evaluate import Drift, MovedItem

__all__ = ["DRIFT_METRICS", "MOVED", "K", "drift_metrics", "measure_drift"]

K = 10
MOVED = 0.1  # of the mean length: an item that moved farther counts as moved
_SAMPLE = 1000
_QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99}
_NAMED = 20

_OF_DISTANCE = ("distance", *(f"distance.{name}" for name in _QUANTILES), "moved")
DRIFT_METRICS = (
    f"drift.jaccard@{K}",
    f"drift.users_overlap@{K}",
    *(f"drift.{name}" for name in _OF_DISTANCE),
)


@dataclass(frozen=True)
class _Items:
    """Items in both runs: rows now, and vectors float32 [R, D].

    `exported` are the vectors now and before with their biases.
    """

    row_R: NDArray[np.int64]
    now_RD: NDArray[np.float32]
    before_RD: NDArray[np.float32]
    exported: tuple[NDArray[np.float32], NDArray[np.float32]]


def measure_drift(now: Artifact, before: Artifact, seed: int) -> Drift:
    """Compare the vectors of two exports.

    Args:
        now: the later one.
        before: the earlier one.
        seed: draws the samples.
    """
    vectors = Vectors.of(now, "items")
    items = _in_both(vectors, Vectors.of(before, "items"))
    one_space, count = space_of(now) == space_of(before), len(items.row_R)
    if not count:
        return Drift(items=0, one_space=one_space)
    chosen = np.random.default_rng(seed).permutation(count)[:_SAMPLE]
    jaccard = _jaccard(items, np.sort(chosen))
    overlap = _users_overlap(items, now, before, seed)
    if not one_space or items.now_RD.shape != items.before_RD.shape:
        return Drift(items=count, one_space=one_space, jaccard=jaccard, users_overlap=overlap)
    difference_RD = items.now_RD.astype(np.float64) - items.before_RD
    length = float(np.linalg.norm(items.before_RD.astype(np.float64), axis=1).mean()) or 1.0
    distance_R = np.linalg.norm(difference_RD, axis=1) / length
    farthest = np.argsort(-distance_R, kind="stable")[:_NAMED]
    ids = vectors.vocabulary.ids(items.row_R[farthest])
    counts = vectors.column("count")[items.row_R[farthest]].tolist()
    return Drift(
        items=count,
        one_space=True,
        jaccard=jaccard,
        users_overlap=overlap,
        distance=float(distance_R.mean()),
        quantiles={name: float(np.quantile(distance_R, q)) for name, q in _QUANTILES.items()},
        moved=float((distance_R > MOVED).mean()),
        farthest=tuple(
            MovedItem(id=raw, distance=float(distance_R[at]), events=events)
            for raw, at, events in zip(ids, farthest, counts, strict=True)
        ),
    )


def drift_metrics(drift: Drift) -> Mapping[str, float]:
    """The figures under the names of metrics; those that were not measured are left out."""
    found = {
        f"drift.jaccard@{K}": drift.jaccard,
        f"drift.users_overlap@{K}": drift.users_overlap,
        "drift.distance": drift.distance,
    }
    found |= {f"drift.distance.{name}": value for name, value in (drift.quantiles or {}).items()}
    found["drift.moved"] = drift.moved
    return {name: value for name, value in found.items() if value is not None}


def _in_both(now: Vectors, before: Vectors) -> _Items:
    row_N = earlier_rows(now.vocabulary, before.vocabulary)
    row_R = np.flatnonzero(row_N >= 0)
    dims = [spec_of(one.export).model_dim for one in (now, before)]
    whole = now.gather(row_R), before.gather(row_N[row_R])
    return _Items(row_R, whole[0][:, : dims[0]], whole[1][:, : dims[1]], whole)


def _users_overlap(items: _Items, now: Artifact, before: Artifact, seed: int) -> float | None:
    """Mean share of the ten best of these items that are the same, over a sample of users in both.

    Items that a user has events with count, too: what is new of the lists is told by the metrics.
    """
    users = [Vectors.of(one, "users") for one in (now, before)]
    row_N = earlier_rows(users[0].vocabulary, users[1].vocabulary)
    known = np.flatnonzero(row_N >= 0)
    if not len(known):
        return None
    chosen = np.sort(np.random.default_rng(seed).permutation(known)[:_SAMPLE])
    width, found = min(K, len(items.row_R)), []
    pairs = zip(users, (chosen, row_N[chosen]), items.exported, strict=True)
    for vectors, rows, item_RD in pairs:
        user_SD, whole_RD = torch.from_numpy(vectors.gather(rows)), torch.from_numpy(item_RD)
        nobody = RowLists.of(torch.empty(0).long(), torch.empty(0).long(), len(rows))
        found.append(top_k(user_SD, [(0, whole_RD)], width, nobody)[1].numpy())
    same = [np.intersect1d(*pair).size for pair in zip(*found, strict=True)]
    return float(np.mean(same)) / width


def _jaccard(items: _Items, chosen: NDArray[np.int64]) -> float:
    """Mean over a sample of |A and B| / |A or B| of the ten nearest items by cosine."""
    near = [_nearest(one, chosen) for one in (items.now_RD, items.before_RD)]
    shared = [np.intersect1d(*pair).size for pair in zip(*near, strict=True)]
    width = min(K, len(items.row_R) - 1)
    if width < 1:
        return 1.0
    return float(np.mean([both / (2 * width - both) for both in shared]))


def _nearest(vector_RD: NDArray[np.float32], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    unit_RD = torch.nn.functional.normalize(torch.from_numpy(vector_RD), eps=1e-30)
    own = torch.from_numpy(chosen)
    itself = RowLists.of(torch.arange(len(own)), own, len(own))
    width = min(K, len(vector_RD) - 1)
    _, row_Sk = top_k(unit_RD[own], [(0, unit_RD)], max(1, width), itself)
    found: NDArray[np.int64] = row_Sk.numpy()
    return found
