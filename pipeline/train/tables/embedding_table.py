"""One embedding table with its optimizer state, as a worker holds it in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.train.tables.placement import RowPrefetcher

__all__ = ["Table"]

_BLOCK = 1 << 16  # rows checked together


@dataclass(frozen=True)
class Table:
    """The rows of one table that this worker owns, and their optimizer state.

    Row l of each tensor of `state` belongs to row l of the embedding's weight. `columns` are
    the groups of columns that the optimizer scales separately: the vector, and the bias where
    there is one. Only a memory-mapped table has a `prefetcher`.

    Legend: L rows that this worker owns, n rows of a partition, D columns of the vector.
    """

    embedding: ShardedEmbedding
    state: dict[str, Tensor]
    columns: tuple[slice, ...]
    prefetcher: RowPrefetcher | None = None

    @property
    def weight(self) -> Tensor:
        """The rows, [L, width], outside autograd."""
        return self.embedding.weight.detach()

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and their optimizer state."""
        return self.weight.nbytes + sum(tensor.nbytes for tensor in self.state.values())

    def is_finite(self) -> bool:
        """Whether no row has a NaN or infinity; checks one block at a time."""
        # The least and the greatest are NaN where a value is: 30 times as fast as `isfinite`.
        blocks = (block_ND for block_ND in torch.split(self.weight, _BLOCK) if block_ND.numel())
        return all(math.isfinite(end) for block_ND in blocks for end in torch.aminmax(block_ND))

    def copy_partition(self, partition: int) -> dict[str, Tensor]:
        """Copies of one partition's rows ("weight") and optimizer state, in host memory."""
        span = self.embedding.partition_slice(partition)
        tensors = {"weight": self.weight, **self.state}
        return {name: tensor[span].to("cpu", copy=True) for name, tensor in tensors.items()}

    def load_partition(self, partition: int, tensors: dict[str, Tensor]) -> None:
        """Set one partition's rows and optimizer state to what `copy_partition` returned."""
        span = self.embedding.partition_slice(partition)
        for name, tensor in {"weight": self.weight, **self.state}.items():
            tensor[span] = tensors[name].to(tensor.device)

    def published_partition(self, partition: int) -> dict[str, Tensor]:
        """One partition as the artifact has it: "weight" [n, D], and "bias" [n] if any."""
        rows = self.weight[self.embedding.partition_slice(partition)].cpu()
        tensors = {"weight": rows[:, self.columns[0]].contiguous().clone()}
        if len(self.columns) > 1:
            tensors["bias"] = rows[:, -1].contiguous().clone()
        return tensors
