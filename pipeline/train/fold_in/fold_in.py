"""Fold-in: a row's vector from its events, with the tables of a finished training fixed.

Nothing is trained. iALS, spectral and rating have a row's vector in closed form; of softmax, BPR
and CCL the row's own loss is lowered by some gradient steps; of item2vec the mean of the items'
vectors is the definition. It is how users who were withheld whole are evaluated
(Liang et al. 2018, arXiv 1802.05814, section 4.2), and how somebody gets recommendations who is in
no run.

Legend: U rows, M their events, N rows of the other side, E coordinates as exported, D of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedmill.pipeline.config import Config, IalsConfig, TrainConfig, parse
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.train.als.unobserved_weight import with_unobserved_weight
from embedmill.pipeline.train.fold_in import closed_forms, gradient_steps
from embedmill.pipeline.train.fold_in.fitted import Fitted, fitted_events
from embedmill.pipeline.train.fold_in.known_events import KnownEvents
from embedmill.pipeline.train.fold_in.loss_negatives import Negatives, cluster_means, sampled_rows
from embedmill.pipeline.train.fold_in.start_map import start_map
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.train import Training
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.export import VectorSpec

__all__ = ["FoldIn", "Folded", "how_folded", "trained_with"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

_WHOLE = 1 << 31  # bytes of a table that is kept in memory


@dataclass(frozen=True)
class Folded:
    """Vectors float32 [U, E] as exported, and biases [U] where the model has them."""

    vector_UE: Floats
    bias_U: Floats | None = None


@dataclass(frozen=True)
class FoldIn:
    """What makes vectors of new rows of one side.

    Without `shards`, the events that the model was fitted to, gradient steps begin at plain means.

    `others` are the vectors of the other side, `fitted` is what is known of the events that the
    model was fitted to.
    """

    spec: VectorSpec
    config: TrainConfig
    others: Vectors
    fitted: Fitted
    side: str = "users"
    shards: Shards | None = None
    seed: int = 1

    @staticmethod
    def of(
        spec: VectorSpec,
        config: TrainConfig,
        shards: Shards,
        others: Vectors,
        side: str = "users",
    ) -> FoldIn:
        """Read what the objective needs.

        Args:
            spec: of the exported vectors.
            config: of the training.
            shards: the events.
            others: vectors of the items to fold in users, of the users to fold in items.
            side: "users" or "items", whose rows are folded in.
        """
        fitted = fitted_events(spec, config, shards, side)
        return FoldIn(spec, config, others, fitted, side, shards)

    def sample_weights(self, events: KnownEvents) -> NDArray[np.float64]:
        """What each event counts, float64 [M]."""
        return self.fitted.sample_weights(events.weight_M, self.config.weight_power)

    def vectors(self, events: KnownEvents, rows: int) -> Floats:
        """Vectors of `rows` rows, float32 [U, E], from their events; zero without any."""
        return self.fold(events, rows).vector_UE

    def fold(self, events: KnownEvents, rows: int) -> Folded:
        """Vectors and biases of `rows` rows; without events both are zero."""
        vector_UD, bias_U = _METHODS[self.spec.objective](self, events, rows)
        if self.spec.similarity == "cosine":
            vector_UD = torch.nn.functional.normalize(vector_UD, eps=1e-30)
        if self.spec.bias:
            bias_U = torch.zeros(rows) if bias_U is None else bias_U
            last_U = torch.ones(rows) if self.side == "users" else bias_U
            vector_UD = torch.cat((vector_UD, last_U[:, None]), 1)
        own = None if bias_U is None else bias_U.numpy().astype(np.float32)
        return Folded(vector_UD.numpy().astype(np.float32), own)

    def take(self, rows: Rows) -> Tensor:
        """Vectors of the other side without its last coordinate for biases, float32 [., D]."""
        return self.with_bias(rows)[:, : self.dim]

    def with_bias(self, rows: Rows) -> Tensor:
        """Vectors of the other side as exported, float32 [., E]."""
        if self._table is not None:
            return self._table[torch.from_numpy(rows)]
        return torch.from_numpy(self.others.gather(rows))

    @cached_property
    def ials(self) -> IalsConfig:
        """Section ials, with the weight of an unobserved pair that training had."""
        ials = self.config.ials
        if ials.unobserved_weight:
            return ials
        events = int(self.fitted.count_N.sum())
        return with_unobserved_weight(ials, events, self.spec.users, self.spec.items)

    @cached_property
    def own(self) -> Vectors:
        """Vectors of the side that is folded in, as training left them."""
        return Vectors.of(self.others.export, self.side)

    @cached_property
    def start_DD(self) -> Tensor | None:  # noqa: N802
        """By what means are multiplied where gradient steps begin; None for nothing."""
        if self.shards is None:
            return None
        return start_map(self, self.shards, on_sphere=gradient_steps.on_sphere(self))

    @cached_property
    def clusters(self) -> Negatives:
        """Means of clusters of the other side's rows."""
        return cluster_means(self)

    @cached_property
    def sampled(self) -> Negatives:
        """Some of the other side's rows."""
        return sampled_rows(self)

    @property
    def biased(self) -> bool:
        """Whether the last coordinate of the other side is a bias."""
        return self.spec.bias and self.side == "users"

    @property
    def dim(self) -> int:
        """D."""
        return self.spec.dim - int(self.spec.bias)

    @cached_property
    def gram(self) -> Tensor:
        """The sum of the outer products of the other side's vectors, float64 [D, D]."""
        sum_DD = torch.zeros((self.dim, self.dim), dtype=torch.float64)
        for _, block_ND in self.others.blocks():
            wide_ND = torch.from_numpy(block_ND[:, : self.dim]).double()
            sum_DD += wide_ND.T @ wide_ND
        return sum_DD

    @cached_property
    def _table(self) -> Tensor | None:
        """The other side's table, where it is small enough to be kept in memory."""
        if 4 * self.others.count * self.others.dim > _WHOLE:
            return None
        return torch.from_numpy(self.others.load())


def trained_with(train: Artifact, config: Config) -> TrainConfig:
    """Section train that a model was trained with: for objective `auto`, what was chosen."""
    search = Training(train).search
    if search is None:
        return config.train
    tree = {**config.model_dump(mode="json"), "train": search.chosen}
    return parse(tree, stored=True).train


def how_folded(objective: str) -> str:
    """How rows of an objective are folded in, in words."""
    method = _METHODS[objective]
    if method is closed_forms.means:
        return f"as the mean of their items' vectors, which is what '{objective}' defines"
    if method in (gradient_steps.softmax, gradient_steps.bpr, gradient_steps.ccl):
        return f"by gradient steps on the loss of '{objective}' with the items' vectors fixed"
    return f"in the closed form of '{objective}'"


_METHODS: dict[str, Callable[[FoldIn, KnownEvents, int], tuple[Tensor, Tensor | None]]] = {
    "softmax": gradient_steps.softmax,
    "bpr": gradient_steps.bpr,
    "ccl": gradient_steps.ccl,
    "item2vec": closed_forms.means,
    "item2vec-softmax": closed_forms.means,
    "rating": closed_forms.ratings,
    "ials": closed_forms.least_squares,
    "spectral": closed_forms.projected,
}
