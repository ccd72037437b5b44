"""The index that keeps a promise: planned, tried small, built, tuned and verified.

    plan     bytes and seconds of every candidate, before anything is built; none over budget
    try      each kind over a sample of the items: what a search would cost at the promise
    build    from the kind that looked cheapest on, while another looks a fifth cheaper still, or
             the sample is too thin to tell
    tune     on some queries, to a margin above the promised recall
    verify   on others, by an interval; PromiseError where no candidate keeps the promise

Costs are counted (`pipeline.index.cost`), so that the same vectors and queries give the same
choice every time, on any number of threads. The clock has a say only where milliseconds are
promised.

Legend: B queries, N items, D coordinates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import InputError, PromiseError
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats, Index
from embedmill.pipeline.index.kinds import INDEXES
from embedmill.pipeline.index.measure import Truth, truth_of
from embedmill.pipeline.index.selection.frontier import Candidate
from embedmill.pipeline.index.selection.plans import Plan, plans_of, within
from embedmill.pipeline.index.selection.selector import Choice, Hunt
from embedmill.pipeline.index.selection.target import Promise
from embedmill.pipeline.index.selection.trial import Trial, thin, tried
from embedmill.pipeline.log import Progress, Quiet

__all__ = ["Known", "check_vectors", "choose", "fitting_of", "hunted"]

# Microseconds of exact search below which nothing else is tried: a call takes as long.
_TRIFLE = 50.0


def choose(
    item_ND: Floats,
    tuning_BD: Floats,
    verifying_BD: Floats,
    config: IndexConfig,
    seed: int = 1,
    progress: Progress | None = None,
) -> Choice:
    """The fastest index over the items that keeps what the config promises.

        config = IndexConfig(recall_at_10=0.95, max_bytes="60MB")
        choice = choose(item_ND, tuning_BD, verifying_BD, config)
        scores, rows = choice.index.search(query_BD, 10)

    It runs on FAISS's threads (`embedmill.pipeline.index.contract.threads`), and needs no run.

    Args:
        item_ND: float32 [N, D], compared by inner product.
        tuning_BD: float32 [B, D], queries to tune with, such as will be asked.
        verifying_BD: other queries like these, to verify with.
        config: `kind` "auto" or the only one to search; the promise.
        seed: of k-means and of samples.
        progress: hears of candidates.

    Raises:
        ConfigError: no such kind, or parameters that do not fit the vectors.
        InputError: no items, or numbers that are not finite.
        PromiseError: nothing keeps the promise; shows what was measured.
    """
    item_ND, tuning_BD, verifying_BD = (
        np.ascontiguousarray(one, np.float32) for one in (item_ND, tuning_BD, verifying_BD)
    )
    check_vectors(items=item_ND, tuning=tuning_BD, verifying=verifying_BD)
    items, dim = item_ND.shape
    plans = plans_of(items, dim, config)
    fitting = fitting_of(plans, config, len(verifying_BD), items, dim)
    truths = truth_of(tuning_BD, item_ND), truth_of(verifying_BD, item_ND)
    known = Known(item_ND, items, *truths)
    make = functools.partial(_whole, item_ND, seed)
    promise = Promise.of(config)
    hunt = Hunt(item_ND, truths[0], len(verifying_BD), promise, make, thin=thin(items))
    return hunted(hunt, known, plans, fitting, config, progress or Quiet())


@dataclass(frozen=True)
class Known:
    """What a choice is made by.

    `item_ND` are all `items`, or a sample of them; `tuning` and `verifying` are truths over all.
    `too_long` are plans that are left out because building them would take too long.
    """

    item_ND: Floats
    items: int
    tuning: Truth
    verifying: Truth
    too_long: tuple[Plan, ...] = ()


def fitting_of(
    plans: list[Plan], config: IndexConfig, verified: int, items: int, dim: int
) -> list[Plan]:
    """The plans that may keep the promise, with so many queries to prove it.

    Raises:
        PromiseError: there are none.
    """
    promise = Promise.of(config)
    if promise.recall == 1.0 or not verified:  # nothing proves another kind
        plans = _exact(plans)
    return within(plans, promise.bytes, items, dim)


def hunted(
    hunt: Hunt,
    known: Known,
    plans: list[Plan],
    fitting: list[Plan],
    config: IndexConfig,
    progress: Progress,
) -> Choice:
    """Try what fits, build from the most promising on, verify the best.

    Raises:
        PromiseError: nothing keeps the promise; shows what was measured.
    """
    trials = _trials(known, fitting, config, hunt.promise.aim)
    for done, trial in enumerate(trials):
        progress.update(done, len(trials), "candidates")
        hunt.consider(trial)
    progress.update(len(trials), len(trials), "candidates")
    return hunt.kept(known.verifying, _left_out(plans, fitting, trials, known.too_long))


def _whole(item_ND: Floats, seed: int, plan: Plan) -> tuple[Index, int]:
    """An index of all items in one piece, and its bytes."""
    index = INDEXES[plan.kind].build(item_ND, plan.parameters, seed)
    return index, len(index.save())


def _exact(plans: list[Plan]) -> list[Plan]:
    """Those whose recall needs no proof.

    Raises:
        PromiseError: there are none.
    """
    kept = [plan for plan in plans if INDEXES[plan.kind].exact]
    if not kept:
        raise PromiseError(
            f"there are no queries to verify index.kind = '{plans[0].kind}' with",
            todo="Set index.kind = 'flat' or 'auto', or hold out events of known users",
        )
    return kept


def _trials(known: Known, plans: list[Plan], config: IndexConfig, aim: float) -> list[Trial]:
    """Plans in the order to build them in; of one kind alone, the finest first."""
    items, dim = known.items, known.item_ND.shape[1]
    exact = [plan for plan in plans if INDEXES[plan.kind].exact]
    if exact and cost.products(items, dim) <= min(_TRIFLE, Promise.of(config).ceiling):
        return [Trial(exact[0], 1.0, cost.products(items, dim))]
    alone = len({plan.kind for plan in plans}) == 1
    if alone and INDEXES[plans[0].kind].tries == 1:
        return [Trial(plan, 1.0, math.inf) for plan in plans]
    return tried(known.item_ND, items, known.tuning.query_BD, plans, config, aim)


def _left_out(
    plans: list[Plan], fitting: list[Plan], trials: list[Trial], too_long: Sequence[Plan]
) -> list[Candidate]:
    """What is not built, and why."""
    shown = {id(trial.plan) for trial in trials}
    why = {id(plan): "an earlier one of its kind did" for plan in fitting}
    why |= {id(plan): "takes too long to build" for plan in too_long}
    return [
        Candidate(plan, why.get(id(plan), "over max_bytes"))
        for plan in plans
        if id(plan) not in shown
    ]


def check_vectors(**vectors: Floats) -> None:
    """Raise InputError where there are no items, or a vector is not finite or of other length.

    The items come by the name `items`, others by that of what they are.
    """
    dim = vectors["items"].shape[1]
    for name, vector_ND in vectors.items():
        # A sum over each: without a mask as large as the vectors.
        bad_N = ~np.isfinite(vector_ND.sum(axis=1, dtype=np.float64))
        if vector_ND.shape[1] != dim:
            raise InputError(f"{name} have {vector_ND.shape[1]} coordinates, the items {dim}")
        if bad_N.any():
            raise InputError(
                f"{int(bad_N.sum()):,} of {len(bad_N):,} vectors ({name}) hold NaN or infinity, "
                f"the first in row {int(bad_N.argmax())}",
                todo="No index can rank by them; train anew with a lower learning rate",
            )
    if not len(vectors["items"]):
        raise InputError("there are no items to index")
