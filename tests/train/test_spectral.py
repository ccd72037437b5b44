"""Spectral vectors against a dense singular value decomposition, and a pass at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from embedmill.pipeline.config import SpectralConfig
from embedmill.pipeline.train.closed_form import PassPlan, SubspaceIteration, event_matrix
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.sample_weights import SampleWeights
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.graph.event_graph import EventGraph
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding, set_initial

USERS, ITEMS, EVENTS, PARTITIONS = 40, 30, 260, 4
CONFIG = SpectralConfig(user_power=0.5, item_power=0.3, popularity_power=0.2, ridge=0.7, passes=400)


def log_of(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Events of user u and item i, some of them twice; user 39 and item 29 have none."""
    source = np.random.default_rng(seed)
    user_E = source.integers(0, USERS - 1, EVENTS)
    item_E = np.minimum(source.integers(0, ITEMS - 1, EVENTS), source.integers(0, 60, EVENTS))
    order = np.argsort(user_E % PARTITIONS, kind="stable")
    weight_E = source.integers(1, 4, EVENTS)
    return tuple(torch.from_numpy(c[order]) for c in (user_E, item_E, weight_E))  # type: ignore[return-value]


def graph_of(seed: int, dim: int) -> tuple[EventGraph, np.ndarray]:
    """The graph of a log with random tables, and the dense matrix of its weights."""
    user_E, item_E, weight_E = log_of(seed)
    layout, group = Layout(PARTITIONS), Group()
    tables = []
    for name, rows in (("users", USERS), ("items", ITEMS)):
        weight_LD = torch.empty(rows, dim)
        set_initial(weight_LD, name, rows, layout, seed=seed, scale=1.0)
        tables.append(ShardedEmbedding(weight_LD, rows, layout, group))
    sizes = tuple(torch.bincount(user_E % PARTITIONS, minlength=PARTITIONS).tolist())
    events = Events(user_E.int(), item_E.int(), weight_E.float(), sizes)
    dense = np.zeros((USERS, ITEMS))
    np.add.at(dense, (user_E.numpy(), item_E.numpy()), weight_E.numpy())
    return EventGraph.of(events, SampleWeights(1.0), tables[0], tables[1], dim), dense


def rows_of(table: ShardedEmbedding) -> np.ndarray:
    return table.weight.detach()[table.local_index(torch.arange(table.rows))].numpy()


def power(degree: np.ndarray, exponent: float) -> np.ndarray:
    return np.where(degree > 0, np.maximum(degree, 1) ** exponent, 0)


def expected(dense: np.ndarray, config: SpectralConfig, dim: int) -> tuple[np.ndarray, float]:
    """Scores of all users with all items by LAPACK, and the share that is left out."""
    user, item = dense.sum(1), dense.sum(0)
    scaled = power(user, -config.user_power)[:, None] * dense * power(item, -config.item_power)
    left, value, right = np.linalg.svd(scaled)
    mean = (value**2).sum() / min((user > 0).sum(), (item > 0).sum())
    damped = value**3 / (value**2 + config.ridge * mean)
    scores = (left[:, :dim] * damped[:dim]) @ right[:dim]
    return scores * power(item, config.popularity_power), 1 - (value[:dim] ** 2).sum() / (
        value**2
    ).sum()


def test_scores_are_those_of_a_dense_decomposition() -> None:
    graph, dense = graph_of(3, dim=6)
    take = SubspaceIteration(graph, CONFIG).start_epoch(0, lambda _: 0.0)
    losses = [take(step) for step in range(CONFIG.passes)]
    scores, left_out = expected(dense, CONFIG, 6)
    user_ND, item_ND = rows_of(graph.users), rows_of(graph.items)
    np.testing.assert_allclose(user_ND @ item_ND.T, scores, rtol=1e-3, atol=1e-4)
    assert losses[-1] == pytest.approx(left_out, abs=1e-5)
    assert np.diff(losses).max() < 1e-5
    assert not user_ND[39].any()
    assert not item_ND[29].any()


