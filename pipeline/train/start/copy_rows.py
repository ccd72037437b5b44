"""Tables that begin with the rows of an earlier run, by id.

Rows of ids that are in both runs are copied, with their biases and optimizer state. A new row
begins at the sum of the other side's vectors of its events, scaled to the mean length of the
copied rows: first new users from known items, then new items from all users, then users who have
new items alone. Those without events of the other side begin as `content` says.

Legend: L rows of this worker, N items of a block, M events, D columns of the vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.data.sample_weights import SampleWeights
from embedmill.pipeline.train.data.train_events import Events, joined
from embedmill.pipeline.train.graph.event_graph import (
    EventGraph,
    anywhere,
    owned_rows,
    row_blocks,
)
from embedmill.pipeline.train.plan import rows_in
from embedmill.pipeline.train.start.content import begin_without_events
from embedmill.pipeline.train.start.find_start import Start
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.train.tables.embedding_table import Table
from embedmill.pipeline.views.earlier_run import earlier_rows
from embedmill.pipeline.views.train import Training
from embedmill.pipeline.views.vocabulary import Vocabulary

__all__ = ["StartedTable", "copy_start"]


@dataclass(frozen=True)
class StartedTable:
    """A table of a training: its name there, the side of its rows, and its published files."""

    name: str
    side: str
    table: Table
    files: str


def copy_start(
    start: Start,
    run: Run,
    tables: tuple[StartedTable, StartedTable],
    examples: tuple[Events, SampleWeights],
    deviation: float,
) -> bool:
    """Set fresh tables to the rows of the run that training starts from; a collective.

    Args:
        start: that run.
        run: the run that trains.
        tables: users and items, or centers and contexts, with normal initial values.
        examples: of the owned partitions, and their sample weights.
        deviation: of the ratings, in whose units tables are trained; 1 in a ranking.

    Returns:
        False, with the tables unchanged, where no id is in both runs.
    """
    group, dim = tables[0].table.embedding.group, tables[0].table.columns[0].stop
    with group.fail_together():
        rows = {side: _earlier(start, run, side) for side in {one.side for one in tables}}
        if not any((row_N >= 0).any() for row_N in rows.values()):
            known = []
        else:
            known = [_copy(start, one, rows[one.side], deviation) for one in tables]
    if not known:
        return False
    lengths = [
        _mean_length(one.table, new_L, dim) for one, new_L in zip(tables, known, strict=True)
    ]
    length = [one or max(lengths) for one in lengths]
    new = known[0].to(group.device), known[1].to(group.device)
    users, items = (one.table.embedding for one in tables)
    new_I = anywhere(items, new[1])
    events = _of_new_rows(examples[0], users, new[0], new_I)
    ones = [torch.ones(rows, device=group.device) for rows in (len(users.weight), items.rows)]
    graph = EventGraph(events, examples[1], users, items, ones[0], ones[1], dim)
    _begin_new(graph, new, new_I, (length[0], length[1]))
    for one, new_L, own in zip(tables, new, length, strict=True):
        begin_without_events(one.table.embedding, dim, new_L, own, (run, one.side))
    return True


def _earlier(start: Start, run: Run, side: str) -> np.ndarray:
    now, before = (Vocabulary.of(one.artifact("vocab"), side) for one in (run, start.run))
    return earlier_rows(now, before)


def _copy(start: Start, one: StartedTable, row_N: np.ndarray, deviation: float) -> Tensor:
    """Copy the rows of a table that are known; returns which of this worker's rows are new [L]."""
    table, training = one.table, Training(start.run.artifact("train"))
    earlier_L = torch.from_numpy(row_N)[_own_rows(table.embedding)]
    stored, partitions = training.has_state, training.model.partitions
    for partition in range(partitions):
        at = torch.nonzero((earlier_L >= 0) & (earlier_L % partitions == partition)).squeeze(1)
        if not len(at):
            continue
        data = training.state(partition) if stored else training.table(one.files, partition)
        tensors = load_tensors(data)
        place = earlier_L[at] // partitions
        if stored:
            for key, target in {"weight": table.weight, **table.state}.items():
                if (value := tensors.get(f"{one.name}.{key}")) is not None:
                    target[at] = value[place].to(target.device)
            continue
        dim = table.columns[0].stop
        weight_RD = tensors["weight"][place] / math.sqrt(deviation)
        table.weight[at, :dim] = weight_RD.to(table.weight.device)
        if "bias" in tensors and len(table.columns) > 1:
            bias_R = tensors["bias"].reshape(-1)[place] / deviation
            table.weight[at, dim] = bias_R.to(table.weight.device)
    return earlier_L < 0


