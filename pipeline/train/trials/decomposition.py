"""Trials of spectral that share a decomposition.

The singular vectors depend on the exponents of the degrees alone. One subspace of the greatest
dimension, turned to its singular vectors, has those of every smaller dimension as its first
columns; ridge and popularity only scale columns and rows. So a trial costs a copy and a
validation.

Legend: L rows of this worker, D columns of the decomposition, d columns of a trial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embedmill.pipeline.config import SpectralConfig
from embedmill.pipeline.train.als.spectral_start import scale_to_events
from embedmill.pipeline.train.closed_form.subspace import (
    SubspaceIteration,
    damping,
    popularity_factors,
)
from embedmill.pipeline.train.closed_form.table_algebra import gram, multiply
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.train.tables.embedding_table import Table
from embedmill.pipeline.train.trainer import Trainer

__all__ = ["PASSES", "UNSCALED", "Decomposition"]

# Of a decomposition: the order of trials is that of more passes. It has the greatest dimension from
# the start: of 256, the first 128 are too far from singular vectors after so many.
PASSES = 3
# Settings with which the passes leave A V in the users' table and V in the items'.
UNSCALED = {"spectral.ridge": 0.0, "spectral.popularity_power": 0.0, "spectral.passes": PASSES}


@dataclass(frozen=True)
class Decomposition:
    """Users A V and items V, in the tables of the trainer; `square_D` are S^2, falling."""

    trainer: Trainer
    square_D: Tensor

    @staticmethod
    def of(trainer: Trainer) -> Decomposition:
        """Turn the tables of a trainer, after its passes with `UNSCALED`; a collective."""
        model, dim = trainer.model, trainer.config.dim
        square_D, axis_DD = torch.linalg.eigh(gram(model.users.embedding, dim))
        for table in (model.users, model.items):
            multiply(table.embedding, axis_DD.flip(1))
        return Decomposition(trainer, square_D.flip(0))

    def model(self, spectral: SpectralConfig, dim: int) -> Model:
        """The model of a trial, in tables of its own; a collective.

        Args:
            spectral: with the exponents of the decomposition.
            dim: of the trial, at most that of the decomposition.
        """
        passes, model = self._passes, self.trainer.model
        factor_d = damping(self.square_D[:dim], spectral.ridge * passes.mean_square).float()
        popularity_L = popularity_factors(passes.graph, spectral.popularity_power)
        users_Ld = model.users.weight[:, :dim] * factor_d
        items_Ld = model.items.weight[:, :dim] * factor_d * popularity_L[:, None]
        users, items = _table(model.users, users_Ld), _table(model.items, items_Ld)
        return Model(users, items, model.settings, None)

    def start(self, trainer: Trainer) -> None:
        """Give the tables of a training by ials the vectors of spectral; a collective.

        Args:
            trainer: before its first epoch, on the same events.
        """
        spectral, model, dim = SpectralConfig(), trainer.model, trainer.config.dim
        found = self.model(spectral, dim)
        for own, other in ((model.users, found.users), (model.items, found.items)):
            own.weight.detach()[:, :dim] = other.weight
        users, items = model.users.embedding, model.items.embedding
        scale_to_events(replace(self._passes.graph, users=users, items=items, dim=dim), spectral)

    @property
    def _passes(self) -> SubspaceIteration:
        stepper = self.trainer.stepper
        assert isinstance(stepper, SubspaceIteration)
        return stepper


def _table(whole: Table, weight_Ld: Tensor) -> Table:
    """A table with other columns."""
    own = whole.embedding
    embedding = ShardedEmbedding(weight_Ld, own.rows, own.layout, own.group)
    return Table(embedding, {}, (slice(0, weight_Ld.shape[1]),))