def test_the_size_of_tiles_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for tile in (1 << 16, 7):
        monkeypatch.setattr(event_matrix, "TILE_ROWS", tile)
        graph, _ = graph_of(3, dim=6)
        take = SubspaceIteration(graph, CONFIG).start_epoch(0, lambda _: 0.0)
        for step in range(10):
            take(step)
        found.append(rows_of(graph.users) @ rows_of(graph.items).T)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_a_user_is_folded_in_by_one_sparse_product() -> None:
    """u = d^-a sum of w e^-(b + q) v over the user's items v."""
    graph, dense = graph_of(5, dim=4)
    take = SubspaceIteration(graph, CONFIG).start_epoch(0, lambda _: 0.0)
    for step in range(CONFIG.passes):
        take(step)
    item = power(dense.sum(0), -CONFIG.item_power - CONFIG.popularity_power)
    folded = (dense * item) @ rows_of(graph.items)
    folded *= power(dense.sum(1), -CONFIG.user_power)[:, None]
    np.testing.assert_allclose(rows_of(graph.users), folded, rtol=1e-4, atol=1e-5)


def test_a_later_epoch_goes_on_from_what_was_published() -> None:
    """Two epochs of 200 passes leave out as little as one of 400."""
    half = CONFIG.model_copy(update={"passes": 200})
    graph, dense = graph_of(7, dim=5)
    for epoch in range(2):
        take = SubspaceIteration(graph, half).start_epoch(epoch, lambda _: 0.0)
        losses = [take(step) for step in range(half.passes)]
    assert losses[0] < expected(dense, half, 5)[1] + 0.01
    np.testing.assert_allclose(
        rows_of(graph.users) @ rows_of(graph.items).T, expected(dense, half, 5)[0], atol=1e-4
    )


def test_more_dimensions_than_items_leave_nothing_out() -> None:
    graph, dense = graph_of(2, dim=48)
    config = CONFIG.model_copy(update={"passes": 3})
    take = SubspaceIteration(graph, config).start_epoch(0, lambda _: 0.0)
    losses = [take(step) for step in range(3)]
    assert losses[-1] == pytest.approx(0, abs=1e-3)
    scores = rows_of(graph.users) @ rows_of(graph.items).T
    np.testing.assert_allclose(scores, expected(dense, config, 30)[0], atol=2e-3)


def test_with_all_dimensions_scores_are_those_of_a_ridge_regression() -> None:
    """A W with W = (A'A + r I)^-1 A'A by its normal equations; EASE differs by a factor an item.

    Off its zero diagonal EASE is -P_ij / P_jj, and W is I - r P, both with P = (A'A + r I)^-1.
    """
    graph, dense = graph_of(2, dim=ITEMS)
    config = SpectralConfig(user_power=0, item_power=0, popularity_power=0, ridge=2, passes=3)
    take = SubspaceIteration(graph, config).start_epoch(0, lambda _: 0.0)
    for step in range(config.passes):
        take(step)
    penalty = (
        config.ridge * (dense**2).sum() / min((dense.sum(1) > 0).sum(), (dense.sum(0) > 0).sum())
    )
    inverse = np.linalg.inv(dense.T @ dense + penalty * np.eye(ITEMS))
    scores = rows_of(graph.users) @ rows_of(graph.items).T
    np.testing.assert_allclose(scores, dense @ (inverse @ dense.T @ dense), rtol=1e-3, atol=1e-3)
    ease = -inverse / np.diag(inverse)
    np.fill_diagonal(ease, 0)
    unseen = dense == 0
    expected_scores = (dense @ ease) * (penalty * np.diag(inverse))
    np.testing.assert_allclose(scores[unseen], expected_scores[unseen], rtol=1e-3, atol=1e-3)


def test_a_plan_reports_every_event_once() -> None:
    plan = PassPlan((7, 0, 12), passes=4)
    assert (plan.steps, plan.events) == (4, 19)
    assert [sum(plan.batch_sizes(step)) for step in range(4)] == [4, 5, 5, 5]
    assert np.sum([plan.batch_sizes(step) for step in range(4)], axis=0).tolist() == [7, 0, 12]
