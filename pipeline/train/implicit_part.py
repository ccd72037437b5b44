"""The implicit part of rating vectors: what they owe to who rated what, whatever the ratings.

A user's vector is p + n^-1/2 sum of y over the n items that the user rated (SVD++: Koren, KDD 2008,
section 3), and an item's is its own vector plus the like sum of z over its users. L2 pulls the
vectors p towards 0, hence a row of few events towards the sum of its neighbours' factors.

The tables hold the whole vectors, so that steps, validation and the published vectors are those
of a model without an implicit part. Of the factors y and z nothing but their sums is needed, in the
state `implicit`. They are learned from gradients that steps add up in the state `pending`: the
gradient by y is the sum of n^-1/2 times those by the vectors of the item's users.

Legend: L user or item rows of this worker, G rows of a step, D columns of the vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embedmill.pipeline.train.closed_form.event_matrix import EventMatrix
from embedmill.pipeline.train.graph.event_graph import EventGraph, owned_rows
from embedmill.pipeline.train.losses import LossSettings
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.train.tables.embedding_table import Table
from embedmill.pipeline.train.training_data import TrainingData

__all__ = ["UPDATES", "ImplicitPart", "ImplicitParts", "implicit_widths", "pending_steps"]

UPDATES = 8  # of the factors in an epoch
_EPSILON = 1e-8


def implicit_widths(dim: int) -> dict[str, int]:
    """Width of each tensor of state that a table of vectors of `dim` columns has for it."""
    return {"implicit": dim, "pending": dim, "factor_squares": 1}


@dataclass(frozen=True)
class ImplicitPart:
    """The implicit part of the vectors of one table.

    Args:
        table: its state has the tensors of `implicit_widths`.
        scale_L: number of a row's events to the power -1/2; 0 for a row without events.
        l2_L: factors of the L2 that an event adds on a row; None: 1.
    """

    table: Table
    scale_L: Tensor
    l2_L: Tensor | None

    def add_gradients(
        self, local_G: Tensor, gradient_GD: Tensor, share_G: Tensor, settings: LossSettings
    ) -> None:
        """Add a step's gradients to the pending ones, and those of the L2 to the step's.

        Args:
            local_G: positions of the rows in this worker's table.
            gradient_GD: gradients of the loss without L2, with the bias; changed in place.
            share_G: shares of the batch that are events of the rows.
            settings: `l2` and `l2_bias`.
        """
        state, vector = self.table.state, self.table.columns[0]
        state["pending"].index_add_(0, local_G, gradient_GD[:, vector])
        row_GD = self.table.weight.index_select(0, local_G)
        row_GD[:, vector] -= state["implicit"].index_select(0, local_G)
        l2_D = row_GD.new_full((row_GD.shape[1],), settings.l2)
        l2_D[-1] = settings.l2 if settings.l2_bias is None else settings.l2_bias
        scale_G = 2 * share_G
        if self.l2_L is not None:
            scale_G *= self.l2_L.index_select(0, local_G)
        gradient_GD.addcmul_(row_GD.mul_(l2_D), scale_G[:, None])

    def step_factors(self, gradient_LD: Tensor, rate: float) -> Tensor:
        """The changes of this table's factors by row-wise Adagrad; [L, D], in place."""
        squares_L1 = self.table.state["factor_squares"]
        squares_L1 += gradient_LD.square().mean(1, keepdim=True)
        return gradient_LD.mul_((squares_L1.sqrt() + _EPSILON).reciprocal_().mul_(-rate))

    def add(self, change_LD: Tensor) -> None:
        """Add changes to the implicit part, and so to the vectors; clear what was pending."""
        self.table.weight[:, self.table.columns[0]] += change_LD
        self.table.state["implicit"] += change_LD
        self.table.state["pending"].zero_()


@dataclass(frozen=True)
class ImplicitParts:
    """The implicit parts of both tables; `matrix` has a 1 for each event."""

    matrix: EventMatrix
    users: ImplicitPart
    items: ImplicitPart

    @staticmethod
    def of(tables: tuple[Table, Table], data: TrainingData, dim: int) -> ImplicitParts:
        """The implicit parts of the tables of users and of items; a collective."""
        users, items = (table.embedding for table in tables)
        graph = EventGraph.of(data.events, data.sample_weights, users, items, dim)
        matrix = EventMatrix.of(graph.scaled(0.0, 0.0))
        graph, device = graph.scaled(0.5, 0.5), items.group.device
        user_L = torch.arange(len(users.weight), device=device)
        item_L = torch.empty(len(items.weight), dtype=torch.int64, device=device)
        own = owned_rows(items, 0, items.rows)
        item_L[items.local_index(own)] = own
        user_l2_L, item_l2_L = data.l2_scaling.users(user_L), data.l2_scaling.items(item_L)
        return ImplicitParts(
            matrix,
            ImplicitPart(tables[0], graph.user_L, user_l2_L),
            ImplicitPart(tables[1], graph.item_I[item_L], item_l2_L),
        )

    def update(self, steps: int, rate: float) -> None:
        """Change the factors by the mean of the pending gradients; a collective.

        Args:
            steps: how many added their gradients.
            rate: learning rate of the factors.
        """
        users, items = self.users, self.items
        user_LD = users.table.state["pending"] * (users.scale_L / steps)[:, None]
        item_LD = items.table.state["pending"] * (items.scale_L / steps)[:, None]
        item_factor_LD = items.step_factors(self._sums_of_users(user_LD), rate)
        user_factor_LD = users.step_factors(self._sums_of_items(item_LD), rate)
        users.add(self._sums_of_items(item_factor_LD).mul_(users.scale_L[:, None]))
        items.add(self._sums_of_users(user_factor_LD).mul_(items.scale_L[:, None]))

    def _sums_of_users(self, user_LD: Tensor) -> Tensor:
        """For each item of this worker the sum of its users' rows; a collective."""
        out_LD = user_LD.new_zeros((len(self.items.scale_L), user_LD.shape[1]))
        self._matrix(user_LD, out_LD).set_items()
        return out_LD

    def _sums_of_items(self, item_LD: Tensor) -> Tensor:
        """For each user of this worker the sum of its items' rows; a collective."""
        out_LD = item_LD.new_zeros((len(self.users.scale_L), item_LD.shape[1]))
        self._matrix(out_LD, item_LD).set_users()
        return out_LD

    def _matrix(self, user_LD: Tensor, item_LD: Tensor) -> EventMatrix:
        """The matrix between other rows than those of the tables."""
        users, items = (
            ShardedEmbedding(rows_LD, table.rows, table.layout, table.group)
            for rows_LD, table in ((user_LD, self.matrix.users), (item_LD, self.matrix.items))
        )
        return replace(self.matrix, users=users, items=items)


def pending_steps(step: int, steps: int) -> int:
    """How many steps' gradients change the factors after `step` of an epoch; 0: not yet.

    Args:
        step: number of the step in its epoch, from 0.
        steps: of an epoch.
    """
    number = min(UPDATES, steps)
    ends = [(at + 1) * steps // number for at in range(number)]
    if step + 1 not in ends:
        return 0
    return step + 1 - max((end for end in ends if end <= step), default=0)