def _own_rows(table: ShardedEmbedding) -> Tensor:
    """The rows of this worker in the order of its table, int64 [L]."""
    layout = table.layout
    parts = [
        torch.arange(rows_in(partition, layout.partitions, table.rows)) * layout.partitions
        + partition
        for partition in layout.owned
    ]
    return torch.cat([torch.empty(0, dtype=torch.int64), *parts])


def _mean_length(table: Table, new_L: Tensor, dim: int) -> float:
    """Mean length of the copied rows over all workers; 0 where there are none; a collective."""
    length_L = torch.linalg.vector_norm(table.weight[:, :dim], dim=1).double()
    length_L = length_L[(~new_L).to(length_L.device)]
    total = torch.stack(
        (length_L.sum(), torch.tensor(float(len(length_L)), device=length_L.device))
    )
    summed, count = table.embedding.group.sum(total).tolist()
    return float(summed / count) if count else 0.0


def _of_new_rows(
    events: Events, users: ShardedEmbedding, new_users_L: Tensor, new_I: Tensor
) -> Events:
    """The events of new users, and of new items: others say nothing of new rows."""
    device = users.group.device
    parts = [events.empty()]
    for part in events.partitions():
        mine_N = new_I[part.item_E.long().to(device)]
        if bool(new_users_L.any()):
            mine_N |= new_users_L[users.local_index(part.user_E.long().to(device))]
        parts.append(part.select(mine_N.cpu()))
    return joined(parts)


def _begin_new(
    graph: EventGraph,
    new: tuple[Tensor, Tensor],
    new_I: Tensor,
    lengths: tuple[float, float],
) -> None:
    """Set new rows from their events; a collective.

    Args:
        graph: of the events of new rows, with weights of edges alone.
        new: which rows of this worker are new, of users and of items.
        new_I: which items of all workers are new.
        lengths: that their vectors get.
    """
    users, items, dim = graph.users, graph.items, graph.dim
    new_users_L, new_items_L = new
    tables = [table.weight.detach()[:, :dim] for table in (users, items)]
    for table_LD, one in zip(tables, (new_users_L, new_items_L), strict=True):
        table_LD[one] = 0
    _set_users(graph, new_users_L, lengths[0])
    for first, last in row_blocks(items.rows):
        if not bool(new_I[first:last].any()):
            continue
        sum_ND = graph.item_sums(first, last, chosen_I=new_I)
        own = owned_rows(items, first, last)
        local = items.local_index(own)
        fresh = new_items_L[local]
        unit_ND = functional.normalize(sum_ND[own - first][fresh], eps=1e-30)
        tables[1][local[fresh]] = unit_ND * lengths[1]
    _set_users(graph, new_users_L & (tables[0] == 0).all(1), lengths[0])


def _set_users(graph: EventGraph, chosen_L: Tensor, length: float) -> None:
    """Set some users to the sums of their items' vectors, scaled to a length; a collective."""
    vectors_LD = graph.users.weight.detach()[:, : graph.dim]
    sum_LD = torch.zeros((int(chosen_L.sum()), graph.dim), device=vectors_LD.device)
    place_L = chosen_L.long().cumsum(0) - 1
    for first, last in row_blocks(graph.items.rows):
        rows = torch.arange(first, last, device=graph.group.device)
        item_ND = graph.items.fetch(rows)[0][:, : graph.dim]
        for user_M, item_M, edge_M in graph.edges(first, last):
            mine_M = chosen_L[user_M]
            item_MD = item_ND[item_M[mine_M] - first] * edge_M[mine_M, None]
            sum_LD.index_add_(0, place_L[user_M[mine_M]], item_MD)
    vectors_LD[chosen_L] = functional.normalize(sum_LD, eps=1e-30) * length
