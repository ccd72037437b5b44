"""Train events of the partitions that a worker owns, in compact tensors.

Events take most of the memory beside the tables: 8 bytes each where rows fit into 32 bits and
all weights are equal, 12 otherwise. Above a bound they are in memory-mapped files without a name,
which the system frees with the process; it keeps in memory what steps read, see `epoch_order`.

Legend: E events of this worker, N events of one partition, I items.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.views.shards import Shards
from embedmill.schemas.shards import PAIRS

__all__ = [
    "MOST_KEPT_BYTES",
    "Events",
    "integer_type",
    "item_counts",
    "joined",
    "mean_over_partitions",
    "mean_weight",
    "read_events",
    "weight_deviation",
]

# Bytes of rows of a worker's events that are kept in memory; more are mapped.
MOST_KEPT_BYTES = 1 << 30

_EVENT = ["user_row", "item_row", "weight"]
_PAIR = ["center_row", "context_row", "count"]
_NUMBERS = {torch.int32: np.int32, torch.int64: np.int64, torch.float32: np.float32}


@dataclass(frozen=True)
class Events:
    """Events of the owned partitions, one partition after the other; `sizes` counts them.

    `user_E` and `item_E` are int32 where all rows fit, else int64. `weight_E` is float32;
    where all weights are equal, it is one number expanded to E (stride 0). Pairs of items are
    events too: the center is the user, the context the item, the count the weight.
    """

    user_E: Tensor
    item_E: Tensor
    weight_E: Tensor
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.user_E)

    def empty(self) -> Events:
        """No events, of the same partitions."""
        sizes = tuple(0 for _ in self.sizes)
        return Events(self.user_E[:0], self.item_E[:0], self.weight_E[:0], sizes)

    def partitions(self) -> Iterator[Events]:
        """The events of each owned partition, as views."""
        for stop, size in zip(accumulate(self.sizes), self.sizes, strict=True):
            yield self.select(slice(stop - size, stop))

    def select(self, chosen: Tensor | slice) -> Events:
        """Some of the events, as of one partition; `chosen` is a mask or a slice."""
        user_N = self.user_E[chosen]
        return Events(user_N, self.item_E[chosen], self.weight_E[chosen], (len(user_N),))


def joined(partitions: Sequence[Events]) -> Events:
    """The events of at least one partition, in this order."""
    return Events(
        torch.cat([part.user_E for part in partitions]),
        torch.cat([part.item_E for part in partitions]),
        torch.cat([part.weight_E for part in partitions]),
        tuple(len(part) for part in partitions),
    )


def integer_type(count: int) -> torch.dtype:
    """The smaller of int32 and int64 that holds every row of a table of `count` rows."""
    return torch.int32 if count < 2**31 else torch.int64


def read_events(
    shards: Shards,
    splits: Sequence[str],
    layout: Layout,
    rows: tuple[int, int],
    scratch: Path | None = None,
) -> Events:
    """Read the owned partitions; within one, the splits follow each other in file order.

    Args:
        shards: the artifact.
        splits: names of splits, or of folders of pairs.
        layout: which partitions this worker owns.
        rows: number of users and of items.
        scratch: folder for more events than are kept in memory; None: all are kept.

    Raises:
        ContractError: a file has another number of rows than its manifest says.
        MachineError: the folder has no room.
    """
    sizes = tuple(sum(shards.rows(split, p) for split in splits) for p in layout.owned)
    dtype = integer_type(max(rows))
    if 2 * sum(sizes) * dtype.itemsize <= MOST_KEPT_BYTES:
        scratch = None
    user_E, item_E = (_column(sum(sizes), dtype, scratch) for _ in rows)
    weights, at = _Weights(sum(sizes), scratch), 0
    for partition, split in itertools.product(layout.owned, splits):
        columns = _PAIR if split in PAIRS else _EVENT
        user_N, item_N, weight_N = shards.read(split, partition, columns)
        span = slice(at, at + len(user_N))
        user_E.numpy()[span] = user_N
        item_E.numpy()[span] = item_N
        weights.put(span, weight_N)
        at = span.stop
    return Events(user_E, item_E, weights.weight_E, sizes)


class _Weights:
    """Weights that are stored as one number until one differs from the others."""

    def __init__(self, size: int, scratch: Path | None) -> None:
        self.weight_E = torch.ones(1).expand(size)
        self._scratch = scratch
        self._started = False

    def put(self, span: slice, weight_N: np.ndarray) -> None:
        """Store the weights of the events of `span`."""
        if not len(weight_N):
            return
        if not self._started:
            self.weight_E = torch.tensor([float(weight_N[0])]).expand(len(self.weight_E))
            self._started = True
        if self.weight_E.stride(0) == 0 and (weight_N != float(self.weight_E[0])).any():
            same = self.weight_E
            self.weight_E = _column(len(same), torch.float32, self._scratch)
            self.weight_E.copy_(same)
        if self.weight_E.stride(0):
            self.weight_E.numpy()[span] = weight_N


def _column(size: int, dtype: torch.dtype, scratch: Path | None) -> Tensor:
    """An uninitialized tensor [size], in memory, or in a file of `scratch` that has no name."""
    if scratch is None or not size:
        return torch.empty(size, dtype=dtype)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch) as raw:
            raw.truncate(size * dtype.itemsize)
            numbers = np.memmap(raw, _NUMBERS[dtype], "r+", shape=(size,))
    except OSError as error:
        raise MachineError(
            f"{error.strerror}: train events of {size * dtype.itemsize / 1e9:.1f} GB",
            where=str(scratch),
            todo="Free some space, or set train.scratch to a folder on another local disk",
        ) from error
    return torch.from_numpy(numbers)


def item_counts(events: Events, items: int, group: Group) -> Tensor:
    """Events of every item over all workers, int64 [I]; a collective."""
    counts_I = torch.zeros(items, dtype=torch.int64)
    for partition in events.partitions():
        counts_I += torch.bincount(partition.item_E, minlength=items)
    return group.sum(counts_I.to(group.device)).cpu()


def mean_weight(events: Events, layout: Layout, group: Group) -> float:
    """Mean weight over all workers, the same to the last bit for any number of them."""
    weights = (partition.weight_E for partition in events.partitions())
    return mean_over_partitions(weights, layout, group)


def weight_deviation(events: Events, mean: float, layout: Layout, group: Group) -> float:
    """Standard deviation of the weights over all workers; 1 where they are all the same.

    Args:
        events: of the owned partitions.
        mean: that of `mean_weight`.
        layout: which partitions this worker owns.
        group: the workers.
    """
    squares = ((partition.weight_E.double() - mean).square() for partition in events.partitions())
    return math.sqrt(mean_over_partitions(squares, layout, group)) or 1.0


def mean_over_partitions(values: Iterable[Tensor], layout: Layout, group: Group) -> float:
    """Mean of values over all workers, the same to the last bit for any number of them.

    Each partition is summed by its owner, and the sums are added up exactly; a collective.

    Args:
        values: a float tensor [N] for each owned partition, ascending; 0 in all gives 0.
        layout: which partitions this worker owns.
        group: the workers.
    """
    own = [(float(value_N.double().sum()), float(len(value_N))) for value_N in values]
    sums = torch.tensor(own, dtype=torch.float64).reshape(len(own), 2).to(group.device)
    every = group.gather_partitions(sums, layout).tolist()
    return math.fsum(total for total, _ in every) / max(1.0, math.fsum(count for _, count in every))
