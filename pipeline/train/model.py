"""What is trained: two tables and how their rows are compared.

Legend: B users, D columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from embedmill.pipeline.train.data.histories import Histories
from embedmill.pipeline.train.graph.smoothing import Smoothing
from embedmill.pipeline.train.losses import LossSettings
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.train.tables.embedding_table import Table

__all__ = ["ItemPairModel", "Model", "PublishedTable", "RankingVectors"]


class RankingVectors(NamedTuple):
    """Users' vectors [B, D], and the table, similarity and smoothing of the items to rank."""

    user_BD: Tensor
    items: ShardedEmbedding
    settings: LossSettings
    smoothing: Smoothing | None


class PublishedTable(NamedTuple):
    """A table of the artifact: its name, its rows, and the tensors of a partition.

    `tensors` may be a collective: all workers call it equally often, also with partitions that
    they do not own; it returns the tensors of owned ones.
    """

    name: str
    rows: int
    tensors: Callable[[int], dict[str, Tensor]]


@dataclass(frozen=True)
class Model:
    """A vector for every user and for every item."""

    users: Table
    items: Table
    settings: LossSettings
    smoothing: Smoothing | None

    @property
    def nbytes(self) -> int:
        """Bytes of this worker's rows and optimizer state, as in its checkpoints."""
        return self.users.nbytes + self.items.nbytes

    def is_finite(self) -> bool:
        """Whether none of this worker's rows has a NaN or infinity."""
        return self.users.is_finite() and self.items.is_finite()

    def copy_partition(self, partition: int) -> dict[str, Tensor]:
        """Copies of one owned partition of both tables, for a checkpoint."""
        return {
            f"{name}.{key}": tensor
            for name, table in (("users", self.users), ("items", self.items))
            for key, tensor in table.copy_partition(partition).items()
        }

    def load_partition(self, partition: int, tensors: dict[str, Tensor]) -> None:
        """Set one owned partition of both tables to what `copy_partition` returned."""
        for name, table in (("users", self.users), ("items", self.items)):
            start = f"{name}."
            own = {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
            table.load_partition(partition, own)

    def ranking_vectors(self, user_B: Tensor) -> RankingVectors:
        """What ranks items for some users of this worker; a collective.

        Args:
            user_B: rows of the users, ascending.
        """
        users = self.users.embedding
        local_B = users.local_index(user_B.to(users.group.device))
        user_BD = users.weight.detach()[local_B]
        return RankingVectors(user_BD, self.items.embedding, self.settings, self.smoothing)

    def prepare_for_publishing(self) -> None:
        """Change the rows to those that are published, in place; a collective."""
        if self.smoothing is not None:
            self.smoothing.apply()

    def published_tables(self, layout: Layout) -> list[PublishedTable]:
        """The tables of the artifact."""
        scale = self.settings.deviation
        tables = (("users", self.users), ("items", self.items))
        return [_published(name, table, layout, scale) for name, table in tables]


@dataclass(frozen=True)
class ItemPairModel(Model):
    """Vectors of items as centers (`users`) and as contexts (`items`) of pairs.

    Users have no rows of their own: their vectors are means over `histories`. Items are ranked
    by the cosine with their center vectors.
    """

    histories: Histories

    def ranking_vectors(self, user_B: Tensor) -> RankingVectors:
        """See `Model.ranking_vectors`."""
        centers = self.users.embedding
        user_BD = self.histories.user_vectors(user_B, centers)
        settings = replace(self.settings, similarity="cosine")
        return RankingVectors(user_BD, centers, settings, None)

    def published_tables(self, layout: Layout) -> list[PublishedTable]:
        """The tables of the artifact: users, items (the centers) and contexts."""

        def user_vectors(partition: int) -> dict[str, Tensor]:
            vectors = self.histories.partition_vectors(partition, self.users.embedding)
            return {"weight": vectors.cpu()}

        return [
            PublishedTable("users", self.histories.users, user_vectors),
            _published("items", self.users, layout),
            _published("contexts", self.items, layout),
        ]


def _published(name: str, table: Table, layout: Layout, scale: float = 1.0) -> PublishedTable:
    """A table whose biases, and inner products of whose vectors, are multiplied by `scale`."""

    def tensors(partition: int) -> dict[str, Tensor]:
        if partition not in layout.owned:
            return {}
        found = table.published_partition(partition)
        if scale != 1:
            found["weight"] *= math.sqrt(scale)
            found["bias"] *= scale
        return found

    return PublishedTable(name, table.embedding.rows, tensors)
