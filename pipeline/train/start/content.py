"""New rows without events of the other side: from what is known of the items, never from noise.

An item begins at the sum of its categories' mean vectors, over the items of the earlier run, or of
the words of its title where it has no categories. What has neither begins at the mean of its side.

Legend: L rows of this worker, I rows of all workers, F features, M pairs of a row and a feature,
D columns of the vectors.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.graph.event_graph import anywhere
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.pipeline.views.vocabulary import Vocabulary

__all__ = ["begin_without_events"]

_LEAST = 1e-30  # a length below is that of a zero vector


def begin_without_events(
    table: ShardedEmbedding,
    dim: int,
    new_L: Tensor,
    length: float,
    metadata: tuple[Run, str],
) -> None:
    """Set new rows that are zero; a collective.

    Args:
        table: new rows with events of the other side have been set; the others are zero.
        dim: columns of the vectors.
        new_L: which rows of this worker are new.
        length: that vectors get.
        metadata: the run, whose item metadata may say something, and the side of the rows.
    """
    vectors_LD, group = table.weight.detach()[:, :dim], table.group
    zero_L = vectors_LD.norm(dim=1) < _LEAST
    begins_L = new_L & zero_L
    empty_I = anywhere(table, begins_L)
    if not bool(empty_I.any()):
        return
    known_L = (~new_L & ~zero_L).float()
    run, side = metadata
    row_M, feature_M, number = _features(run, side, empty_I.cpu().numpy())
    own_M = table.layout.owner(row_M.to(group.device)) == group.rank
    feature_M = feature_M.to(group.device)[own_M]
    at_M = table.local_index(row_M.to(group.device)[own_M])
    sum_FD = vectors_LD.new_zeros((number + 1, dim))
    sum_FD.index_add_(0, feature_M, vectors_LD[at_M] * known_L[at_M, None])
    sum_FD[number] = known_L @ vectors_LD  # all of them
    mean_FD = functional.normalize(group.sum(sum_FD), eps=_LEAST)
    begun_LD = torch.zeros_like(vectors_LD)
    begun_LD.index_add_(0, at_M, mean_FD[feature_M])
    nothing_L = begun_LD.norm(dim=1) < _LEAST
    begun_LD[nothing_L] = mean_FD[number]
    vectors_LD[begins_L] = functional.normalize(begun_LD[begins_L], eps=_LEAST) * length


def _features(run: Run, side: str, empty_I: NDArray[np.bool_]) -> tuple[Tensor, Tensor, int]:
    """Rows and features of the items that share a feature with one that has no vector, int64 [M].

    Returns:
        also the number of features; none for users, and without metadata.
    """
    none = torch.empty(0, dtype=torch.int64)
    manifest = run.manifest("events") if side == "items" else None
    metadata = ItemMetadata(run.artifact("events") if manifest is not None else None)
    if not metadata.exists:
        return none, none, 0
    table = metadata.table(["item", "title", "categories"]).combine_chunks()
    items = pa.array(table["item"].to_pylist(), pa.string())
    row_N = Vocabulary.of(run.artifact("vocab"), "items").rows_of(items)
    categories = table["categories"].combine_chunks()
    counted_N = pc.fill_null(pc.list_value_length(categories), 0).to_numpy(zero_copy_only=False)
    words = pc.utf8_split_whitespace(pc.utf8_lower(table["title"].combine_chunks()))
    at_N, value_N = list[NDArray[np.int64]](), list[pa.Array]()
    for lists, used_N in ((categories, counted_N > 0), (words, counted_N == 0)):
        parent = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        used = used_N[parent] & (row_N[parent] >= 0)
        at_N.append(row_N[parent[used]])
        value_N.append(pc.list_flatten(lists).filter(pa.array(used)).cast(pa.string()))
    row_M = np.concatenate(at_N)
    feature_M = pa.concat_arrays(value_N).dictionary_encode().indices.to_numpy()
    wanted = np.unique(feature_M[empty_I[row_M]])
    kept = np.isin(feature_M, wanted)
    feature_M = np.searchsorted(wanted, feature_M[kept])
    rows, features = (torch.from_numpy(a.astype(np.int64)) for a in (row_M[kept], feature_M))
    return rows, features, len(wanted)
