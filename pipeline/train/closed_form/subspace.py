"""Vectors from a truncated singular value decomposition of the degree-scaled events.

With A = d^-a R e^-b and S, V its leading singular values and right singular vectors, users get
A V f and items e^q V f (PureSVD: Cremonesi et al. 2010, with the degrees of GF-CF: Shen et al.
2021, arXiv 2108.07567). f^2 = S^2 / (S^2 + r) is the shrinkage of ridge regression: A V f^2 V'
is what a regression of A on itself predicts that is penalised by r |W|^2. That is EASE (Steck
2019, arXiv 1905.03375) without its zero diagonal: exactly where there are as many dimensions as
items, else its best approximation of that rank.
The subspace of V is found by randomised subspace iteration (Halko, Martinsson and Tropp 2011,
arXiv 0909.4061, algorithm 4.4). A step is one pass: a product with A and, except in the last
one, with its transpose. Both tables are worked on in place, so a checkpoint of them after any
pass is all that is needed to go on.

A training that starts from an earlier run moves items by the events that are new since, as one more
pass over all events would, and lets the other events be: see `_add_new_events`.

Within the subspace no axes are chosen: scores do not depend on them. A user's vector is the
sum of the vectors of its items, each times w e^-(b + q), times d^-a: a user who was not trained
on is folded in by one sparse product.

Legend: L rows of this worker, D columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from embedmill.pipeline.config import SpectralConfig
from embedmill.pipeline.train.closed_form.event_matrix import EventMatrix
from embedmill.pipeline.train.closed_form.table_algebra import (
    gram,
    multiply,
    orthonormal_factor,
)
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.graph.event_graph import EventGraph, owned_rows, row_blocks

__all__ = ["SubspaceIteration", "damping", "popularity_factors"]

_ROUNDED = 1e-5  # a share of an item's events that is nothing but rounding errors


@dataclass
class SubspaceIteration:
    """Takes the passes; `graph` has the degrees and is not scaled."""

    graph: EventGraph
    config: SpectralConfig
    started: bool = False  # whether the items have the vectors of an earlier run
    new: EventGraph | None = None  # of the events that that run did not have, if known
    published: bool = False  # whether they have the vectors of a finished epoch, or of that run

    def start_epoch(
        self, epoch: int, learning_rate: Callable[[int], float]
    ) -> Callable[[int], float]:
        """The function that takes a pass; a later epoch goes on from the items of the last one."""
        self.published = epoch > 0 or self.started

        def take(step: int) -> float:
            return self._take(step)

        return take

    def _take(self, step: int) -> float:
        """Take one pass; a collective.

        Returns:
            the share of the squared norm of A that the subspace leaves out; NaN where a value
            is not finite at any worker.
        """
        timer = self._group.timer
        with timer("update"):
            if step == 0 and self.published:
                self._scale_items(-self.config.popularity_power)
            new = self.new if self._has_new_events(step) else None
            if new is not None:
                self._shrink_items(new)
        if new is not None:
            with timer("loss"):
                self._add_new_events(new)
        with timer("update"):
            factor_DD = orthonormal_factor(gram(self.graph.items, self.graph.dim))
            if factor_DD is None:
                return float("nan")
        with timer("loss"):
            if step + 1 < self.config.passes:
                multiply(self.graph.items, factor_DD)
                self._matrix.set_users()
                residual = self._residual()
                self._matrix.set_items()
            else:
                self._matrix.set_users()
                residual = self._finish(factor_DD)
        return residual

    def _shrink_items(self, new: EventGraph) -> None:
        """Scale items to what their old events make of them: A is smaller there now; a collective.

        An entry of A falls with the item's events; items whose events are all new become zero.
        """
        weight_M = new.sample_weights.of(new.events.weight_E).to(new.item_I)
        added_I = torch.zeros_like(new.item_I)
        added_I.index_add_(0, new.events.item_E.long().to(added_I.device), weight_M)
        added_I = self._group.sum(added_I)
        left_I = torch.where(new.item_I > 0, 1 - added_I / new.item_I, 0.0).clamp(min=0)
        left_I = torch.where(left_I > _ROUNDED, left_I**self.config.item_power, 0.0)
        vectors_LD = self.graph.items.weight.detach()[:, : self.graph.dim]
        vectors_LD *= self.graph.own_items(left_I)[:, None]

    def _add_new_events(self, new: EventGraph) -> None:
        """Let the new events move their items, as one pass over all events would; a collective.

        Where V holds singular vectors, V = A'A V S^-2: a row is a sum over its events, of which the
        old ones have made it what it is. Of other columns X of their space, X = V M, the same is
        X = A'Y (Y'Y)^-1 X'X with Y = A X.
        """
        self._matrix.set_users()
        inner_DD = gram(self.graph.items, self.graph.dim)
        square_DD = gram(self.graph.users, self.graph.dim)
        square_DD.diagonal().add_(1e-6 * float(square_DD.diagonal().mean()) or 1.0)
        ratio_DD = torch.linalg.solve(square_DD, inner_DD).float()
        scaled = new.scaled(self.config.user_power, self.config.item_power)
        vectors_LD = self.graph.items.weight.detach()[:, : self.graph.dim]
        for first, last in row_blocks(self.graph.items.rows):
            sum_ND = scaled.item_sums(first, last)
            own = owned_rows(self.graph.items, first, last)
            own = own[sum_ND[own - first].any(dim=1)]  # most items have no new event
            vectors_LD[self.graph.items.local_index(own)] += sum_ND[own - first] @ ratio_DD

    def _has_new_events(self, step: int) -> bool:
        """Whether this is the first pass from an earlier run that lacks events; a collective."""
        if step or not self.started or self.new is None:
            return False
        count = torch.tensor([len(self.new.events)], device=self._group.device)
        return bool(self._group.sum(count).item())

    @property
    def _group(self) -> Group:
        return self.graph.group

    @cached_property
    def _matrix(self) -> EventMatrix:
        scaled = self.graph.scaled(self.config.user_power, self.config.item_power)
        # The last pass does not set the items.
        return EventMatrix.of(scaled, sets_items=self.config.passes > 1)

    @cached_property
    def _squared_norm(self) -> float:
        return self._matrix.squared_norm()

    @cached_property
    def mean_square(self) -> float:
        """Mean squared singular value of A, leaving out zero rows and columns; a collective."""
        number = torch.tensor([float((self.graph.user_L > 0).sum())], dtype=torch.float64)
        users = float(self._group.sum(number.to(self._group.device)).item())
        items = float((self.graph.item_I > 0).sum())
        return self._squared_norm / max(1.0, min(users, items))

    def _residual(self) -> float:
        """1 - |A Q|^2 / |A|^2, the users having the rows of A Q; a collective."""
        total = torch.zeros(1, dtype=torch.float64, device=self._group.device)
        for rows_LD in torch.split(self.graph.users.weight.detach()[:, : self.graph.dim], 1 << 16):
            total += torch.linalg.vector_norm(rows_LD).double().square()
        return self._left_out(float(self._group.sum(total).item()))

    def _left_out(self, captured: float) -> float:
        """1 - `captured` / |A|^2; 0 where A is zero."""
        return 1 - captured / self._squared_norm if self._squared_norm else 0.0

    def _finish(self, factor_DD: Tensor) -> float:
        """Make both sides what is published of the last pass; a collective.

        The items X become X M and the users A X become A X M, with M = R^-1 f(S)^1/2 in whatever
        axes the subspace has: one product with either table.

        Args:
            factor_DD: R^-1, with which the items' columns are orthonormal.

        Returns:
            as `_residual`.
        """
        square_DD = factor_DD.T @ gram(self.graph.users, self.graph.dim) @ factor_DD
        penalty = self.config.ridge * self.mean_square
        if penalty > 0:
            square_D, axis_DD = torch.linalg.eigh(square_DD)
            factor_DD = factor_DD @ ((axis_DD * damping(square_D, penalty)) @ axis_DD.T)
        for table in (self.graph.users, self.graph.items):
            multiply(table, factor_DD)
        self._scale_items(self.config.popularity_power)
        return self._left_out(float(square_DD.trace()))

    def _scale_items(self, power: float) -> None:
        """Multiply each item's vector by its degree to `power`; zero for a degree of 0."""
        vectors_LD = self.graph.items.weight.detach()[:, : self.graph.dim]
        vectors_LD *= popularity_factors(self.graph, power)[:, None]


def popularity_factors(graph: EventGraph, power: float) -> Tensor:
    """What an item's vector is scaled by: its degree to `power`, 0 for a degree of 0.

    Returns:
        float32 [L], of the items that this worker owns.
    """
    degree_I = graph.item_I
    return graph.own_items(torch.where(degree_I > 0, degree_I**power, 0.0))


def damping(square_D: Tensor, penalty: float) -> Tensor:
    """What each side is scaled by along axes of squared singular values S^2: f(S)^1/2, [D]."""
    square_D = square_D.clamp(min=0)
    return (square_D / (square_D + penalty).clamp(min=torch.finfo(square_D.dtype).tiny)).sqrt()
