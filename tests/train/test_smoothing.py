"""The graph of events: item vectors smoothed by hand, tables that begin spectral against SVD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.sample_weights import SampleWeights
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.graph import event_graph
from embedmill.pipeline.train.graph.event_graph import EventGraph
from embedmill.pipeline.train.graph.smoothing import Smoothing
from embedmill.pipeline.train.graph.spectral import set_spectral
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding, set_initial
from tests.support.ranks import run_ranks

PARTITIONS = 4


def events_of(pairs: list[tuple[int, int, float]], layout: Layout) -> Events:
    own = [[p for p in pairs if p[0] % PARTITIONS == partition] for partition in layout.owned]
    flat = [pair for part in own for pair in part]
    users, items = (torch.tensor([p[i] for p in flat], dtype=torch.int32) for i in (0, 1))
    weights = torch.tensor([p[2] for p in flat])
    return Events(users, items, weights, tuple(map(len, own)))


def graph_of(
    pairs: list[tuple[int, int, float]], user_UD: torch.Tensor, item_ID: torch.Tensor, group: Group
) -> EventGraph:
    """The graph of one of the workers, whose tables are its rows of the given ones."""
    layout = Layout(PARTITIONS, group.world, group.rank)
    tables = []
    for rows_ND in (user_UD, item_ID):
        own = [rows_ND[p::PARTITIONS] for p in layout.owned]
        tables.append(ShardedEmbedding(torch.cat(own).clone(), len(rows_ND), layout, group))
    events = events_of(pairs, layout)
    return EventGraph.of(events, SampleWeights(1.0), *tables, user_UD.shape[1])


def whole(table: ShardedEmbedding) -> torch.Tensor:
    return table.fetch(torch.arange(table.rows))[0]


# Degrees: users 5, 1; items 4, 2; the third item has none.
PAIRS = [(0, 0, 4.0), (0, 1, 1.0), (1, 1, 1.0)]
USERS = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
ITEMS = torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 4.0]])


def test_smoothing_by_hand() -> None:
    made = graph_of(PAIRS, USERS, ITEMS, Group()).scaled(0.5, 0.7)
    smoothing = Smoothing(made, 2.0)
    first = 2 * 4 * 5**-0.5 * 4**-0.7 * torch.tensor([0.6, 0.8])
    second = 2 * 2**-0.7 * (5**-0.5 * torch.tensor([0.6, 0.8]) + torch.tensor([0.0, -1.0]))
    torch.testing.assert_close(smoothing.added(0, 2), torch.stack([first, second]))
    smoothing.apply()
    torch.testing.assert_close(whole(made.users), torch.tensor([[0.6, 0.8], [0.0, -1.0]]))
    expected = torch.stack(
        [torch.tensor([1.0, 0.0]) + first, torch.tensor([0.0, 1.0]) + second,
         torch.tensor([0.6, 0.8])]
    )  # fmt: skip
    torch.testing.assert_close(whole(made.items), expected)


def drawn(users: int, items: int, events: int, seed: int = 0) -> list[tuple[int, int, float]]:
    """Events of three groups of users and items, a tenth of them across."""
    source = np.random.default_rng(seed)
    user = source.integers(users, size=events)
    item = source.integers(items // 3, size=events) * 3
    item += np.where(source.random(events) < 0.9, user % 3, source.integers(3, size=events))
    return [(int(u), int(i), 1.0) for u, i in zip(user, item, strict=True)]


def begun(pairs: list[tuple[int, int, float]], users: int, items: int, dim: int) -> EventGraph:
    group = Group(*_rank())
    layout = Layout(PARTITIONS, group.world, group.rank)
    tables = []
    for name, rows in (("users", users), ("items", items)):
        weight_LD = torch.empty(layout.local_rows(rows), dim)
        set_initial(weight_LD, name, rows, layout, seed=3, scale=dim**-0.5)
        tables.append(ShardedEmbedding(weight_LD, rows, layout, group))
    made = EventGraph.of(events_of(pairs, layout), SampleWeights(), *tables, dim)
    set_spectral(made, seed=3, scale=dim**-0.5)
    return made


def _rank() -> tuple[int, int]:
    up = torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if up else (0, 1)


def ranked(pairs: list[tuple[int, int, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    made = begun(pairs, 61, 31, 3)
    tables = whole(made.users), whole(made.items)
    made = made.scaled(0.5, 0.7)
    Smoothing(made, 1.0).apply()
    return tables[0], torch.cat([tables[1], whole(made.items)], 1)


def test_tables_begin_with_the_singular_vectors() -> None:
    pairs = drawn(60, 30, 2000)
    made = begun(pairs, 61, 31, 3)  # the last user and item have no event
    matrix = np.zeros((60, 30))
    np.add.at(matrix, ([p[0] for p in pairs], [p[1] for p in pairs]), 1.0)
    matrix /= np.sqrt(matrix.sum(1, keepdims=True) * matrix.sum(0, keepdims=True))
    left, value, right = np.linalg.svd(matrix)
    user_UD, item_ID = (
        functional.normalize(torch.from_numpy(side[:, :3] * np.sqrt(value[:3])).float())
        for side in (left, right.T)
    )
    # Equal up to a rotation, which inner products do not see.
    ours_UD, ours_ID = whole(made.users)[:60], whole(made.items)[:30]
    close = {"atol": 2e-3, "rtol": 0.0}
    torch.testing.assert_close(ours_UD @ ours_ID.T, user_UD @ item_ID.T, **close)
    torch.testing.assert_close(ours_ID @ ours_ID.T, item_ID @ item_ID.T, **close)


def test_rows_without_events_keep_their_normal_values() -> None:
    made = begun(drawn(60, 30, 500), 61, 31, 3)
    layout = Layout(PARTITIONS)
    normal_ND = torch.empty(31, 3)
    set_initial(normal_ND, "items", 31, layout, seed=3, scale=3**-0.5)
    place = int(made.items.local_index(torch.tensor(30)))
    assert made.items.weight[place].tolist() == normal_ND[place].tolist()


@pytest.mark.parametrize("dim", [8, 40])
def test_more_columns_than_the_events_have_directions(dim: int) -> None:
    made = begun([(0, 0, 1.0), (1, 1, 1.0), (2, 1, 1.0)], 3, 2, dim)
    user_UD, item_ID = whole(made.users).detach(), whole(made.items).detach()
    torch.testing.assert_close(user_UD.norm(dim=1), torch.ones(3), atol=1e-3, rtol=0)
    # Two islands: near one's own item, at right angles to the other's.
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    torch.testing.assert_close(user_UD @ item_ID.T, expected, atol=0.02, rtol=0)


def test_any_number_of_workers_begins_and_smooths_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = drawn(60, 30, 2000)
    monkeypatch.setattr(event_graph, "_ROWS", 7)  # several blocks of items, here only
    monkeypatch.setattr(event_graph, "_EDGES", 100)
    alone = ranked(pairs)
    for answer in run_ranks(ranked, 3, tmp_path, pairs):
        for ours, theirs in zip(alone, answer, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
